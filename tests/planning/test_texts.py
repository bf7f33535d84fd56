"""Plans of whole texts: a prompt and its steps, priced as one request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dnnsplit_onnx import Link, Tier, Topology, analyse, load_graph, plan
from dnnsplit_onnx.errors import InfeasibleError, InputError, TopologyError
from dnnsplit_onnx.graph.lengths import lengths_of
from dnnsplit_onnx.models.decoder import decoder
from dnnsplit_onnx.planning.choosing import plan_of, problem_of
from dnnsplit_onnx.planning.costs import cost_table
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.planners import exact, exhaustive
from dnnsplit_onnx.reporting.verdict import verdict
from dnnsplit_onnx.work.analysing import at_sizes
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN
from dnnsplit_onnx.work.texts import Text, text_of

_SIZES = {"batch": 1, "sequence": 1, "past_sequence": 8}


@pytest.fixture(scope="module")
def tiny() -> Analysis:
    return analyse(decoder(), _SIZES)


def _machines(*, edge: float = 10, cloud: float = 1e4, mbps: float = 50, **workload: object) -> Topology:
    lengths: dict[str, object] = {"prompt_tokens": 20, "new_tokens": 9}
    return Topology(
        tiers=[Tier("edge", gflops=edge), Tier("cloud", gflops=cloud)],
        links=[Link(bandwidth_mbps=mbps, delay_ms=2)],
    ).with_workload(**lengths | workload)


def _text(analysis: Analysis, machines: Topology) -> Text:
    found = problem_of(analysis, machines).analysis
    assert isinstance(found, Text)
    return found


def test_a_text_is_its_prompt_and_its_steps(tiny: Analysis) -> None:
    machines = _machines()
    problem = problem_of(tiny, machines)
    for cut in np.flatnonzero(problem.is_known)[::7].tolist():
        figures = problem.figures((cut,))
        assert figures.ttft_s is not None
        assert figures.tpot_s is not None
        assert figures.latency_s == pytest.approx(figures.ttft_s + 8 * figures.tpot_s)
        assert figures.links[0].seconds == pytest.approx(
            (figures.links[0].prefill_s or 0) + 8 * (figures.links[0].step_s or 0)
        )
        for stage in figures.stages:
            assert stage.seconds == pytest.approx((stage.prefill_s or 0) + 8 * (stage.step_s or 0))


def test_a_plan_says_what_a_prompt_sends_and_what_each_token_after_it(tiny: Analysis) -> None:
    whole = len(tiny.graph.nodes)
    machines = _machines()
    where = next(at for at in np.flatnonzero(problem_of(tiny, machines).is_known).tolist() if 0 < at < whole)
    for cut, is_told in ((where, True), (whole, False)):
        made = plan(tiny, machines, cuts=(cut,), pareto=False)
        (link,) = made.figures.links
        said = (
            f"over `edge` to `cloud` a prompt of 20 tokens sends {link.prefill_nbytes:,} bytes, "
            f"and each token after the first {link.step_nbytes:,}"
        )
        assert [note for note in made.notes if note.startswith("over `")] == [said] * is_told
    made = plan(tiny, _machines(prefill_chunk=5), cuts=(where,), pareto=False)
    assert made.figures.ttft_overlapped_s is not None
    assert (
        "chunks of the prompt that follow one another over the tiers bring the first token after "
        f"{made.figures.ttft_overlapped_s * 1e3:.4g} ms"
    ) in made.notes


@pytest.mark.parametrize("new_tokens", [1, 2, 9, 10])
def test_the_mean_step_stands_for_all_of_them(tiny: Analysis, new_tokens: int) -> None:
    # One by one: the prompt, then each token at the past that it really has.
    machines = _machines(new_tokens=new_tokens)
    text = _text(tiny, machines)
    passes = [at_sizes(tiny, {"batch": 1, "sequence": 20, "past_sequence": 0})]
    passes += [
        at_sizes(tiny, {"batch": 1, "sequence": 1, "past_sequence": 20 + at}) for at in range(new_tokens - 1)
    ]
    assert text.passes == len(passes)
    flops = sum(one.flops for one in passes)
    known = text.cut_nbytes() != UNKNOWN
    nbytes = sum(one.cut_nbytes()[known] for one in passes)
    assert isinstance(flops, np.ndarray)
    assert isinstance(nbytes, np.ndarray)
    if new_tokens % 2 == 0:  # a whole number of tokens is the mean
        assert np.array_equal(text.flops, flops)
        assert np.array_equal(text.cut_nbytes()[known], nbytes)
        assert np.array_equal(text.outputs_above, sum(one.outputs_above for one in passes))
    else:
        # Half a token of 23 is left out.
        assert np.allclose(text.cut_nbytes()[known], nbytes, rtol=0.5 / 23)
        assert np.allclose(text.flops, flops, rtol=0.5 / 23)


@given(
    speeds=st.tuples(st.floats(0.05, 20), st.floats(0.05, 200), st.floats(1, 1e4)),
    rates=st.tuples(st.floats(0.01, 1e3), st.floats(0.01, 1e3)),
    delays=st.tuples(st.floats(0, 5), st.floats(0, 5)),
    objective=st.sampled_from(["ttft", "tpot", "latency", "cost", "throughput"]),
    new=st.integers(1, 40),
    back=st.booleans(),
    seed=st.integers(0, 1 << 16),
)
@settings(max_examples=20, deadline=None)
def test_exact_matches_exhaustive(
    tiny: Analysis,
    speeds: tuple[float, ...],
    rates: tuple[float, ...],
    delays: tuple[float, ...],
    objective: Objective,
    new: int,
    back: bool,
    seed: int,
) -> None:
    # Three tiers over some positions of the order, since all pairs of them take seconds.
    tiers = [
        Tier(f"t{at}", gflops=speed, usd_per_hour=at + 1, usd_per_request=1e-9 * at)
        for at, speed in enumerate(speeds)
    ]
    links = [
        Link(bandwidth_mbps=rate, delay_ms=delay, usd_per_gb=0.1)
        for rate, delay in zip(rates, delays, strict=True)
    ]
    machines = Topology(tiers=tiers, links=links).with_workload(prompt_tokens=16, new_tokens=new)
    problem = problem_of(tiny, machines.with_limits(return_output=back), objective)
    allowed = np.random.default_rng(seed).random((2, problem.costs.size + 1)) < 0.15
    allowed[:, [0, -1]] = True
    problem = replace(problem, allowed=allowed)
    found, best = exact.plan(problem), exhaustive.plan(problem)
    mine, theirs = (problem.figures(one.cuts).value(objective) for one in (found, best))
    assert mine == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("objective", ["ttft", "tpot", "latency"])
@pytest.mark.parametrize("mbps", [0.05, 1, 40])
def test_the_bound_over_the_dag_holds_and_is_met(tiny: Analysis, objective: Objective, mbps: float) -> None:
    problem = problem_of(tiny, _machines(edge=0.1, mbps=mbps, prefill_chunk=8), objective)
    made = plan_of(problem, pareto=False)
    best = problem.figures(exhaustive.plan(problem).cuts).value(objective)
    assert made.lower_bound is not None
    assert made.optimality == "dag"
    assert made.figures.value(objective) == pytest.approx(made.lower_bound)
    assert made.figures.value(objective) <= best * (1 + 1e-12)


def test_limits_on_tokens_are_kept_exactly(tiny: Analysis) -> None:
    machines = _machines(edge=0.02, mbps=200)
    dear = machines.with_tier("cloud", usd_per_hour=10)
    cheap, fast = plan(tiny, dear, objective="cost"), plan(tiny, dear, objective="ttft")
    assert cheap.figures.ttft_s is not None
    assert fast.figures.ttft_s is not None
    assert fast.figures.ttft_s < cheap.figures.ttft_s
    at_limit = plan(tiny, dear.with_limits(ttft_ms=fast.figures.ttft_s * 1e3), objective="cost")
    assert at_limit.figures.ttft_s == fast.figures.ttft_s
    with pytest.raises(InfeasibleError, match="ttft_ms"):
        plan(tiny, dear.with_limits(ttft_ms=fast.figures.ttft_s * 1e3 * (1 - 1e-9)), objective="cost")


def test_an_order_of_its_own_has_the_same_prices(tiny: Analysis) -> None:
    machines = _machines(prefill_chunk=7)
    problem = problem_of(tiny, machines)
    assert problem.analysis is not None
    rng = np.random.default_rng(3)
    order = _random_order(problem.analysis, rng)
    there = problem.in_order(order)
    assert isinstance(there.analysis, Text)
    again = cost_table(there.analysis, there.topology)
    for mine, fresh in ((there.costs, again), (there.costs.prefill, again.prefill)):
        assert mine is not None
        assert fresh is not None
        assert np.allclose(mine.seconds_below, fresh.seconds_below)
        assert np.array_equal(mine.up_nbytes, fresh.up_nbytes)
        assert np.array_equal(mine.pass_nbytes[0], fresh.pass_nbytes[0])


def _random_order(analysis: Analysis, rng: np.random.Generator) -> list[int]:
    graph = analysis.graph
    waits = {
        at: {graph.producer[name] for name in node.inputs if name in graph.producer}
        for at, node in enumerate(graph.nodes)
    }
    order: list[int] = []
    while waits:
        ready = sorted(at for at, needs in waits.items() if needs <= set(order))
        at = ready[int(rng.integers(len(ready)))]
        order.append(at)
        del waits[at]
    return order


def test_caches_of_all_conversations_are_memory(tiny: Analysis) -> None:
    one, ten = (plan(tiny, _machines(conversations=count), cuts=["layer1_add2"]) for count in (1, 10))
    # Two of three layers, key and value, 4 heads of 16 floats, 28 tokens before the last.
    kept = 2 * 2 * 4 * 16 * 4 * 28
    assert one.stages[0].cache_nbytes == kept
    assert ten.stages[0].cache_nbytes == 10 * kept
    assert one.stages[0].memory_nbytes is not None
    assert ten.stages[0].memory_nbytes is not None
    assert ten.stages[0].memory_nbytes - one.stages[0].memory_nbytes == 9 * kept


def test_a_stage_keeps_the_caches_that_its_own_nodes_read(tiny: Analysis) -> None:
    text, readers = _text(tiny, _machines()), tiny.graph.state_readers
    for first in map(min, readers.values()):
        here = [name for name, at in readers.items() if first in at]
        before = [name for name, at in readers.items() if min(at) < first]
        assert text.cache_nbytes(first, first + 1) == sum(text.caches[name] or 0 for name in here)
        assert text.cache_nbytes(0, first) == sum(text.caches[name] or 0 for name in before)


def test_memory_that_caches_do_not_fit_is_refused_with_the_figure(tiny: Analysis) -> None:
    machines = (
        _machines(conversations=1000).with_tier("edge", memory_gb=0.01).with_tier("cloud", memory_gb=0.02)
    )
    with pytest.raises(InfeasibleError, match="no plan fits the memory of the tiers") as raised:
        plan(tiny, machines)
    assert "memory_gb =" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("head", "returned"),
    [("full", 20 * 64 * 4), ("last", 64 * 4), ("argmax", 8), ("topk:5", 5 * (4 + 8))],
)
def test_what_returns_of_the_logits(tiny: Analysis, head: str, returned: int) -> None:
    text = _text(tiny, _machines(head=head))
    assert text.prefill.returned_nbytes("logits") == returned
    assert text.prefill.outputs_above[0] == returned


def test_outputs_of_models_with_states_return(tiny: Analysis) -> None:
    machines = _machines()
    assert plan(tiny, machines, cuts=[0]).links[0].down_nbytes > 0
    assert plan(tiny, machines.with_limits(return_output=False), cuts=[0]).links[0].down_nbytes == 0


def test_a_prompt_in_chunks_is_as_much_work_and_overlaps(tiny: Analysis) -> None:
    whole, chunked = (_text(tiny, _machines(prefill_chunk=chunk)) for chunk in (None, 5))
    # Attention reads what came before: the same pairs of tokens, but for those masked in one pass.
    assert chunked.prefill.flops.sum() <= whole.prefill.flops.sum()
    assert chunked.passes == 4 + 8
    made = plan(tiny, _machines(prefill_chunk=5), cuts=["layer1_add2"])
    seconds = [stage.prefill_s or 0 for stage in made.stages] + [made.links[0].prefill_s or 0]
    assert made.figures.ttft_overlapped_s == pytest.approx(sum(seconds) / 4 + 3 * max(seconds) / 4)
    assert made.figures.ttft_s == pytest.approx(sum(seconds))
    for chunk, is_told in ((20, False), (10, True)):
        figures = plan(tiny, _machines(prefill_chunk=chunk), cuts=[0], pareto=False).figures
        assert (figures.ttft_overlapped_s is not None) == is_told


def test_a_check_of_drafts_is_one_pass_over_them_and_a_token(tiny: Analysis) -> None:
    assert _text(tiny, _machines()).check is None
    text = _text(tiny, _machines(draft_ms=1, draft_tokens=3, draft_accepts=0.5))
    check = at_sizes(tiny, {"batch": 1, "sequence": 4, "past_sequence": 20 + 7 // 2})
    assert text.check is not None
    assert text.check.flops.tolist() == check.flops.tolist()


def test_a_model_of_one_token_a_pass_reads_a_prompt_one_by_one() -> None:
    model = decoder()
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "sequence":
                dim.dim_value = 1
    text = _text(analyse(model, {"batch": 1, "past_sequence": 8}), _machines())
    assert (text.prefill.passes, text.passes) == (20, 28)
    alone = [at_sizes(text.step, {"batch": 1, "past_sequence": at}).flops.sum() for at in range(20)]
    assert text.prefill.flops.sum() == pytest.approx(sum(alone), rel=0.01)


def test_a_model_without_states_reads_its_whole_text_again() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    table = helper.make_tensor("table", TensorProto.FLOAT, [10, 4], np.ones(40, np.float32))
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", 4])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    text = _text(analyse(model, {"batch": 1}), _machines())
    assert text.prefill.link_nbytes("x") == 20 * 4 * 4
    assert text.step.link_nbytes("x") == (20 + 1 + 3) * 4 * 4


def test_dimensions_without_names_are_found_or_asked_for(tiny: Analysis) -> None:
    def nameless(model: onnx.ModelProto) -> onnx.ModelProto:
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = "?"
        return model

    sizes = {"input_ids.0": 1, "input_ids.1": 1}
    for layer in range(3):
        for part in ("key", "value"):
            sizes |= {f"past_key_values.{layer}.{part}.0": 1, f"past_key_values.{layer}.{part}.2": 8}
    text = _text(analyse(nameless(decoder()), sizes), _machines())
    named = _text(tiny, _machines())
    assert np.array_equal(text.flops, named.flops)
    assert text.caches == named.caches
    with pytest.raises(InputError, match="no open dimension `sequences`"):
        problem_of(tiny, _machines(tokens_dim="sequences"))


def test_a_width_that_speaks_of_a_cache_is_no_length() -> None:
    model = decoder()  # as onnxruntime-genai names the size of a head
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4:
            dims[3].dim_param = "kv_cache_dim"
    found = lengths_of(load_graph(model))
    assert (found.tokens, found.past) == (("sequence",), ("past_sequence",))


def test_what_makes_no_text(tiny: Analysis) -> None:
    plain = _machines().with_workload(prompt_tokens=None, new_tokens=1)
    with pytest.raises(InputError, match="`ttft` is a figure of texts") as raised:
        plan(tiny, plain, objective="ttft")
    assert "--prompt-tokens" in (raised.value.hint or "")
    with pytest.raises(TopologyError, match="`new_tokens` is of texts"):
        _machines().with_workload(prompt_tokens=None)
    with pytest.raises(InputError, match="`costs` is an array"):
        plan(tiny, _machines(), costs=np.ones((2, len(tiny.graph.nodes))))


def test_a_text_is_measured_once_for_all_links(tiny: Analysis) -> None:
    workload = _machines().workload
    assert text_of(tiny, workload).parts is text_of(tiny, workload.changed(clients=3)).parts


def test_a_link_slower_than_a_second_machine_is_worth_does_not_pay(tiny: Analysis) -> None:
    # A step has little work, and the delay of a link is paid for each token.
    slow = _machines(edge=0.5, cloud=1.0, mbps=1000)
    made = plan(tiny, slow, objective="tpot")
    assert not made.is_split
    pinned = plan(tiny, slow, objective="tpot", cuts=["layer1_add2"])
    gain = pinned.speedup_vs_best_single_tier
    assert gain is not None
    assert gain < 1
    assert verdict(pinned)[0].startswith("Splitting does not pay")


def test_replaced_parts_are_priced_by_rate(tiny: Analysis) -> None:
    machines = _machines()
    calm = problem_of(tiny, machines).figures((0,))
    busy = problem_of(tiny, machines.with_workload(requests_per_s=1.0)).figures((0,))
    assert busy.latency_s > calm.latency_s
    assert (busy.ttft_s, busy.tpot_s) == (calm.ttft_s, calm.tpot_s)


def test_capped_links_are_held_to_the_largest_pass(tiny: Analysis) -> None:
    problem = problem_of(tiny, _machines())
    costs = problem.costs
    assert costs.prefill is not None
    assert costs.step is not None
    assert np.array_equal(costs.pass_nbytes[0], np.maximum(costs.prefill.up_nbytes, costs.step.up_nbytes))
    topology = problem.topology.with_link(0, max_mb=0.01).with_limits(return_output=False)
    capped = replace(problem, topology=topology)
    assert np.array_equal(capped.is_small_enough[0][:-1], costs.pass_nbytes[0][:-1] <= 10_000)
    assert not capped.is_small_enough[0].all()
    assert capped.is_small_enough[0][:-1].any()
