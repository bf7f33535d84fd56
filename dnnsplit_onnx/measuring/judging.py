"""Judges the codes of plans on samples, before there are slices.

The whole model is run with what codes do to values put in where the cuts would be: written, and
read again, for all nodes beyond. Its outputs are held against those of the model as it is.

        x -> Mul -> a -> Add -> y          x -> Mul -> a -> encode -> decode -> a' -> Add -> y

What the slices of the plan do is the same but for rounding; `verify` proves them all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import onnx

from dnnsplit_onnx.errors import InputError, ModelError
from dnnsplit_onnx.graph.operators import ONNX_DOMAINS
from dnnsplit_onnx.measuring.coded import OutputError, output_error
from dnnsplit_onnx.measuring.fences import redirect
from dnnsplit_onnx.planning.coding import coded_at
from dnnsplit_onnx.runtime.inputs import to_values
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.samples import sample_sets
from dnnsplit_onnx.runtime.sessions import open_session
from dnnsplit_onnx.runtime.values import Value, to_python
from dnnsplit_onnx.slicing.coded import coded_values
from dnnsplit_onnx.slicing.coding import decode, encode
from dnnsplit_onnx.slicing.extract import port
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import RAW, base


@dataclass
class Judge:
    """Says what is wrong with the codes of a plan; `plan(..., accept=judge)`.

    Attributes:
        analysis: The model, in the order that plans count in.
        samples: An `.npz` file of inputs, several along the first axis.
        tolerance: The largest error of an output, over its largest element.
        agreement: The least share of samples whose largest output element stays where it is.
        judged: What was found of each choice of codes that it was asked about.
    """

    analysis: Analysis
    samples: str | Path
    tolerance: float | None = None
    agreement: float | None = None
    judged: dict[tuple[tuple[int, str], ...], OutputError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.analysis.graph.states:
            raise InputError(
                "codes of a model with states cannot be judged on samples: they build up over steps",
                hint="plan with --state none, or without --tolerance and --agreement",
            )

    def __call__(self, cuts: tuple[int, ...], codes: tuple[str, ...]) -> str | None:
        """What is wrong with these cuts and codes; None if nothing is.

        Raises:
            InputError: The samples do not fit the model.
        """
        try:
            found = self.error(cuts, codes)
        except ModelError as error:
            return f"the model does not run with them: {error.message}"
        if self.tolerance is not None and not found.relative <= self.tolerance:
            return f"an output errs by {found.relative:.3g} of its largest element, over {self.tolerance:g}"
        if self.agreement is not None and found.agreement < self.agreement:
            return f"{found.agreement:.2%} of the samples agree, under {self.agreement:.2%}"
        return None

    def error(self, cuts: tuple[int, ...], codes: tuple[str, ...]) -> OutputError:
        """How far the outputs are off with these codes at these cuts."""
        places = {cut: base(code) for cut, code in zip(cuts, codes, strict=True) if base(code) != RAW}
        key = tuple(sorted(places.items()))
        if key not in self.judged:
            session = open_session(
                self.analysis.graph.file.path,
                label="the model with codes",
                rewrite=partial(self._put_in, places=places),
            )
            self.judged[key] = output_error(self._run(session), self._whole)
        return self.judged[key]

    @cached_property
    def _values(self) -> list[dict[str, Value]]:
        graph = self.analysis.graph
        ports = [port(value) for value in graph.proto.graph.input if value.name in graph.inputs]
        sets = sample_sets(ports, self.samples, self.analysis.types.bindings)
        return [to_values(ports, one.values) for one in sets]

    @cached_property
    def _whole(self) -> list[dict[str, Any]]:
        return self._run(open_session(self.analysis.graph.file.path, label="the whole model"))

    @cached_property
    def _index(self) -> SliceIndex:
        return SliceIndex(self.analysis.graph)

    def _run(self, session: Any) -> list[dict[str, Any]]:
        ort = runtime()
        return [
            {name: to_python(ort, value) for name, value in session.run(values).items()}
            for values in self._values
        ]

    def _put_in(self, model: onnx.ModelProto, places: Mapping[int, str]) -> None:
        """Writes and reads values where they cross, in a copy of the model."""
        graph = self.analysis.graph
        opset = next(int(o.version) for o in model.opset_import if o.domain in ONNX_DOMAINS)
        nodes = list(model.graph.node)
        constant = dict.fromkeys(graph.constant_nodes.values())  # in an order in which they can run
        order: list[onnx.NodeProto] = [nodes[index] for index in constant]
        names: dict[str, str] = {}
        for position in range(len(graph.nodes)):
            if position in places:
                order += self._codes(model, position, places[position], names, opset)
            node = nodes[graph.nodes[position].index]
            for value in graph.nodes[position].inputs:
                if value in names:
                    redirect(node, value, names[value])
            order.append(node)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
        del model.graph.node[:]
        model.graph.node.extend(copies)

    def _codes(
        self, model: onnx.ModelProto, position: int, code: str, names: dict[str, str], opset: int
    ) -> Sequence[onnx.NodeProto]:
        """The nodes that write and read all that crosses one cut."""
        wanted = {one.value: code for one in coded_at(self.analysis, position, code)}
        made: list[onnx.NodeProto] = []
        for value, coded in coded_values(self._index, position, wanted).items():
            arrives = f"{coded.prefix}/value"
            written = encode(replace(coded, value=names.get(value, value)), opset)
            read = decode(replace(coded, value=arrives), opset)
            made += [*written.nodes, *read.nodes]
            model.graph.initializer.extend([*written.weights, *read.weights])
            names[value] = arrives
        return made
