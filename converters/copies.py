"""Masks and positions made anew in each block, so that cuts between blocks send what they are made of.

A decoder makes its mask, and the sines and cosines of its positions, once, and every layer reads
them: they cross each cut beside the residual, and at 4,096 tokens a causal mask is many times the
residual. All of them follow from whole numbers, masks and shapes alone, with next to no weights.
Here such nodes are copied for each block that reads what they make. So

1. a cut between blocks sends the values that the copies begin with. They are chosen as a minimum cut
   between the model's inputs and what blocks read, by the bytes of a text (`_NEW` tokens after
   as many), so that no more is sent than before;
2. each copy is the node itself and reads what it read, so that the results keep their bits. Within
   one slice onnxruntime makes one of all copies again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.bodies import reads_of
from dnnsplit_onnx.graph.copies import mark_copy
from dnnsplit_onnx.graph.graph import Graph, Node
from dnnsplit_onnx.graph.lengths import lengths_of
from dnnsplit_onnx.work.analysing import analyse, at_sizes
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cheap import cheap_values
from dnnsplit_onnx.work.cuts import lifetimes
from dnnsplit_onnx.work.maxflow import Network

_NEW = 256
# Stands for the bytes of a value whose size is unknown: it is sent only where nothing else can be.
_UNKNOWN_NBYTES = 1 << 50


def copy_cheap(model: onnx.ModelProto) -> int:
    """Copies nodes that follow from whole numbers and shapes alone into the blocks that read them, in place.

    Args:
        model: A model with its weights.

    Returns:
        How many nodes there are more; 0 where nothing is saved, and then nothing is changed.
    """
    analysis = analyse(model)
    graph = analysis.graph
    cheap = cheap_values(analysis)
    block_of, makers = _blocks(graph, cheap), set(cheap.values())
    wanted: dict[int, set[str]] = {}
    for at, node in enumerate(graph.nodes):
        if node.index not in makers and block_of[at]:
            wanted.setdefault(block_of[at], set()).update(cheap.keys() & set(node.inputs))
    sent = _sent(analysis, cheap, set().union(*wanted.values()))
    copied = {
        at: _between(graph, cheap, sent, cheap.keys() & set(node.inputs))
        for at, node in enumerate(graph.nodes)
        if node.index not in makers and block_of[at]
    }
    if not any(copied.values()):
        return 0
    return _rewrite(model, graph, block_of, copied)


def _blocks(graph: Graph, cheap: Mapping[str, int]) -> list[int]:
    """The block of each node: blocks are joined by as few values as there are anywhere, cheap ones aside."""
    size = len(graph.nodes)
    change = np.zeros(size + 2, dtype=np.int64)
    inputs = set(graph.inputs)
    for value, born, last in lifetimes(graph):
        if value not in cheap and value not in inputs:
            change[born] += 1
            change[last + 1] -= 1
    crossing = np.cumsum(change)
    inner = [at for at in range(1, size) if crossing[at] > 0]
    fewest = min((int(crossing[at]) for at in inner), default=0)
    ends = [at for at in inner if crossing[at] == fewest]
    return [bisect_right(ends, at) for at in range(size)]


def _sent(analysis: Analysis, cheap: Mapping[str, int], wanted: set[str]) -> set[str]:
    """The values that cheap ones above are made of, of the fewest bytes."""
    graph = analysis.graph
    values = [name for name in graph.values if name in cheap or name in graph.inputs]
    place = {name: 2 * at + 2 for at, name in enumerate(values)}
    nbytes = _nbytes(analysis, values)
    network = Network([0, 0, *(float(at) for at in range(2 * len(values)))])
    for name, at in place.items():
        network.add(at, at + 1, nbytes[name])
        node = graph.nodes[graph.producer[name]] if name in graph.producer else None
        if node is None or not place.keys() >= set(node.inputs) or _reads_states(graph, node):
            network.add(Network.SOURCE, at, None)  # it can be made in its own block alone
        else:
            for before in node.inputs:
                network.add(place[before] + 1, at, None)
        if name in wanted:
            network.add(at + 1, Network.SINK, None)
    _, below = network.minimum_cut()
    return {name for name, at in place.items() if below[at] and not below[at + 1]}


def _reads_states(graph: Graph, node: Node) -> bool:
    return any(state.input in node.inputs for state in graph.states if state.output is not None)


def _nbytes(analysis: Analysis, values: Iterable[str]) -> dict[str, int]:
    """Bytes of values over a text, at least one each, where tokens are counted; else of one run.

    What stays for a sequence is sent once, which is next to nothing.
    """
    parts = [(analysis, 1)]
    try:
        lengths = lengths_of(analysis.graph)
    except InputError:
        lengths = None
    if lengths is not None and lengths.fixed is None:
        others = dict(analysis.types.bindings)
        passes = [(_NEW, 0, 1), (1, _NEW + _NEW // 2, _NEW)] if lengths.past else [(_NEW, 0, 1)]
        parts = [
            (at_sizes(analysis, {**others, **lengths.sizes(tokens, past)}), times)
            for tokens, past, times in passes
        ]
    found = dict.fromkeys(values, 1)
    for part, times in parts:
        for name in found:
            nbytes = part.types.nbytes(name)
            found[name] += _UNKNOWN_NBYTES if nbytes is None else times * nbytes
    staying = {state.input for state in analysis.graph.states if state.output is None}
    return found | dict.fromkeys(staying & found.keys(), 1)


def _between(graph: Graph, cheap: Mapping[str, int], sent: set[str], wanted: Iterable[str]) -> list[int]:
    """Positions of the nodes that make some values of those that are sent, in order."""
    found: set[int] = set()
    left = [name for name in wanted if name not in sent]
    while left:
        at = graph.producer[left.pop()]
        if at not in found:
            found.add(at)
            left += [name for name in graph.nodes[at].inputs if name in cheap and name not in sent]
    return sorted(found)


def _rewrite(
    model: onnx.ModelProto, graph: Graph, block_of: list[int], copied: Mapping[int, list[int]]
) -> int:
    """Puts copies before the first node of a block that reads them, and has its nodes do so.

    Args:
        model: What is changed.
        graph: Its graph.
        block_of: The block of each position.
        copied: For positions of nodes, those of the nodes that are copied for them.

    Returns:
        How many nodes there are more.
    """
    before = len(model.graph.node)
    constant = sorted(set(graph.constant_nodes.values()))
    nodes = [model.graph.node[index] for index in constant]
    begun: set[tuple[int, int]] = set()
    for at, node in enumerate(graph.nodes):
        block, positions = block_of[at], copied.get(at, [])
        renamed = {name: f"{name}/block{block}" for one in positions for name in graph.nodes[one].outputs}
        new = [one for one in positions if (block, one) not in begun]
        begun.update((block, one) for one in new)
        nodes += [_renamed(model.graph.node[graph.nodes[one].index], renamed, block) for one in new]
        nodes.append(_renamed(model.graph.node[node.index], renamed))
    read, made = set(graph.outputs), []
    for one in reversed(nodes):
        if read.intersection(one.output):
            made.append(one)
            read.update(reads_of(one))
    del model.graph.node[:]
    model.graph.node.extend(reversed(made))
    return len(made) - before


def _renamed(node: onnx.NodeProto, renamed: Mapping[str, str], block: int | None = None) -> onnx.NodeProto:
    """A node that reads other values; with a block, one that makes others, too."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = [renamed.get(name, name) for name in node.input]
    if block is not None:
        made.output[:] = [renamed.get(name, name) for name in node.output]
        mark_copy(made)
        made.name = f"{node.name or node.output[0]}/block{block}"
    return made
