"""A small encoder and the decoder after it, whose tokens are told by a formula."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from dnnsplit_onnx import plan, slice_model
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.machines.tiers_file import parse_topology
from tests.running.decoders import topology

_ENCODER = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[1, source] input_ids, int64[1, source] attention_mask) => (float[1, source, 2] last_hidden_state)
<int64[1] last = {-1}, float two = {2}> {
    read = Cast <to = 1> (input_ids)
    row = Unsqueeze (read, last)
    mask = Cast <to = 1> (attention_mask)
    seen = Unsqueeze (mask, last)
    one = Mul (row, seen)
    other = Mul (one, two)
    last_hidden_state = Concat <axis = 2> (one, other)
}"""
_SOUND = _ENCODER.replace("int64[1, source] input_ids", "float[1, source] input_features").replace(
    "Cast <to = 1> (input_ids)", "Identity (input_features)"
)
_UNMASKED = (
    _ENCODER.replace(", int64[1, source] attention_mask", "")
    .replace("mask = Cast <to = 1> (attention_mask)", "")
    .replace("seen = Unsqueeze (mask, last)", "")
    .replace("Mul (row, seen)", "Identity (row)")
)
_CROSSING = _ENCODER.replace(
    "(float[1, source, 2] last_hidden_state)",
    "(float[1, source, 2] encoder_hidden_states, float[1, source, 2] present_key_cross_0)",
).replace(
    "last_hidden_state = Concat <axis = 2> (one, other)",
    "present_key_cross_0 = Concat <axis = 2> (one, other) encoder_hidden_states = Neg (present_key_cross_0)",
)

_DECODER = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[1, s] decoder_input_ids, float[1, past, 1] past_key_values_0_key,
   float[1, past, 1] past_key_values_1_key, float[1, source, 2] encoder_hidden_states,
   int64[1, source] encoder_attention_mask)
  => (float[1, s, 9] logits, float[1, total, 1] present_key_values_0_key,
      float[1, total, 1] present_key_values_1_key)
<int64[1] last = {-1}, int64[1] one = {1}, int64[2] both = {1, 2}, float nine = {9},
 float[9] words = {0, 1, 2, 3, 4, 5, 6, 7, 8}> {
    read = Cast <to = 1> (decoder_input_ids)
    row = Unsqueeze (read, last)
    mask = Cast <to = 1> (encoder_attention_mask)
    seen = Unsqueeze (mask, last)
    attended = Mul (encoder_hidden_states, seen)
    heard = ReduceSum <keepdims = 1> (attended, both)
    present_key_values_0_key = Concat <axis = 1> (past_key_values_0_key, row)
    low = ReduceSum <keepdims = 1> (present_key_values_0_key, one)
    hidden = Add (low, heard)
    present_key_values_1_key = Concat <axis = 1> (past_key_values_1_key, row)
    high = ReduceSum <keepdims = 1> (present_key_values_1_key, one)
    sum = Add (hidden, high)
    word = Add (sum, row)
    said = Mod <fmod = 1> (word, nine)
    far = Sub (words, said)
    by = Abs (far)
    logits = Neg (by)
}"""
_ALONE = _DECODER.replace(",\n   int64[1, source] encoder_attention_mask", "").replace(
    "Cast <to = 1> (encoder_attention_mask)", "Constant <value_floats = [1.0]> ()"
)
_ATTENDING = _DECODER.replace("encoder_hidden_states", "past_key_cross_0")
_CACHELESS = (
    _DECODER.replace(
        "float[1, past, 1] past_key_values_0_key,\n   float[1, past, 1] past_key_values_1_key, ", ""
    )
    .replace("float[1, total, 1] present_key_values_0_key,", "")
    .replace(" float[1, total, 1] present_key_values_1_key", "")
    .replace("logits, \n     )", "logits)")
    .replace("Concat <axis = 1> (past_key_values_0_key, row)", "Identity (row)")
    .replace("Concat <axis = 1> (past_key_values_1_key, row)", "Identity (row)")
)

#: Encoder and decoder, by what is special about them.
PAIRS = {
    "masked": (_ENCODER, _DECODER),
    "mask of ones": (_UNMASKED, _DECODER),
    "no mask": (_UNMASKED, _ALONE),
    "keys of the encoder": (_CROSSING, _ATTENDING),
    "without caches": (_ENCODER, _CACHELESS),
    "sound": (_SOUND, _DECODER),
}


def said(prompt: Sequence[float], start: Sequence[int], count: int) -> tuple[int, ...]:
    """What the decoder says after a prompt."""
    text = list(start)
    for _ in range(count):
        text.append(int((2 * sum(text) + 3 * sum(prompt) + text[-1]) % 9))
    return tuple(text[len(start) :])


def write_pair(folder: Path, name: str = "masked") -> tuple[Path, Path]:
    """Writes `encoder.onnx` and `decoder.onnx`."""
    paths = folder / "encoder.onnx", folder / "decoder.onnx"
    for path, text in zip(paths, PAIRS[name], strict=True):
        onnx.save(onnx.parser.parse_model(text), path)
    return paths


def cut_after_encoder(model: Path, output: Path) -> Path:
    """Cuts the decoder in three tiers, the upper two with a cache each."""
    graph = load_graph(model)
    nodes = {name: at for at, node in enumerate(graph.nodes) for name in node.outputs}
    cuts = [nodes["heard"], nodes["hidden"]]
    sizes = {"s": 1, "past": 4, "source": 3}
    made = plan(graph, parse_topology(topology(), "test"), cuts=cuts, bindings=sizes)
    slice_model(graph, made, output)
    return output
