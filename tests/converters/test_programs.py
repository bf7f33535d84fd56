"""Exported programs: what their sizes may be, and that their files run no code."""

from __future__ import annotations

import json
import zipfile

import pytest

from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.errors import InputError
from tests.converters.support import needs

pytestmark = [needs("pytorch", "cpu"), pytest.mark.filterwarnings("ignore")]


def export(path, inputs=None, shapes=None):
    """An exported program of two inputs, in a file."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.dense = torch.nn.Linear(4, 3)

        def forward(self, a, b):
            return self.dense(a), self.dense(b).sum(0)

    arguments = inputs or (torch.randn(5, 4), torch.randn(6, 4))
    program = torch.export.export(Net().eval(), arguments, dynamic_shapes=shapes)
    torch.export.save(program, path)


def rewrite(path, change):
    """Puts other bytes into the entries of an archive, by their names."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))


def test_two_independent_sizes_with_a_smallest(tmp_path):
    import torch

    dims = torch.export.Dim("a", min=4), torch.export.Dim("b", min=5, max=7)
    export(tmp_path / "m.pt2", shapes={"a": {0: dims[0]}, "b": {0: dims[1]}})
    report = convert(tmp_path / "m.pt2", tmp_path / "m.onnx")
    first, second = (port.shape[0] for port in report.inputs)
    assert isinstance(first, str)
    assert isinstance(second, str)
    assert first != second
    assert len(report.checked_at) == 3


@pytest.fixture
def hiding(tmp_path):
    """A program whose sample inputs, or whose sizes, write a file when they are read."""
    import torch

    mark = tmp_path / "mark"

    class Hiding:
        def __reduce__(self):
            return type(mark).touch, (mark,)

    def in_samples(name, data):
        if "sample_inputs" not in name:
            return data
        import io

        buffer = io.BytesIO()
        torch.save(((Hiding(),), {}), buffer)
        return buffer.getvalue()

    def in_sizes(name, data):
        if not name.endswith(".json") or b"expr_str" not in data:
            return data
        model = json.loads(data)

        def walk(part):
            if isinstance(part, dict):
                if "expr_str" in part:
                    part["expr_str"] = f"__import__('pathlib').Path('{mark}').touch()"
                for value in part.values():
                    walk(value)
            elif isinstance(part, list):
                for value in part:
                    walk(value)

        walk(model)
        return json.dumps(model).encode()

    export(tmp_path / "m.pt2", shapes={"a": {0: torch.export.Dim("a")}, "b": None})
    return {"samples": in_samples, "sizes": in_sizes}, mark


@pytest.mark.parametrize("place", ["samples", "sizes"])
def test_code_in_a_program_does_not_run_unless_it_is_trusted(tmp_path, hiding, place):
    changes, mark = hiding
    rewrite(tmp_path / "m.pt2", changes[place])
    with pytest.raises(InputError, match="may run code") as caught:
        convert(tmp_path / "m.pt2", tmp_path / "m.onnx")
    assert "--trust" in caught.value.hint
    assert not mark.exists()
    with pytest.raises(InputError):  # no model any more, but it has run
        convert(tmp_path / "m.pt2", tmp_path / "m.onnx", trust=True)
    assert mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Add(Mul(Integer(2), Symbol('s0')), Integer(-1))",
        "s0 + 1",
    ],
)
def test_formulas_of_sizes_are_read(text):
    from dnnsplit_onnx.converters.programs import _refuse_code

    _refuse_code(text, {})


@pytest.mark.parametrize(
    "text",
    [
        "exec(chr(105))",
        "Symbol('s0').__class__",
        "[x for x in (1,)]",
        "Mul('__import__(1)')",
        "lambda: 0",
        "(lambda: 0)()",
        "(" * 2000,
    ],
)
def test_anything_else_is_no_formula(text):
    from dnnsplit_onnx.converters.programs import _refuse_code, _RefusedError

    with pytest.raises(_RefusedError):
        _refuse_code(text, {})
