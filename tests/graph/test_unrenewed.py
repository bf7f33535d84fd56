"""Which states an empty constant leaves as they were: merged decoders, and what only looks like one."""

from __future__ import annotations

import onnx
import pytest

from dnnsplit_onnx.graph.states import State
from dnnsplit_onnx.graph.unrenewed import is_left_as_it_was

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
EMPTY = "Constant <value = float[0, 2, 4] {}> ()"

LEFT = {
    "a branch with caches returns an empty constant": f"""
        g (bool use, float[1, n, 4] e, float[1, n, 4] past) => (float[1, m, 4] y, float[1, m, 4] new) {{
            y, new = If (use) <
                then_branch = t () => (float[1, m, 4] a, float[0, 2, 4] b) {{ a = Abs (past) b = {EMPTY} }},
                else_branch = f () => (float[1, m, 4] c, float[1, m, 4] d) {{ c = Neg (e) d = Tanh (e) }}
            >
        }}""",
    "and it is cast after the branch": f"""
        g (bool use, float[1, n, 4] e, float[1, n, 4] past) => (float[1, m, 4] y, float16[1, m, 4] new) {{
            y, made = If (use) <
                then_branch = t () => (float[1, m, 4] a, float[0, 2, 4] b) {{ a = Abs (past) b = {EMPTY} }},
                else_branch = f () => (float[1, m, 4] c, float[1, m, 4] d) {{ c = Neg (e) d = Tanh (e) }}
            >
            new = Cast <to = 10> (made)
        }}""",
    "a branch inside a branch does": f"""
        g (bool use, bool still, float[1, n, 4] e, float[1, n, 4] past) => (float[1, m, 4] new) {{
            new = If (use) <
                then_branch = t () => (float[1, m, 4] a) {{
                    a = If (still) <
                        then_branch = tt () => (float[0, 2, 4] b) {{ b = {EMPTY} }},
                        else_branch = tf () => (float[1, m, 4] c) {{ c = Abs (e) }}
                    >
                }},
                else_branch = f () => (float[1, m, 4] d) {{ d = Tanh (e) }}
            >
        }}""",
    "the branch was chosen for good": """
        g (float[1, n, 4] past) => (float[1, m, 4] y, float[0, 2, 4] new)
        <float[0, 2, 4] new = {}> { y = Abs (past) }""",
}
RENEWED = {
    "a cache": """
        g (float[1, n, 4] e, float[1, n, 4] past) => (float[1, m, 4] new) {
            new = Concat <axis = 1> (past, e)
        }""",
    "a buffer that is emptied now and then": f"""
        g (bool use, float[1, n, 4] e, float[1, n, 4] past) => (float[1, m, 4] new) {{
            new = If (use) <
                then_branch = t () => (float[0, 2, 4] b) {{ b = {EMPTY} }},
                else_branch = f () => (float[1, m, 4] d) {{ d = Concat <axis = 1> (past, e) }}
            >
        }}""",
    "a buffer whose new value is made before the branch": f"""
        g (bool use, float[1, n, 4] e, float[1, n, 4] past) => (float[1, m, 4] new) {{
            more = Concat <axis = 1> (past, e)
            new = If (use) <
                then_branch = t () => (float[0, 2, 4] b) {{ b = {EMPTY} }},
                else_branch = f () => (float[1, m, 4] d) {{ d = Identity (more) }}
            >
        }}""",
    "what a run finds may be nothing": """
        g (float[1, n, 4] e, int64[k] found, float[1, n, 4] past) => (float[1, m, 4] new) {
            new = Gather <axis = 1> (e, found)
        }""",
    "no branch returns a constant": """
        g (bool use, float[1, n, 4] e, float[1, n, 4] past) => (float[1, m, 4] new) {
            new = If (use) <
                then_branch = t () => (float[1, m, 4] b) { b = Abs (e) },
                else_branch = f () => (float[1, m, 4] d) { d = Neg (e) }
            >
        }""",
}


def graph_of(text: str) -> onnx.GraphProto:
    return onnx.parser.parse_model(HEAD + text).graph


@pytest.mark.parametrize("text", LEFT.values(), ids=LEFT)
def test_an_empty_constant_leaves_a_state_as_it_was(text: str) -> None:
    graph = graph_of(text)
    assert is_left_as_it_was(graph, State("past", "new"))
    assert not is_left_as_it_was(graph, State("past", None))


@pytest.mark.parametrize("text", RENEWED.values(), ids=RENEWED)
def test_what_is_computed_is_the_new_value(text: str) -> None:
    assert not is_left_as_it_was(graph_of(text), State("past", "new"))
