"""The one line of an onnxruntime error that helps.

onnxruntime's messages carry an error code, a source file, a C++ signature and the sentence
itself, in that order and on several lines.
"""

from __future__ import annotations

import re

_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LOADING = re.compile(r"^Load model from .*? failed: ?")
_SOURCE = re.compile(r"^\S+\.(?:cc|h|cpp|cu):\d+ ")
_NODE = re.compile(r"^Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: ")
_LONGEST = 300


def clear_line(error: BaseException) -> str:
    """The essential line of an onnxruntime error."""
    text = " ".join(str(error).split())
    text = _LOADING.sub("", _CODE.sub("", text))
    node = _NODE.match(text)
    if node:
        text = text[node.end() :]
    text = without_signature(text)
    if node:
        text = f"node `{node[2]}` ({node[1]}): {text}"
    text = text.removeprefix("This is an invalid model. ").rstrip(". ")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def without_signature(text: str) -> str:
    """Drops `file.cc:12 void name<...>(const T&) const` from the front."""
    source = _SOURCE.match(text)
    if source is None:
        return text
    rest = text[source.end() :]
    depth = 0
    for at, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        # The signature ends at the parenthesis that closes its arguments, unless a
        # qualified name goes on after it (a lambda in a function).
        if letter == ")" and depth == 0 and not rest.startswith(("::", ">::"), at + 1):
            return rest[at + 1 :].removeprefix(">").removeprefix(" const").strip() or text
    return rest
