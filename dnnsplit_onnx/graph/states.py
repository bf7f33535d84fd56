"""States: what a model hands from one run to the next, such as a decoder's caches.

A decoder that is exported with its caches reads `past_key_values.3.key` and makes
`present.3.key`, which is the former in the next step. Such a pair never crosses a link: the
tier that owns the layer keeps it between runs. So

1. a state's input is live at no cut, and its output does not travel back;
2. all nodes that read the input, and the node that makes the output, run on one tier: a cut
   may not part them (`cuts.parted_states`).

Pairs are recognised by name, or named by the user.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dnnsplit_onnx.errors import InputError

# `past_key_values.0.key` of Hugging Face's exporters, `past_key_self_0` and `past_0` of
# onnxruntime's: the output is called the same, but for its first word.
_PAST = re.compile(r"^past(_key_values)?(?=[._]|\d)")
_PRESENT = ("present", "present_key_values")

#: What a user writes to have no states at all.
NONE = "none"


@dataclass(frozen=True, slots=True)
class State:
    """A value that one run makes and the next one reads.

    Attributes:
        input: The model input that reads it.
        output: The model output that makes it.
    """

    input: str
    output: str


def named_states(inputs: Iterable[str], outputs: Iterable[str]) -> tuple[State, ...]:
    """The states that names tell of, in the order of the inputs."""
    known = set(outputs)
    found = (State(name, made) for name in inputs for made in _present(name) if made in known)
    return tuple(found)


def parse_states(texts: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]) -> tuple[State, ...]:
    """States from `IN=OUT`, as a command line has them; `none` stands for none.

    Args:
        texts: Each a pair, or `none` alone.
        inputs: The model's inputs.
        outputs: The model's outputs.

    Raises:
        InputError: A text has another form, names no input and output, or one twice.
    """
    if list(texts) == [NONE]:
        return ()
    states: list[State] = []
    for text in texts:
        state = _pair(text, inputs, outputs)
        if any(state.input == other.input or state.output == other.output for other in states):
            raise InputError(f"state `{text}` names what another state names", hint="each is of one state")
        states.append(state)
    return tuple(states)


def _pair(text: str, inputs: Sequence[str], outputs: Sequence[str]) -> State:
    # A name may hold `=` itself: take the first split that names an input and an output.
    for at, letter in enumerate(text):
        if letter == "=" and text[:at] in inputs and text[at + 1 :] in outputs:
            return State(text[:at], text[at + 1 :])
    name, equals, made = text.partition("=")
    if not equals:
        raise InputError(f"cannot read the state `{text}`", hint=f"write it as in past=present, or `{NONE}`")
    if name not in inputs:
        raise InputError(f"state `{text}`: the model has no input `{name}`", hint=_listed("inputs", inputs))
    raise InputError(f"state `{text}`: the model has no output `{made}`", hint=_listed("outputs", outputs))


def _listed(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"its {what} are {', '.join(f'`{name}`' for name in names[:8])}{more}"


def _present(name: str) -> Iterator[str]:
    for word in _PRESENT:
        made, count = _PAST.subn(word, name)
        if count:
            yield made
