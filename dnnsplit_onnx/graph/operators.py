"""What is known of operators: which of them draw random numbers, and which are defined at all."""

from __future__ import annotations

import onnx

from dnnsplit_onnx.graph.bodies import subgraphs

ONNX_DOMAINS = frozenset({"", "ai.onnx"})
# Domains whose operators are known to be deterministic unless listed in `_RANDOM`.
_KNOWN_DOMAINS = ONNX_DOMAINS | {"ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
    | {"Sampling", "BitmaskDropout", "BiasDropout", "TrainableDropout"}
)
_NO_KEY = ("", "", "")  # of no function


class OperatorFacts:
    """What is known of operators: whether they are random, whether they are known at all.

    Local functions are looked into, each once.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self._random: dict[tuple[str, str, str], bool] = {}
        self._known: dict[tuple[str, str, str], bool] = {}

    def is_random(self, node: onnx.NodeProto) -> bool:
        """Whether two runs of this node on the same inputs may differ."""
        key = (node.domain, node.op_type, node.overload) if self._functions else _NO_KEY
        function = self._functions.get(key)
        if function is not None:
            if key not in self._random:
                self._random[key] = False  # ends the walk on a function that calls itself
                self._random[key] = any(self.is_random(inner) for inner in function.node)
            return self._random[key]
        if node.op_type in _RANDOM:
            return True
        # Dropout draws numbers only when training_mode, its third input, may be true.
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            return True
        if not node.attribute:
            return False
        return any(self.is_random(inner) for body in subgraphs(node) for inner in body.node)

    def is_known(self, node: onnx.NodeProto) -> bool:
        """Whether the operator's behaviour is defined, so that weights in mean weights out."""
        key = (node.domain, node.op_type, node.overload)
        function = self._functions.get(key)
        if function is not None:
            if key not in self._known:
                self._known[key] = False
                self._known[key] = all(self.is_known(inner) for inner in function.node)
            return self._known[key]
        if node.domain not in _KNOWN_DOMAINS:
            return False
        return all(self.is_known(inner) for body in subgraphs(node) for inner in body.node)
