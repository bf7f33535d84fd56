"""Predictors: fitted on synthetic times, on real ones, and used in a plan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan
from dnnsplit_onnx.errors import InputError, ProfileError
from dnnsplit_onnx.machines.predictors import Predictor, load_timings, parse_timings
from dnnsplit_onnx.machines.profiles import Profile
from dnnsplit_onnx.measuring.profiling import predicting
from dnnsplit_onnx.measuring.profiling.predicting import (
    Observation,
    fit,
    fit_predictor,
    fitted,
    quickest,
)
from dnnsplit_onnx.models import model_path
from dnnsplit_onnx.reporting.verdict import basis
from dnnsplit_onnx.runtime.options import SessionOptions
from dnnsplit_onnx.work.features import AMOUNTS, features

LAWS = {"Conv": (5e-6, (2e-11, 0, 1e-10, 0, 3e-10)), "Relu": (1e-6, (0, 1e-10, 0, 2e-10, 0))}


def observed(seed: int, nodes: int = 60) -> Observation:
    """A model that obeys `LAWS` to the letter."""
    rng = np.random.default_rng(seed)
    kinds = tuple(rng.choice(list(LAWS), nodes).tolist())
    amounts = rng.uniform(1e5, 1e7, (nodes, len(AMOUNTS)))
    seconds = np.array(
        [LAWS[kind][0] + np.dot(LAWS[kind][1], row) for kind, row in zip(kinds, amounts, strict=True)]
    )
    return Observation(f"m{seed}", kinds, amounts, seconds, float(seconds.sum()))


def test_a_law_is_found_again_and_predicts_models_left_out() -> None:
    made = fitted([observed(seed) for seed in range(4)], "edge", SessionOptions(), 0.0)
    for kind, (fixed, per) in LAWS.items():
        assert made.kinds[kind].fixed_s == pytest.approx(fixed, rel=1e-4)
        assert made.kinds[kind].per == pytest.approx(per, rel=1e-4, abs=1e-16)
    assert made.median_error == pytest.approx(0, abs=1e-5)
    assert made.within_tenth == 1


@given(st.integers(0, 10_000))
def test_coefficients_are_the_optimum_of_non_negative_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0, 1e7, (30, len(AMOUNTS)))
    seconds = rng.uniform(1e-5, 1e-3, 30)
    found = predicting._least_squares(amounts, seconds)
    table = np.concatenate((np.ones((30, 1)), amounts * 1e-6), axis=1) / np.sqrt(seconds)[:, None]
    gradient = table.T @ (table @ found - np.sqrt(seconds))
    scale = np.abs(table.T @ np.sqrt(seconds))
    assert (found >= 0).all()
    # Karush, Kuhn and Tucker: no slope where a coefficient is free, none downwards where it is 0.
    assert (np.abs(gradient[found > 0]) <= 1e-6 * scale[found > 0]).all()
    assert (gradient[found == 0] >= -1e-6 * scale[found == 0]).all()


def test_a_kind_of_few_nodes_takes_what_all_take_times_a_factor() -> None:
    seen = [observed(seed) for seed in range(2)]
    rare = observed(9, nodes=3)
    rare = Observation("rare", ("Rare",) * 3, rare.amounts, rare.seconds * 5, 1.0)
    kinds, other = fit([*seen, rare])
    ratios = {
        round(own / theirs, 6) for own, theirs in zip(kinds["Rare"].per, other.per, strict=True) if theirs
    }
    assert len(ratios) == 1
    assert kinds["Rare"].nodes == 3


def test_bytes_of_which_there_are_few_explain_nothing() -> None:
    seen = observed(1)
    amounts = seen.amounts.copy()
    amounts[:, 4] = np.random.default_rng(0).integers(0, 100, len(amounts))  # weights of some bytes
    kinds, _ = fit([Observation("m", seen.kinds, amounts, seen.seconds, seen.whole_s)])
    assert {kind.per[4] for kind in kinds.values()} == {0.0}


def test_what_others_run_does_not_count() -> None:
    assert quickest([3.0, 100.0, 2.0, *[9.0] * 16, 1.0]) == 1.5
    assert quickest([7.0]) == 7.0


@pytest.fixture(scope="module")
def small() -> Predictor:
    names = ("tiny_residual", "tiny_squeeze_excite", "tiny_transformer")
    analyses = [analyse(model_path(name), {"batch": 1}) for name in names]
    return fit_predictor(analyses, "edge", options=SessionOptions(threads=1), runs=4)


def machines(profile: object, provider: str = "cpu") -> Topology:
    return Topology(
        tiers=[Tier("edge", profile=profile, provider=provider), Tier("cloud", gflops=1000.0)],
        links=[Link(bandwidth_mbps=100.0)],
    )


def test_a_predictor_stands_where_a_profile_does(small: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "edge.json"
    small.save(path)
    assert load_timings(path) == small
    model = model_path("tiny_squeeze_excite")
    by_file, by_object = (plan(model, machines(given)) for given in (str(path), small))
    assert by_file.latency_s == by_object.latency_s
    assert by_file.cost_models == ("predictor", "gflops")
    counted = features(analyse(model))
    alone = next(single for single in by_file.single_tier if single.tier == "edge")
    expected = small.node_seconds(counted.kinds, counted.amounts).sum() + small.overhead_s
    assert alone.latency_s == pytest.approx(expected)


def test_a_predicted_plan_is_not_called_proven(small: Predictor) -> None:
    assert small.median_error is not None
    made = plan(analyse(model_path("light_squeezenet")), machines(small))
    assert any("predicted from other models" in what for what in made.unknowns)
    assert any("MaxPool" in what for what in made.unknowns)
    said = " ".join(basis(made))
    assert "Seconds were predicted from other models on `edge` and computed from FLOPs elsewhere." in said
    assert "as far as is known" in str(made)


def test_a_fused_operator_is_a_kind_of_its_own() -> None:
    kinds = features(analyse(model_path("tiny_residual"))).kinds
    assert "Relu after Conv" in kinds
    kinds = features(analyse(model_path("light_shufflenet"))).kinds
    assert {"Conv depthwise", "Conv grouped"} <= set(kinds)


def test_files_that_are_no_predictors_are_refused(small: Predictor) -> None:
    data = small.to_dict()
    for change in (
        {"amounts": ["macs"]},
        {"overhead_s": -1},
        {"kinds": {"Conv": {"fixed_s": 1, "per": [1], "nodes": 1}}},
        {"schema_version": 2},
    ):
        with pytest.raises(ProfileError, match="predictor `f`"):
            parse_timings(json.dumps(data | change).encode(), "f")
    with pytest.raises(ProfileError, match="cannot read profile"):
        parse_timings(b"{", "f")
    assert not isinstance(parse_timings(json.dumps(data).encode(), "f"), Profile)


def test_what_does_not_fit_is_refused(small: Predictor) -> None:
    with pytest.raises(ProfileError, match="another provider: cpu, not cuda"):
        plan(model_path("tiny_residual"), machines(small, "cuda"))
    other = small.model_copy(update={"amounts": ("a", "b", "c", "d", "e")})
    with pytest.raises(ProfileError, match="other amounts"):
        plan(model_path("tiny_residual"), machines(other))
    with pytest.raises(InputError, match="3 models at least, and 1 given"):
        fit_predictor([model_path("tiny_residual")], "edge")
    with pytest.raises(InputError, match="cannot be timed on `cuda`"):
        fit_predictor([model_path("tiny_residual")] * 3, "edge", options=SessionOptions(provider="cuda"))
