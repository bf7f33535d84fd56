"""A request of a client, held against what the model reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.initial import missing_state
from dnnsplit_onnx.runtime.inputs import check_inputs, listed_names
from dnnsplit_onnx.serving.tier.routes import Routes


def check_request(
    routes: Routes, inputs: Mapping[str, Any], states: Mapping[str, Any], *, is_first: bool
) -> dict[str, Any]:
    """Inputs and states together, of the types and shapes that the model reads.

    Args:
        routes: Of the manifest.
        inputs: The model's inputs by name; those that stay for a whole sequence among them.
        states: What states are to begin with.
        is_first: Whether a sequence begins, or there is none.

    Raises:
        InputError: They do not fit, or what stays for a whole sequence is missing at its start.
    """
    brought = states.keys() | (routes.brought & inputs.keys())
    if not brought:  # as in each step of a text but the first
        values = check_inputs(inputs, routes.fresh)
    else:
        kept = {port.name: port for port in routes.states}
        for name in states:
            if name not in kept:
                raise InputError(f"unknown state `{name}`", hint=f"the states are {listed_names(kept)}")
        ports = [*routes.fresh, *(port for name, port in kept.items() if name in brought)]
        values = check_inputs({**inputs, **states}, ports)
    if is_first:
        for port in routes.staying:
            if port.name not in values:
                raise missing_state(port.name)
    return values
