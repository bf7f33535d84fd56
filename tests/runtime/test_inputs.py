from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime.inputs import (
    check_inputs,
    disagreements,
    generate,
    input_sets,
    load_arrays,
    load_inputs,
)


def port(
    name: str = "x", dtype: str | None = "float", *shape: int | str | None, kind: str = "tensor"
) -> Port:
    return Port(name=name, dtype=dtype, shape=shape, kind=kind)


class TestGenerate:
    def test_same_seed_same_values(self) -> None:
        ports = [port("x", "float", 2, 3), port("i", "int64", 4)]
        one, two, other = (generate(ports, seed=seed).values for seed in (1, 1, 2))
        assert all(np.array_equal(one[name], two[name]) for name in one)
        assert not np.array_equal(one["x"], other["x"])

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            ("float", np.float32),
            ("double", np.float64),
            ("float16", np.float16),
            ("bfloat16", ml_dtypes.bfloat16),
            ("float8e4m3fn", ml_dtypes.float8_e4m3fn),
            ("int4", ml_dtypes.int4),
            ("uint2", ml_dtypes.uint2),
            ("int8", np.int8),
            ("uint8", np.uint8),
            ("uint16", np.uint16),
            ("int32", np.int32),
            ("int64", np.int64),
            ("uint64", np.uint64),
            ("bool", np.bool_),
            ("complex64", np.complex64),
            ("string", object),
        ],
    )
    def test_every_type_varies(self, dtype: str, expected: type) -> None:
        value = generate([port("x", dtype, 5, 7)]).values["x"]
        assert value.dtype == expected
        assert value.shape == (5, 7)
        assert len({str(element) for element in value.reshape(-1)}) > 1

    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
    def test_whole_numbers_are_safe_as_indices(self, dtype: str) -> None:
        values = generate([port("i", dtype, 1000)]).values["i"]
        assert set(values.tolist()) == {0, 1}

    def test_a_single_whole_number_is_a_count_of_one(self) -> None:
        assert generate([port("k", "int64", 1)]).values["k"].tolist() == [1]
        assert generate([port("k", "int64")]).values["k"] == 1

    @pytest.mark.parametrize("dtype", ["int64", "int32", "bool", "float", "float16"])
    def test_masks_of_text_are_ones(self, dtype: str) -> None:
        for name in ("attention_mask", "encoder_attention_mask", "input_mask"):
            assert (generate([port(name, dtype, 2, 9)]).values[name] == 1).all()
        assert not (generate([port("padding_mask", dtype, 2, 90)]).values["padding_mask"] == 1).all()

    def test_scalars(self) -> None:
        for dtype in ("float", "bool", "string", "int4"):
            value = generate([port("s", dtype)]).values["s"]
            assert isinstance(value, np.ndarray)
            assert value.shape == ()

    def test_symbolic_dimensions_are_bound_or_assumed(self) -> None:
        ports = [port("x", "float", "batch", 3, None), port("y", "float", "batch", "time")]
        made = generate(ports, {"batch": 4})
        assert made.values["x"].shape == (4, 3, 1)
        assert made.values["y"].shape == (4, 1)
        assert made.assumed == {"x.2": 1, "time": 1}
        assert generate(ports, {"batch": 2, "x.2": 5, "time": 6}).assumed == {}

    def test_optionals_are_left_absent(self) -> None:
        assert generate([port("o", "float", kind="optional")]).values == {"o": None}

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (Port(name="s", dtype="float", kind="sequence"), "it is a sequence"),
            (Port(name="s", kind="tensor", shape=(1,)), "its type is unknown"),
            (Port(name="s", dtype="float"), "its rank is unknown"),
            (port("s", "float", 1 << 20, 1 << 20), "too large"),
            (port("s", "quaternion", 1), "unknown type"),
        ],
    )
    def test_what_cannot_be_made_up(self, bad: Port, why: str) -> None:
        with pytest.raises(InputError, match=why):
            generate([bad])


class TestSets:
    def test_made_up_sets_differ(self) -> None:
        first, second = input_sets([port("x", "float", 3)], None, {}, seed=5, runs=2)
        assert not np.array_equal(first.values["x"], second.values["x"])
        assert first.source == "generated"

    def test_a_model_without_inputs_has_one_set(self) -> None:
        assert [inputs.values for inputs in input_sets([], None, {}, seed=0, runs=3)] == [{}]

    def test_given_arrays_are_one_set(self) -> None:
        (only,) = input_sets([port("x", "float", 2)], {"x": np.zeros(2, np.float32)}, {}, seed=0, runs=3)
        assert only.source == "given"


