"""One branch of a merged model: an If whose condition is an input, taken for good.

A merged decoder holds itself twice: without caches, for the first pass, and with them, for all others,
one branch of an If each. An If is one node, so that no cut lies inside. Where the condition is an input
(`use_cache_branch`) and the user says what it is, the If gives way to the nodes of its branch.

What the branch leaves as it is, such as an encoder's caches, which it returns empty, is no output
any more: it stays for a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import helper

from dnnsplit_onnx.converters.copies import copy_cheap
from dnnsplit_onnx.converters.norms import split_norms
from dnnsplit_onnx.errors import InputError, ModelError
from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.graph.bodies import subgraphs
from dnnsplit_onnx.graph.folders import model_in

# What hands a condition on as it is.
_PASSES = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))
_LARGEST_NBYTES = 2_000_000_000


def choose_branches(
    model: str | Path | onnx.ModelProto,
    chosen: Mapping[str, bool],
    output: str | Path,
    *,
    norms: bool = False,
    copies: bool = False,
    force: bool = False,
) -> onnx.ModelProto:
    """Writes a model with the branches that some of its inputs choose, if any.

    Args:
        model: The ONNX file, a folder of one, or the model.
        chosen: For each of these inputs, whether it is true.
        output: The file to write.
        norms: Whether sums and norms that were fused are taken apart (`norms`).
        copies: Whether masks and positions are made anew in each block that reads them (`copies`).
        force: Whether it may be there.

    Returns:
        The model that was written.

    Raises:
        InputError: An input is not there, or chooses no branch.
        ModelError: The model cannot be read, or is too large for one file.
        OutputError: The file exists, or cannot be written.
    """
    made = _loaded(model)
    if chosen:
        made = with_branches(made, chosen)
    if norms and not split_norms(made):
        raise InputError("the model has no fused sums and norms that are both read", hint="leave it as it is")
    if copies and not copy_cheap(made):
        raise InputError("no cut of the model would send less with copies", hint="leave it as it is")
    if made.ByteSize() > _LARGEST_NBYTES:
        raise ModelError("the branch takes more than 2 GB, the most that one ONNX file holds")
    with written_whole(Path(output), force=force) as file:
        file.write(made.SerializeToString())
    return made


def _loaded(model: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    path = model_in(Path(model))
    try:
        return onnx.load(path)
    except Exception as error:  # the protobuf library's own, and the file system's
        raise ModelError(f"cannot read `{path}`: {error}") from None


def with_branches(model: onnx.ModelProto, chosen: Mapping[str, bool]) -> onnx.ModelProto:
    """The model, changed in place, with the branches that its inputs choose; see `choose_branches`."""
    graph = model.graph
    inputs = [value.name for value in graph.input]
    for name in chosen:
        if name not in inputs:
            raise InputError(f"the model has no input `{name}`", hint=f"its inputs are {', '.join(inputs)}")
    known = dict(chosen)
    used: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    names = {name for node in graph.node for name in node.output} | {t.name for t in graph.initializer}
    for node in graph.node:
        first = node.input[0] if node.input else ""
        if node.op_type in (*_PASSES, "Not") and first in known:
            known[node.output[0]] = known[first] != (node.op_type == "Not")
        if node.op_type == "If" and first in known:
            used.add(first)
            nodes += _branch(node, known[first], graph, names)
        else:
            nodes.append(node)
    if not used:
        raise InputError(
            f"input `{next(iter(chosen))}` chooses no branch: no If has it for its condition",
            hint="a merged decoder's is called use_cache_branch",
        )
    del graph.node[:]
    graph.node.extend(nodes)
    _leave_out_empty(graph)
    _prune(graph, set(chosen))
    return model


def _branch(
    node: onnx.NodeProto, is_true: bool, graph: onnx.GraphProto, names: set[str]
) -> list[onnx.NodeProto]:
    """The nodes of a branch, as nodes of the graph around it."""
    wanted = "then_branch" if is_true else "else_branch"
    body = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
    inner = [name for one in body.node for name in one.output if name]
    inner += [tensor.name for tensor in body.initializer]
    renamed = {name: _free(name, node, names) for name in inner if name in names}
    returned: dict[str, str] = {}
    copies = []
    for value, name in zip(body.output, node.output, strict=True):
        if value.name in inner and value.name not in returned and name:
            returned[value.name] = name
        elif name:  # what the branch only hands on, or returns twice
            copies.append((value.name, name))
    renamed |= returned
    names.update(renamed.get(name, name) for name in inner)
    for one in body.node:
        _rename(one, renamed)
    for tensor in body.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    graph.initializer.extend(body.initializer)
    handed = [
        helper.make_node("Identity", [renamed.get(name, name)], [other], name=f"{node.name}/{other}")
        for name, other in copies
    ]
    return [*body.node, *handed]


def _free(name: str, node: onnx.NodeProto, names: set[str]) -> str:
    """A name that nothing has, for a value of a branch whose name is taken."""
    prefix = node.name or "branch"
    found, count = f"{prefix}/{name}", 1
    while found in names:
        found, count = f"{prefix}/{name}_{count}", count + 1
    return found


def _rename(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    """Renames what a node reads and makes, and what its bodies read of it."""
    for names in (node.input, node.output):
        for at, name in enumerate(names):
            names[at] = renamed.get(name, name)
    for body in subgraphs(node):
        own = {name for inner in body.node for name in inner.output} | {t.name for t in body.initializer}
        own |= {value.name for value in body.input}
        outer = {name: other for name, other in renamed.items() if name not in own}
        for inner in body.node:
            _rename(inner, outer)
        for value in body.output:
            value.name = outer.get(value.name, value.name)


def _leave_out_empty(graph: onnx.GraphProto) -> None:
    """Takes away outputs that are empty constants: what they stand for stays as it was."""
    empty = {tensor.name for tensor in graph.initializer if 0 in tensor.dims}
    for node in graph.node:
        if node.op_type == "Constant":
            values = [a.t for a in node.attribute if a.name == "value"]
            empty |= {node.output[0] for value in values if 0 in value.dims}
        elif node.op_type == "Identity" and node.input[0] in empty:
            empty.add(node.output[0])
    kept = [value for value in graph.output if value.name not in empty]
    del graph.output[:]
    graph.output.extend(kept)


def _prune(graph: onnx.GraphProto, chosen: set[str]) -> None:
    """Takes away nodes and weights that no output needs, and the inputs that were chosen."""
    needed = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_read(node))
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    inputs = [value for value in graph.input if value.name not in chosen or value.name in needed]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, its bodies included."""
    yield from node.input
    for body in subgraphs(node):
        for inner in body.node:
            yield from _read(inner)
        yield from (value.name for value in body.output)
