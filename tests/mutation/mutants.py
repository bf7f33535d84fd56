"""Small faults that a person could make, one at a time, in the syntax tree of a module.

What is put in:

1. *Comparisons* move their boundary or turn around: `<` becomes `<=` and `>=`, `is` becomes `is not`.
2. *Arithmetic* takes another operator: `+` becomes `-`, `//` becomes `*`.
3. *Logic*: `and` becomes `or`, `not x` becomes `x`, a condition turns around or, in a comprehension,
   always holds.
4. *Constants*: numbers grow by one, flags flip, strings change (not those of messages and docstrings).
5. *Statements* that only have an effect, and `raise`, disappear; `break` and `continue` change places.
6. *Calls* lose a keyword argument, functions return None.

Annotations, decorators, assertions and error messages stay as they are: nothing that a user relies on
hangs on them, or a test of their wording says so elsewhere.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
# Fields of nodes that are not looked into, and conditions.
_LEFT_ALONE = {"annotation", "returns", "decorator_list", "bases"}
_CONDITION = {ast.If: "test", ast.IfExp: "test", ast.While: "test"}

Path = tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        line: Where it is, from 1.
        first, last: Lines of the statement that it is in, without the statements inside that one.
        where: The function that it is in, with those around it; nothing at the top of the module.
        text: The line of the source.
        change: What becomes what, as code.
        path: The way to the node from the module: a field and, in a list, an index.
        node: What takes its place.
    """

    line: int
    first: int
    last: int
    where: str
    text: str
    change: str
    path: Path
    node: ast.AST

    def applied_to(self, source: str) -> ast.Module:
        """The tree of the module with the fault in it."""
        tree = ast.parse(source)
        at: ast.AST = tree
        for name, index in self.path[:-1]:
            child = getattr(at, name)
            at = child if index is None else child[index]
        name, index = self.path[-1]
        if index is None:
            setattr(at, name, self.node)
        else:
            getattr(at, name)[index] = self.node
        return ast.fix_missing_locations(tree)


def mutants(source: str) -> list[Mutant]:
    """All faults that can be put into a module, in the order of its lines."""
    lines, found = source.splitlines(), []
    for path, node, statement, where in _nodes(ast.parse(source), (), None, ()):
        for changed in _changes(node, path):
            line = getattr(node, "lineno", statement.lineno)
            first, last = _header(statement)
            change = _described(node, changed)
            text = lines[line - 1].strip()
            found.append(
                Mutant(line, min(first, line), max(last, line), ".".join(where), text, change, path, changed)
            )
    return found


def _nodes(
    node: ast.AST, path: Path, statement: ast.stmt | None, where: tuple[str, ...]
) -> Iterator[tuple[Path, ast.AST, ast.stmt, tuple[str, ...]]]:
    """The nodes that may change, how to get to them, and the statements and functions they are in."""
    if isinstance(node, ast.stmt):
        statement = node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        where = (*where, node.name)
    if statement is not None:
        yield path, node, statement, where
    if _is_left_alone(node):
        return
    for name, value in ast.iter_fields(node):
        if name in _LEFT_ALONE or (isinstance(node, ast.ClassDef) and name == "keywords"):
            continue
        if isinstance(value, ast.AST):
            yield from _nodes(value, (*path, (name, None)), statement, where)
        elif isinstance(value, list):
            for index, child in enumerate(value):
                if isinstance(child, ast.AST) and not _is_docstring(child):
                    yield from _nodes(child, (*path, (name, index)), statement, where)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Name) and node.value.id == "Literal"
    if isinstance(node, ast.keyword):
        return node.arg == "strict"  # it holds what the code around it makes true
    return isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _header(statement: ast.stmt) -> tuple[int, int]:
    body = getattr(statement, "body", None)
    last = statement.end_lineno or statement.lineno
    return statement.lineno, max(statement.lineno, body[0].lineno - 1) if body else last


def _described(node: ast.AST, changed: ast.AST) -> str:
    if isinstance(node, ast.Call) and isinstance(changed, ast.Call):
        (gone,) = (keyword for keyword in node.keywords if keyword not in changed.keywords)
        return f"{_code(node.func)}() without {_code(gone)}"
    return f"{_code(node)} -> {_code(changed)}"


def _code(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]


def _changes(node: ast.AST, path: Path) -> Iterator[ast.AST]:
    """What may take the place of a node."""
    match node:
        case ast.Compare() | ast.BinOp() | ast.AugAssign() | ast.BoolOp() | ast.UnaryOp():
            yield from _other_operators(node)
        case ast.Constant():
            yield from _other_constants(node, path)
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(value=ast.Constant(None))
        case ast.Call():
            yield from _fewer_keywords(node)
    yield from _other_conditions(node)


def _other_operators(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                yield ast.Compare(node.left, [*node.ops[:at], other(), *node.ops[at + 1 :]], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        yield ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand


def _other_constants(node: ast.Constant, path: Path) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str) and not any(name == "patterns" for name, _ in path):
        yield ast.Constant(f"{value}~")


def _fewer_keywords(node: ast.Call) -> Iterator[ast.AST]:
    for at, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            yield ast.Call(node.func, node.args, [*node.keywords[:at], *node.keywords[at + 1 :]])


def _other_conditions(node: ast.AST) -> Iterator[ast.AST]:
    """The whole node with another condition; comparisons and `not` have changes of their own."""
    field = _CONDITION.get(type(node))
    if field is not None:
        test = getattr(node, field)
        if not isinstance(test, ast.Compare | ast.UnaryOp):
            changed = copy.copy(node)
            setattr(changed, field, ast.UnaryOp(ast.Not(), test))
            yield changed
    if isinstance(node, ast.comprehension):
        for at in range(len(node.ifs)):
            changed = copy.copy(node)
            changed.ifs = [*node.ifs[:at], *node.ifs[at + 1 :]]
            yield changed


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