class TestLoad:
    def save(self, folder: Path, **arrays: np.ndarray) -> Path:
        np.savez(folder / "x.npz", **arrays)
        return folder / "x.npz"

    def test_round_trip(self, tmp_path: Path) -> None:
        made = {
            "gpu_0/data": np.arange(6, dtype=np.float32).reshape(2, 3),
            "text": np.array(["a", "bc"]),
            "half": np.array([1, 2], ml_dtypes.bfloat16),
        }
        ports = [
            port("gpu_0/data", "float", "n", 3),
            port("text", "string", "n"),
            port("half", "bfloat16", 2),
        ]
        loaded = load_inputs(self.save(tmp_path, **made), ports)
        assert loaded.source.endswith("x.npz")
        assert loaded.values["gpu_0/data"].tolist() == made["gpu_0/data"].tolist()
        assert loaded.values["text"].dtype == object
        assert loaded.values["half"].dtype == ml_dtypes.bfloat16
        assert loaded.values["half"].tolist() == [1, 2]

    def test_sequences_lie_in_pieces_and_optionals_may_be_left_out(self, tmp_path: Path) -> None:
        ports = [port("s", "float", kind="sequence"), port("o", "float", kind="optional")]
        path = self.save(tmp_path, **{"s/0": np.float32([1]), "s/1": np.float32([2, 3])})
        loaded = load_inputs(path, ports).values
        assert [item.tolist() for item in loaded["s"]] == [[1], [2, 3]]
        assert loaded["o"] is None

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"hello", b"GIF89a", b"\x93NUMPY broken"])
    def test_not_an_archive(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(InputError) as caught:
            load_inputs(tmp_path / "x.npz", [port()])
        assert "numpy.savez" in (caught.value.hint or "")
        assert "pickle" not in str(caught.value)

    def test_a_single_array_is_not_an_archive(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros(3))
        with pytest.raises(InputError, match=r"not an \.npz"):
            load_inputs(tmp_path / "x.npy", [port()])

    def test_pickles_are_never_read(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", x=np.array([object()], object))
        with pytest.raises(InputError, match="cannot read"):
            load_inputs(tmp_path / "x.npz", [port()])

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            load_inputs(tmp_path / "gone.npz", [port()])


class TestCheck:
    ports = (port("x", "float", "n", 3), port("y", "int64", "n"))
    good = {"x": np.zeros((2, 3), np.float32), "y": np.zeros(2, np.int64)}  # noqa: RUF012

    def test_good(self) -> None:
        assert list(check_inputs(self.good, self.ports)) == ["x", "y"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"x": None}, "input `x` is missing"),
            ({"z": np.zeros(1)}, "unknown input `z`"),
            ({"x": np.zeros((2, 3))}, "of type float64, the model reads float32"),
            ({"x": np.zeros((2, 4), np.float32)}, r"has the shape \(2, 4\), the model reads \(n, 3\)"),
            ({"x": np.zeros(3, np.float32)}, "has the shape"),
        ],
    )
    def test_bad(self, change: dict[str, np.ndarray | None], message: str) -> None:
        arrays = {name: data for name, data in (self.good | change).items() if data is not None}
        with pytest.raises(InputError, match=message) as caught:
            check_inputs(arrays, self.ports, where="in X.npz")
        assert caught.value.context

    def test_text_and_numbers_are_told_apart(self) -> None:
        with pytest.raises(InputError, match="the model reads str"):
            check_inputs({"x": np.zeros(1)}, [port("x", "string", 1)])

    def test_disagreeing_dimensions_are_named_and_left_to_the_runtime(self) -> None:
        checked = check_inputs(self.good | {"y": np.zeros(5, np.int64)}, self.ports)
        assert disagreements(self.ports, checked) == ("`n` is 2 in input `x` and 5 in `y`",)
        assert disagreements(self.ports, check_inputs(self.good, self.ports)) == ()

    @pytest.mark.parametrize("name", ["?", "-1", "None", "unknown"])
    def test_what_names_nothing_disagrees_with_nothing(self, name: str) -> None:
        ports = [port("x", "float", name), port("y", "float", name)]
        checked = check_inputs({"x": np.zeros(2, np.float32), "y": np.zeros(3, np.float32)}, ports)
        assert disagreements(ports, checked) == ()


class _Caller:
    def __reduce__(self):
        return (print, ("called",))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 1)])
def test_object_arrays_of_strings_are_read(tmp_path, shape):
    texts = np.array(["a", "b", "a"], object).reshape(shape)
    np.savez(tmp_path / "x.npz", text=texts)
    assert (load_arrays(tmp_path / "x.npz")["text"] == texts).all()


@pytest.mark.parametrize("item", [1, b"a", None, _Caller()])
def test_other_objects_are_refused_and_nothing_is_called(tmp_path, item, capsys):
    np.savez(tmp_path / "x.npz", text=np.array(["a", item], object))
    with pytest.raises(InputError):
        load_arrays(tmp_path / "x.npz")
    assert capsys.readouterr().out == ""
