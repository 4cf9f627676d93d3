"""Generate mutants of Python code, with mutation operators that are independent of this project."""

import ast
import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from tests.tools.mutants.mutant import Mutant, number_repeated

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
# If one of these operators is replaced by its counterpart, the comparison is negated.
NEGATED_BY_COMPARISON = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
# Functions and decorators that matter only to type checkers; mutants of their uses would be equivalent.
TYPING = ("TypeVar", "NewType", "ParamSpec", "cast", "overload", "override", "abstractmethod")
TEXT = (ast.JoinedStr, ast.Constant)
Old = ast.AST | list[Any]


class Change(NamedTuple):
    """A mutation that replaces a part of the syntax tree.

    Attributes:
        operator: The kind of change.
        old: The node to replace, or the list of statements of a block.
        new: The node that replaces it.
        drops: All items of a list, and the index of the item that the change drops; None for any other change.
    """

    operator: str
    old: Old
    new: ast.AST
    drops: tuple[Sequence[ast.AST], int] | None = None


class Location(NamedTuple):
    """The location of a node in the syntax tree.

    Attributes:
        scope: The names of the enclosing functions and classes.
        statement: The enclosing statement.
        at_import: Whether the node is executed when the module is imported.
        f_string: The enclosing f-string, if any; the positions of the parts of an f-string are unreliable.
    """

    scope: tuple[str, ...]
    statement: ast.AST
    at_import: bool
    f_string: ast.AST | None


def mutants(file: str, source: str) -> list[Mutant]:
    """Return every mutant of a Python module."""
    tree = ast.parse(source)
    modules = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return list(number_repeated(_mutants(file, source, tree, modules)))


def _mutants(file: str, source: str, tree: ast.Module, modules: set[str]) -> Iterator[Mutant]:
    for node, parent, location in _walk(tree, tree, Location((), tree, True, None)):
        for change in _changes(node, parent, modules):
            before, after = _fragments(change)
            first = change.old[0] if isinstance(change.old, list) else change.old
            line = getattr(first, "lineno", getattr(location.statement, "lineno", 1))
            scope = ".".join(location.scope) or "module"
            render = partial(_render, source, tree, change, location)
            yield Mutant(file, scope, change.operator, before, after, line, render, *_coverage_needed(change, location))


def _walk(node: ast.AST, parent: ast.AST, location: Location) -> Iterator[tuple[ast.AST, ast.AST, Location]]:
    """Yield each node that affects the execution of the code, with the parent and location of the node."""
    if _is_skipped(node, parent):
        return
    if isinstance(node, (ast.stmt, ast.ExceptHandler)):
        location = location._replace(statement=node)
    if isinstance(node, ast.JoinedStr):
        location = location._replace(f_string=location.f_string or node)
    named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    if named:
        location = location._replace(scope=(*location.scope, node.name))  # type: ignore[attr-defined]
    yield node, parent, location
    body = [] if isinstance(node, ast.ClassDef) or not named else node.body  # type: ignore[attr-defined]
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if name in ("annotation", "returns"):
                # In an annotation, only calls such as `Field(...)` affect the execution.
                calls = [call for call in ast.walk(child) if isinstance(call, ast.Call)] if child else []
                for call in calls:
                    yield from _walk(call, node, location)
            elif isinstance(child, ast.AST):
                yield from _walk(child, node, location._replace(at_import=False) if child in body else location)


