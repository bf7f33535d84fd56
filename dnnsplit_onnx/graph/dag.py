"""The networkx view of a model, what is on it, and its files for other programs.

Nodes are the data-flow nodes. Their key is where they stand in the model's own file
(`Node.index`), which is the same in every order of the nodes. Model inputs and weights are
not nodes. An edge from u to v holds the values that v reads from u; a value with two readers
stands on two edges, so whoever adds up bytes counts values by their names.

| | `Graph.dag` | `Analysis.dag` adds |
|---|---|---|
| nodes | `name`, `op_type`, `position` | `macs`, `flops`, `weight_nbytes` |
| edges | `values` | `nbytes` |

What is unknown is None.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.files import already_exists, written_whole

if TYPE_CHECKING:
    import networkx as nx

SUFFIXES = (".graphml", ".json")


def refuse_name(path: Path, *, force: bool) -> None:
    """Finds before the work whether a graph can be written to a file of this name.

    Raises:
        InputError: It ends in neither `.graphml` nor `.json`.
        OutputError: The file exists and `force` is not set.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"no graph is written as `{path.suffix or path.name}`",
            hint=f"name it {path.with_suffix(SUFFIXES[0]).name}, or {path.with_suffix(SUFFIXES[1]).name}",
        )
    if path.exists() and not force:
        raise already_exists(path)


def write_dag(dag: nx.DiGraph, path: Path, *, force: bool = False) -> None:
    """Writes a graph: `.graphml` as GraphML, `.json` as node-link JSON.

    GraphML has neither lists nor nothing: there `values` are joined by spaces, and what is
    unknown is left out.

    Raises:
        InputError: The file's name ends otherwise.
        OutputError: The file exists and `force` is not set, or it cannot be written.
    """
    import networkx as nx

    refuse_name(path, force=force)
    with written_whole(path, force=force) as file:
        if path.suffix == ".graphml":
            nx.write_graphml_xml(_plain(dag), file)
        else:
            file.write(json.dumps(nx.node_link_data(dag, edges="edges"), indent=1).encode())


def _plain(dag: nx.DiGraph) -> nx.DiGraph:
    """The graph with the texts and numbers that GraphML can hold."""
    import networkx as nx

    plain = nx.DiGraph()
    plain.add_nodes_from((key, _known(attributes)) for key, attributes in dag.nodes.data())
    plain.add_edges_from((u, v, _known(attributes)) for u, v, attributes in dag.edges.data())
    return plain


def _known(attributes: dict[str, Any]) -> dict[str, str | int]:
    """Attributes without those that are unknown; XML has no control characters."""
    texts = {key: " ".join(value) if key == "values" else value for key, value in attributes.items()}
    return {
        key: "".join(c if c.isprintable() else "\ufffd" for c in value) if isinstance(value, str) else value
        for key, value in texts.items()
        if value is not None
    }
