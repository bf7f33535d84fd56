"""States that some runs leave as they were, and say so by a constant without elements.

A decoder that was merged from two, one with caches and one without, returns its encoder's
caches from either branch of an If. In the branch with caches they are what they were, and it
returns an empty constant in their place; whoever took that for the new value would have nothing
left to attend to. So a state keeps its earlier value where all of this holds:

1. a branch of an If, or the model itself, returns a constant for it, which is nothing that a run
   could have computed;
2. no branch makes the new value of the old one, as that of a buffer would that is emptied now
   and then;
3. in the run at hand the new value has no elements, and the earlier one has some.

The first two are read from the model, here; the third is seen when it runs (`running.initial`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from dnnsplit_onnx.graph.bodies import reads_of, subgraphs
from dnnsplit_onnx.graph.states import State

# What passes its first input on, in another type or form.
_FORMS = frozenset({"Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(eq=False)
class _Scope:
    """A body, or the model's graph, inside another."""

    graph: onnx.GraphProto
    outer: _Scope | None = None
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.makers = {name: node for node in self.graph.node for name in node.output if name}
        self.weights = {tensor.name for tensor in self.graph.initializer}
        self.weights |= {sparse.values.name for sparse in self.graph.sparse_initializer}

    def of(self, name: str) -> _Scope:
        """The scope that has a value, the outermost if none has."""
        own = name in self.makers or name in self.weights
        return self if own or self.outer is None else self.outer.of(name)

    def branches(self, name: str) -> list[tuple[str, _Scope]]:
        """What the branches of the If that makes a value return for it."""
        node = self.makers[name]
        at = list(node.output).index(name)
        return [(body.output[at].name, _Scope(body, self)) for body in subgraphs(node)]


def is_left_as_it_was(graph: onnx.GraphProto, state: State) -> bool:
    """Whether an empty new value of a state says that the earlier one stays.

    Args:
        graph: The model's graph.
        state: One of its states.
    """
    if state.output is None:
        return False
    scope = _Scope(graph)
    return _may_be_constant(state.output, scope) and state.input not in _inputs_of(state.output, scope)


def _may_be_constant(name: str, scope: _Scope) -> bool:
    """Whether a value, or what a branch returns for it, is made of constants alone."""
    scope = scope.of(name)
    node = scope.makers.get(name)
    if node is not None and node.op_type in _FORMS:
        return _may_be_constant(node.input[0], scope)
    if node is not None and node.op_type == "If":
        return any(_may_be_constant(*branch) for branch in scope.branches(name))
    return not _inputs_of(name, scope)


def _inputs_of(name: str, scope: _Scope) -> set[str]:
    """The inputs of the model, and of bodies, that a value is made of."""
    found: set[str] = set()
    left, seen = [(name, scope.of(name))], {(name, id(scope.of(name)))}
    scopes = [scope]  # held, so that no two have one id
    while left:
        name, scope = left.pop()
        node = scope.makers.get(name)
        if node is None:
            found.update({name} - scope.weights)
            continue
        reads = [(value, scope) for value in reads_of(node)]
        if node.op_type == "If":  # by which branch it is made is no part of it
            reads = scope.branches(name)
        for value, inner in reads:
            scopes.append(inner)
            entry = value, inner.of(value)
            if (value, id(entry[1])) not in seen:
                seen.add((value, id(entry[1])))
                left.append(entry)
    return found