def _is_skipped(node: ast.AST, parent: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Expr(ast.Constant()):
            return True
        case ast.If(ast.Name("TYPE_CHECKING")) | ast.Assign([ast.Name("__all__")]):
            return True
        case ast.Constant(str()) if isinstance(parent, ast.Subscript):
            # A changed key is not worth a mutant: any test would find the `KeyError`.
            return True
        case ast.Constant(str()):
            return isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func.id in TYPING
    return False


def _changes(node: ast.AST, parent: ast.AST, modules: set[str]) -> Iterator[Change]:
    yield from _operator(node)
    yield from _value(node, parent, modules)
    yield from _items(node, parent)
    yield from _statement(node)
    yield from _block(node)


def _operator(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare(_, ops):
            for index, operator in enumerate(ops):
                swapped = [*ops[:index], COMPARISONS[type(operator)](), *ops[index + 1 :]]
                yield Change("other comparison", node, _with(node, ops=swapped))
        case ast.BoolOp(operator):
            other = ast.And() if isinstance(operator, ast.Or) else ast.Or()
            yield Change("and/or swapped", node, _with(node, op=other))
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield Change("negation dropped", node, operand)
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC:
            if not any(isinstance(side, TEXT) and not _is_number(side) for side in (left, right)):
                yield Change("other arithmetic", node, _with(node, op=ARITHMETIC[type(operator)]()))
        case ast.If(test) | ast.While(test) | ast.IfExp(test):
            is_negation = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
            is_swapped = isinstance(test, ast.Compare) and isinstance(test.ops[0], NEGATED_BY_COMPARISON)
            if not (is_negation or is_swapped):
                yield Change("condition negated", test, ast.UnaryOp(ast.Not(), test))


def _value(node: ast.AST, parent: ast.AST, modules: set[str]) -> Iterator[Change]:
    match node:
        case ast.Name(name) if name in FUNCTIONS:
            yield Change("other function", node, _with(node, id=FUNCTIONS[name]))
        case ast.Call(ast.Attribute(value)) if not isinstance(parent, (ast.Expr, ast.Await)):
            if not (isinstance(value, ast.Name) and value.id in {*modules, "self", "cls"}):
                yield Change("method call dropped", node, value)
        case ast.Slice(lower, upper):
            for name in [name for name, bound in (("lower", lower), ("upper", upper)) if bound]:
                yield Change(f"{name} bound dropped", node, _with(node, **{name: None}))
        case ast.Constant() if isinstance(parent, ast.JoinedStr) and node is not _first_text(parent):
            pass
        case ast.Constant(value) if value is not None and value is not ...:
            yield from (Change("other constant", node, ast.Constant(other)) for other in _other_values(value))


def _first_text(node: ast.JoinedStr) -> ast.AST | None:
    """Return the first constant part of an f-string, or None; only this part is mutated, on behalf of all parts."""
    return next((part for part in node.values if isinstance(part, ast.Constant)), None)


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float))


def _other_values(value: Any) -> Iterator[Any]:
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
            if value not in (0, 1):
                yield 0
        case str():
            yield f"x{value}"
        case bytes():
            yield b"x" + value


def _items(node: ast.AST, parent: ast.AST) -> Iterator[Change]:
    """Yield a change for each operand, item, argument or condition that can be dropped from a node."""
    match node:
        case ast.BoolOp(_, values):
            for index in range(len(values)):
                remaining = _without(values, index)
                new = remaining[0] if len(remaining) == 1 else _with(node, values=remaining)
                yield Change("operand dropped", node, new, (values, index))
        case ast.Dict(keys, values) if None not in keys:
            for index in range(len(keys)):
                new = _with(node, keys=_without(keys, index), values=_without(values, index))
                pairs = [_pair(key, value) for key, value in zip(keys, values, strict=True) if key]
                yield Change("item dropped", node, new, (pairs, index))
        case ast.List(items) | ast.Set(items) | ast.Tuple(items) if isinstance(node, ast.Set) or _is_loaded(node):
            droppable = not isinstance(node, ast.Tuple) or isinstance(
                parent, (ast.Compare, ast.ExceptHandler, ast.Call)
            )
            if droppable and not isinstance(parent, (ast.Subscript, ast.Tuple)) and len(items) > 1:
                for index in range(len(items)):
                    yield Change("item dropped", node, _with(node, elts=_without(items, index)), (items, index))
        case ast.Call(_, positional, keywords):
            for index, keyword in enumerate(keywords):
                if keyword.arg:
                    new = _with(node, keywords=_without(keywords, index))
                    yield Change("argument dropped", node, new, ((*positional, *keywords), len(positional) + index))
        case ast.comprehension(ifs=[_, *_] as conditions):
            for condition in conditions:
                yield Change("condition dropped", condition, ast.Constant(True))


