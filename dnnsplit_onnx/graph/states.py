"""States: what a model hands from one run to the next, such as a decoder's caches.

A decoder that is exported with its caches reads `past_key_values.3.key` and makes
`present.3.key`, which is the former in the next step. What is read never crosses a link: the
tiers that read a state keep it between runs. So

1. a state's input is live at no cut, and its output does not travel back;
2. the new value is one more value that the readers of the state need, only that they need it
   for the next run: where it is made below them, it crosses like any other, and where something
   else above reads it, too;
3. it never travels down: no node that reads a state may be below the node that makes it
   (`cuts.parted_states`). Where the new value is made of the old one, as a cache is, that keeps
   both on one tier;
4. a new value may be an input of the model, which is there before all nodes. If that input is a
   state itself, what it was is handed on, and whoever reads the former keeps both;
5. a state without an output stays for a whole sequence: its first value is its only one, and
   every tier that reads it has its own copy.

States are named by the user, or recognised:

1. by the names that decoders' exporters give, `past...` and `present...`;
2. by a name that is renewed (`cache` and `new_cache`, `h_in` and `h_out`, `state` and `stateN`),
   speaks of a state, and is of a type that the next run can read;
3. beside such pairs, by names that speak of what a decoder attends to and that no output renews
   (`past_key_values.0.encoder.key`, `past_key_cross_0`, `n_layer_cross_k`,
   `encoder_hidden_states`): that stays for a whole sequence;
4. where only the names or only the types speak for a pair, it is told as a hint and no more: to
   take an image for a memory would be worse than to send a memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dnnsplit_onnx.errors import InputError

# `past_key_values.0.key` of Hugging Face's exporters, `past_key_self_0` and `past_0` of
# onnxruntime's: the output is called the same, but for its first word.
_PAST = re.compile(r"^past(_key_values)?(?=[._]|\d)")
_PRESENT = ("present", "present_key_values")

# What is put before or behind a name to say that it is the next one.
_PREFIXES = ("new_", "next_", "updated_", "out_", "output_", "r_", "new.", "next.")
_SUFFIXES = ("_out", "_new", "_next", "_output", "_n", "n", "N", "Out", "Next", ".out", ".new", ".next")
# A word of a name, and those that say the same of the next run.
_WORDS = {
    "in": ("out",),
    "input": ("output",),
    "prev": ("next", "new", "cur", "curr"),
    "previous": ("next", "new", "current"),
    "past": ("present", "new", "next"),
    "old": ("new",),
    "last": ("next", "new"),
    "initial": ("final",),
    "init": ("final",),
    "i": ("o",),
    "0": ("n", "N"),
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# Words that speak of a memory; a single h or c is an LSTM's.
_MEMORY = re.compile(
    r"^(states?|hidden|caches?|cached|past|mem|memory|carry|kv|lstm|gru|rnn|ssm|buf|buffer|history|"
    r"recurrent|prev|previous|h|c|hn|cn|hx|cx)$"
)

# Words that speak of what a decoder attends to, and of keys and values.
_ATTENDED = {"encoder", "enc", "cross"}
_ATTENTION = {"cache", "caches", "cached", "kv", "k", "v", "key", "value", "keys", "values"}
# Transformers' names of inputs that a sequence has once.
_OF_ENCODER = ("encoder_hidden_states", "encoder_attention_mask")

# Of caches, and of nothing that counts positions: float, float16, bfloat16; batch, length and width.
_FLOATS = (1, 10, 16)
_CACHE_RANK = 3

#: What a user writes to have no states at all.
NONE = "none"

#: The element type and the dimensions of a value, as far as the file says them.
Signature = tuple[int, tuple[int | str | None, ...] | None]


@dataclass(frozen=True, slots=True)
class State:
    """A value that one run makes and the next one reads.

    Attributes:
        input: The model input that reads it.
        output: The model output that makes it; None if it stays for a whole sequence.
    """

    input: str
    output: str | None

    @property
    def pair(self) -> str:
        """As a command line has it: `IN=OUT`, or `IN=` if it stays for a whole sequence."""
        return f"{self.input}={self.output or ''}"


def named_states(
    inputs: Mapping[str, Signature | None], outputs: Mapping[str, Signature | None]
) -> tuple[State, ...]:
    """The states that names and types tell of, in the order of the inputs.

    Args:
        inputs: The model's inputs that are data, and what is known of their types.
        outputs: The model's outputs likewise.
    """
    states: list[State] = []
    taken: set[str] = set()
    for name in inputs:
        family = (made for made in present_names(name) if made in outputs)
        renewed = (
            made
            for made in _renewed(name)
            if made in outputs and _is_memory(name, made) and _is_readable(inputs[name], outputs[made])
        )
        made = next((made for made in (*family, *renewed) if made not in taken and made not in inputs), None)
        if made is not None:
            states.append(State(name, made))
            taken.add(made)
    # A model whose every input is a memory reads nothing: then the names mean something else.
    if len(states) == len(inputs) or len(states) == len(outputs):
        states = [
            state for state in states if any(state.output == made for made in present_names(state.input))
        ]
    pairs = {state.input: state for state in states}
    staying = {name: State(name, None) for name in inputs if name not in pairs and _stays(name, pairs)}
    return tuple((pairs | staying)[name] for name in inputs if name in pairs or name in staying)


def likely_states(
    inputs: Mapping[str, Signature | None],
    outputs: Mapping[str, Signature | None],
    known: Sequence[State],
) -> tuple[State, ...]:
    """What may be a state, though not enough speaks for it: by name alone, or by type alone.

    A cache by its name and type that no output renews may stay for a whole sequence.

    Args:
        inputs: As for `named_states`.
        outputs: As for `named_states`.
        known: The states that there are.
    """
    read = {name: kind for name, kind in inputs.items() if all(s.input != name for s in known)}
    made = {name: kind for name, kind in outputs.items() if all(s.output != name for s in known)}
    lone = tuple(
        State(name, None)
        for name, kind in read.items()
        if known
        and _PAST.match(name)
        and kind is not None
        and kind[0] in _FLOATS
        and len(kind[1] or ()) >= _CACHE_RANK
    )
    if not known and (in_order := _by_position(read, made)):
        return in_order
    if len(read) < 2 or len(made) < 2:  # what is left is what the model is about
        return lone
    of_name = {
        name: renewed
        for name in read
        for renewed in _renewed(name)
        if renewed in made and _is_readable(read[name], made[renewed])
    }
    counts = Counter(read.values()), Counter(made.values())
    of_type = {
        name: other
        for name, kind in read.items()
        for other in made
        if made[other] == kind and kind is not None and kind[1] and counts[0][kind] == counts[1][kind] == 1
    }
    pairs = (of_type | of_name).items()
    likely = tuple(State(name, other) for name, other in pairs if other not in inputs)
    return (*lone, *likely) if len(likely) < min(len(read), len(made)) else lone


def _by_position(
    read: Mapping[str, Signature | None], made: Mapping[str, Signature | None]
) -> tuple[State, ...]:
    """Caches with the last outputs, one for one, where exporters gave those no names that tell.

    An exporter that flattens a cache names its inputs, and writes as many outputs in the same order.
    """
    caches = [
        name
        for name, kind in read.items()
        if _PAST.match(name) and kind is not None and kind[0] in _FLOATS and len(kind[1] or ()) >= _CACHE_RANK
    ]
    renewed = list(made)[-len(caches) :] if 0 < len(caches) < len(made) else []
    pairs = list(zip(caches, renewed, strict=False))
    if not pairs or not all(_is_readable(read[name], made[other]) for name, other in pairs):
        return ()
    return tuple(State(name, other) for name, other in pairs)


def parse_states(texts: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]) -> tuple[State, ...]:
    """States from `IN=OUT`, as a command line has them; `none` stands for none.

    Args:
        texts: Each a pair, a pair of patterns whose `*` stand for the same text on both sides
            (`past_*=present_*`), a name or a pattern alone, as in `IN=`, for what stays for a
            whole sequence, or `none` alone.
        inputs: The model's inputs.
        outputs: The model's outputs.

    Raises:
        InputError: A text has another form, names no input and output, or one twice.
    """
    if list(texts) == [NONE]:
        return ()
    states: list[State] = []
    for text in texts:
        for state in _pairs(text, inputs, outputs):
            if any(_overlap(state, other) for other in states):
                raise InputError(
                    f"state `{text}` names what another state names", hint="each is of one state"
                )
            states.append(state)
    return tuple(states)


def _overlap(state: State, other: State) -> bool:
    return state.input == other.input or (state.output is not None and state.output == other.output)


def _pairs(text: str, inputs: Sequence[str], outputs: Sequence[str]) -> list[State]:
    # A name may hold `=` itself: take the first split that names an input and an output.
    for at, letter in enumerate(text):
        if letter == "=" and text[:at] in inputs and text[at + 1 :] in outputs:
            return [State(text[:at], text[at + 1 :])]
    if text.endswith("=") and text[:-1] in inputs:
        return [State(text[:-1], None)]
    name, equals, made = text.partition("=")
    if not equals:
        raise InputError(f"cannot read the state `{text}`", hint=f"write it as in past=present, or `{NONE}`")
    if "*" in name:
        return _matching(name, made, inputs, outputs)
    if name not in inputs:
        raise InputError(f"state `{text}`: the model has no input `{name}`", hint=_listed("inputs", inputs))
    raise InputError(f"state `{text}`: the model has no output `{made}`", hint=_listed("outputs", outputs))


def _matching(name: str, made: str, inputs: Sequence[str], outputs: Sequence[str]) -> list[State]:
    """The states that two patterns name."""
    if made and made.count("*") != name.count("*"):
        raise InputError(
            f"state `{name}={made}`: the two sides have not as many `*`", hint="as in 'past_*=present_*'"
        )
    pattern = re.compile("(.+)".join(map(re.escape, name.split("*"))))
    states = []
    for one in inputs:
        if (match := pattern.fullmatch(one)) and not made:
            states.append(State(one, None))
        elif match:
            pieces, parts = made.split("*"), match.groups()
            other = "".join(map("".join, zip(pieces, (*parts, ""), strict=True)))
            if other not in outputs:
                raise InputError(
                    f"state `{name}={made}`: input `{one}` has no output `{other}`",
                    hint=_listed("outputs", outputs),
                )
            states.append(State(one, other))
    if not states:
        raise InputError(f"state `{name}={made}` names no input", hint=_listed("inputs", inputs))
    return states


def _listed(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"its {what} are {', '.join(f'`{name}`' for name in names[:8])}{more}"


def present_names(name: str) -> Iterator[str]:
    """What the output may be called that holds a state for the next run: `present...` for `past...`."""
    for word in _PRESENT:
        made, count = _PAST.subn(word, name)
        if count:
            yield made


def is_attended(name: str) -> bool:
    """Whether a name speaks of what a decoder attends to, and not of its own text."""
    words = [word.lower() for word in _WORD.findall(name)]
    return not _ATTENDED.isdisjoint(words)


def _stays(name: str, renewed: Collection[str]) -> bool:
    """Whether a name is one of what stays for a whole sequence, beside states of other names."""
    words = {word.lower() for word in _WORD.findall(name)}
    if name in _OF_ENCODER or (_PAST.match(name) and is_attended(name)):
        return any(_PAST.match(other) for other in renewed)
    return bool(renewed) and "cross" in words and bool(words & _ATTENTION)


def _renewed(name: str) -> Iterator[str]:
    """What the output may be called that renews an input."""
    for match in _WORD.finditer(name):
        word = match.group()
        for other in _WORDS.get(word.lower(), ()):
            said = other.title() if word[:1].isupper() else other
            yield name[: match.start()] + said + name[match.end() :]
    yield from (prefix + name for prefix in _PREFIXES)
    yield from (name + suffix for suffix in _SUFFIXES)


def _is_memory(name: str, made: str) -> bool:
    words = (word.lower() for text in (name, made) for word in _WORD.findall(text))
    return any(_MEMORY.match(word) for word in words)


def _is_readable(read: Signature | None, made: Signature | None) -> bool:
    """Whether the next run can read what this one makes, as far as is known."""
    if read is None or made is None:
        return True
    if read[0] != made[0] or read[1] is None or made[1] is None:
        return read[0] == made[0]
    return len(read[1]) == len(made[1]) and all(
        one == other or not (isinstance(one, int) and isinstance(other, int))
        for one, other in zip(read[1], made[1], strict=True)
    )
