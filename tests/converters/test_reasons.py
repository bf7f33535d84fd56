"""What a refusal of torch's exporter says, by its cause."""

from __future__ import annotations

import pytest

from dnnsplit_onnx.converters.reasons import refusal


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Could not guard on data-dependent expression Eq(u0, 1)", "torch.where"),
        ("No ONNX function found for <OpOverload(op='aten._cdist_forward')>", "no form in ONNX"),
        ("Unsupported: aten._pack_padded_sequence", "packed sequences"),
        ("Could not run 'quantized::linear'", "quantise the ONNX file"),
        ("Exporting a ScriptModule is not supported", "what torch.jit made of it"),
        ("expand(FloatTensor{[4, 4]}, size=[4]): expected 3", "x.unsqueeze(0)"),
        ("something new", "--debug"),
    ],
)
def test_a_refusal_says_what_may_help(said, hint):
    assert hint in refusal(RuntimeError(said), has_open=False).hint


def test_sizes_can_be_fixed_where_some_are_open():
    assert "--batch 1" in refusal(RuntimeError("something new"), has_open=True).hint


def test_the_place_is_that_in_the_authors_code(tmp_path, monkeypatch):
    (tmp_path / "authors_net.py").write_text("def forward():\n    raise RuntimeError('inner')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import authors_net

    with pytest.raises(RuntimeError) as caught:
        authors_net.forward()
    refused = refusal(caught.value, has_open=False)
    assert "RuntimeError: inner" in refused.message
    assert refused.context == "in authors_net.py, line 2, forward()"