def _statement(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Expr(ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign() | ast.Delete():
            yield Change("statement dropped", node, ast.Pass())
        case ast.Break() | ast.Continue():
            yield Change("statement dropped", node, ast.Pass())
        case ast.Assign([ast.Attribute() | ast.Subscript()]) | ast.AnnAssign(ast.Attribute(), value=ast.expr()):
            yield Change("statement dropped", node, ast.Pass())
        case ast.Return(value) if value and not (isinstance(value, ast.Constant) and value.value is None):
            yield Change("return value dropped", value, ast.Constant(None))
        case ast.For(iter=values):
            yield Change("loop skipped", values, ast.Tuple([], ast.Load()))


def _block(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.With([ast.withitem(_, None)]) | ast.AsyncWith([ast.withitem(_, None)]):
            yield Change("context dropped", node, ast.If(ast.Constant(True), node.body, []))
        case ast.ExceptHandler(body=[ast.Raise(None)]):
            pass
        case ast.ExceptHandler(body=body):
            yield Change("exception not handled", body, ast.Raise())
        case ast.Try(finalbody=[_, *_] as body):
            yield Change("finally dropped", body, ast.Pass())
        case ast.FunctionDef(decorator_list=decorators) | ast.AsyncFunctionDef(decorator_list=decorators):
            for index, decorator in enumerate(decorators):
                if ast.unparse(decorator).rpartition(".")[2] not in TYPING:
                    new = _with(node, decorator_list=_without(decorators, index))
                    yield Change("decorator dropped", node, new, (decorators, index))


def _with(node: ast.AST, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _without(items: Sequence[Any], index: int) -> list[Any]:
    return [*items[:index], *items[index + 1 :]]


def _pair(key: ast.expr, value: ast.expr) -> ast.expr:
    """Return a node that spans a key and its value in a dictionary, because the syntax tree has no such node."""
    pair = ast.copy_location(ast.Dict([key], [value]), key)
    pair.end_lineno, pair.end_col_offset = value.end_lineno, value.end_col_offset
    return pair


def _is_loaded(node: Any) -> bool:
    return isinstance(node.ctx, ast.Load)


def _fragments(change: Change) -> tuple[str, str]:
    """Return the changed code before and after the change, both in normalized layout."""
    if change.drops:
        items, index = change.drops
        return ast.unparse(items[index]), ""
    old = change.old if isinstance(change.old, list) else [change.old]
    if change.operator == "context dropped":
        return ast.unparse(getattr(change.old, "items")[0]), ""  # noqa: B009, other kinds of nodes have no items
    return "\n".join(map(ast.unparse, old)), ast.unparse(ast.fix_missing_locations(change.new))


def _render(source: str, tree: ast.Module, change: Change, location: Location) -> str | None:
    """Return the source with the change but otherwise in its original layout, or None if that is impossible."""
    expected = ast.dump(_replace(tree, change.old, change.new))
    if expected == ast.dump(tree):
        return None
    for start, end, text in _edits(source, change, location):
        changed = source[:start] + text + source[end:]
        try:
            if ast.dump(ast.parse(changed)) == expected:
                compile(changed, "mutant", "exec")
                return changed
        except SyntaxError:
            continue
    return None


def _edits(source: str, change: Change, location: Location) -> Iterator[tuple[int, int, str]]:
    """Yield candidate edits of the source; the first edit that results in the expected syntax tree is correct."""
    start, end = _find_span(source, change.old)
    if location.f_string:
        start, end = _find_span(source, location.f_string)
        yield start, end, ast.unparse(_replace(location.f_string, change.old, change.new))
        return
    if change.drops:
        items, index = change.drops
        spans = [_find_span(source, item) for item in items]
        if change.operator == "decorator dropped":
            at_sign = source.rindex("@", 0, spans[index][0])
            rest = source[spans[index][1] :]
            yield at_sign, spans[index][1] + len(rest) - len(rest.lstrip()), ""
            return
        if index + 1 < len(items):
            yield spans[index][0], spans[index + 1][0], ""
        if index:
            yield spans[index - 1][1], spans[index][1], ""
        yield *spans[index], ""
    if change.operator == "context dropped":
        yield start, _find_span(source, getattr(change.old, "items")[0].context_expr)[1], "if True"  # noqa: B009
        return
    text = ast.unparse(ast.fix_missing_locations(change.new))
    yield start, end, text
    yield start, end, f"({text})"


def _find_span(source: str, node: Any) -> tuple[int, int]:
    first, last = (node[0], node[-1]) if isinstance(node, list) else (node, node)
    lines = source.splitlines(keepends=True)

    def index(line: int, column: int) -> int:
        # The column offsets of `ast` count bytes, not characters.
        return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())

    if not hasattr(first, "lineno"):
        return 0, 0
    return index(first.lineno, first.col_offset), index(last.end_lineno, last.end_col_offset)


def _replace(root: ast.AST, old: Old, new: ast.AST) -> ast.AST:
    """Return a copy of a syntax tree in which a node or a block of statements is replaced."""
    if root is old:
        return new
    changed = copy.copy(root)
    for name, value in ast.iter_fields(root):
        if value is old:
            setattr(changed, name, [new] if isinstance(old, list) else new)
        elif isinstance(value, ast.AST):
            setattr(changed, name, _replace(value, old, new))
        elif isinstance(value, list):
            setattr(changed, name, [_replace(item, old, new) if isinstance(item, ast.AST) else item for item in value])
    return changed


def _coverage_needed(change: Change, location: Location) -> tuple[frozenset[int], frozenset[str]]:
    """Return the lines that a test must cover to find a change, and the names that these lines assign at import."""
    if isinstance(change.old, list):
        return frozenset(range(change.old[0].lineno, change.old[-1].end_lineno + 1)), frozenset()
    statement: Any = location.statement
    body = getattr(statement, "body", None)
    if location.at_import and isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        # A changed decorator or default argument has an effect only when the function is called.
        return frozenset(range(statement.body[0].lineno, (statement.end_lineno or 0) + 1)), frozenset()
    end = max(statement.lineno + 1, body[0].lineno) if body else statement.end_lineno + 1
    names: frozenset[str] = frozenset()
    if location.at_import:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        names = frozenset(target.id for target in targets if isinstance(target, ast.Name))
    return frozenset(range(statement.lineno, end)), names
