"""Operators that have no formula on purpose, and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dnnsplit_onnx.work.flops.registry import MICROSOFT, NHWC, TRAINING

_TEXT = "its work depends on the characters of its strings"
_GENERATION = "it runs a whole model until the generated tokens say stop"
_DATA = "which pairs of tokens attend is data"
_LAYOUT = "it belongs to a data layout of one device and is undefined elsewhere"
_SPECIALISED = "it has no definition beyond one execution provider's kernel"

_REASONS = {
    "": {
        "ImageDecoder": "its work depends on the encoding of the image",
        "RegexFullMatch": _TEXT,
        "StringNormalizer": _TEXT,
        "StringSplit": _TEXT,
        "TfIdfVectorizer": "which n-grams are found is data",
    },
    NHWC: dict.fromkeys(
        [
            "BatchNormalization",
            "GlobalLpPool",
            "GridSample",
            "InstanceNormalization",
            "LRN",
            "QLinearAveragePool",
            "QLinearConv",
            "QLinearConvTranspose",
        ],
        _LAYOUT,
    ),
    TRAINING: {"Gradient": "it differentiates the model that it is part of"},
    MICROSOFT: {
        **dict.fromkeys(["BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"], _GENERATION),
        **dict.fromkeys(["Tokenizer", "MurmurHash3", "WordConvEmbedding"], _TEXT),
        **dict.fromkeys(
            [
                "LongformerAttention",
                "SparseAttention",
                "DynamicSparseAttention",
                "SparsePagedAttention",
                "SparseAttentionIndexer",
                "PackedSparseAttentionIndexer",
                "PackedSparseAttentionIndexerMerge",
            ],
            _DATA,
        ),
        "SpeculativePrefixCommit": "how many of the tokens drafted are accepted is data",
        "PagedAttention": "how many tokens each sequence has in the cache is data",
        "DecoderAttention": "inputs decide at run time whether it is self- or cross-attention, and caches",
        "SparseToDenseMatMul": "how many elements of the sparse operand are not zero is data",
        "DynamicTimeWarping": "the path that it follows is data",
        "BifurcationDetector": "how far the two token sequences agree is data",
        "NGramRepeatBlock": "how many n-grams repeat is data",
        "EPContext": "it stands for a graph that an execution provider has compiled",
        "Snpe": "it stands for a graph that an execution provider has compiled",
        "SampleOp": "it is a placeholder of onnxruntime's own tests",
        **dict.fromkeys(
            [
                "DequantizeBFP",
                "DequantizeWithOrder",
                "QOrderedAttention",
                "QOrderedGelu",
                "QOrderedLayerNormalization",
                "QOrderedLongformerAttention",
                "QOrderedMatMul",
                "QuantizeBFP",
                "QuantizeWithOrder",
            ],
            _LAYOUT,
        ),
        **dict.fromkeys(
            [
                "AttnLSTM",
                "BranchwiseRMSNorm",
                "ConvStateReplay",
                "EngramGate",
                "GatedDeltaNet",
                "GatedDeltaNetStateReplay",
                "GatherPacked",
                "HyperConnectionLowRankMix",
                "HyperConnectionPostMix",
                "HyperConnectionPreMix",
                "LinearAttentionGate",
                "Mamba2Verify",
                "MoEGroupRouter",
                "MoEPacked",
                "NGramHashMapping",
                "RMSNormRotary",
                "VarlenCausalConvWithState",
                "VarlenNGramHashMapping",
            ],
            _SPECIALISED,
        ),
    },
}


def uncounted_reasons() -> Mapping[tuple[str, str], str]:
    """Why an operator has no formula, by (domain, operator); for operators known and left out."""
    return MappingProxyType(
        {(domain, name): why for domain, names in _REASONS.items() for name, why in names.items()}
    )
