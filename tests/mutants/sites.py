"""All small changes that `make mutants` may make to a file, each of which a test should notice."""

from __future__ import annotations

import ast
import copy
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change: the bytes from `start` to `end` of the file become `changed`."""

    path: str
    function: str
    lines: range  # of the statement up to the end of what changes
    start: int
    end: int
    changed: bytes
    before: str  # the line, or the lines in one
    after: str
    ordinal: int  # among those of the function that read the same

    def place(self, seed: int) -> bytes:
        """Return where it stands in the draw of a seed; a change elsewhere, even in the same file, does not move it."""
        return hashlib.sha256(repr((seed, self.function, self.before, self.after, self.ordinal)).encode()).digest()

    def applied(self, source: bytes) -> bytes:
        """Return the file with the change."""
        return source[: self.start] + self.changed + source[self.end :]

    def __str__(self) -> str:
        again = f" ({self.ordinal})" if self.ordinal > 1 else ""
        return f"{self.path} {self.function}{again}\n- {self.before}\n+ {self.after}"


def mutants_of(path: str, source: bytes) -> Iterator[Mutant]:
    """Yield all mutants of a file, in the order of its lines."""
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    seen: Counter[tuple[str, str, str]] = Counter()
    for function, statement, node, changed in _walk(ast.parse(source), "", None):
        start, end = begins[node.lineno - 1] + node.col_offset, begins[node.end_lineno - 1] + node.end_col_offset
        first, last = begins[node.lineno - 1], begins[node.end_lineno]
        before = _in_one_line(source[first:last])
        after = _in_one_line(source[first:start] + changed.encode() + source[end:last])
        seen[function, before, after] += 1
        yield Mutant(
            path=path,
            function=function,
            lines=range(min(statement.lineno, node.lineno), node.end_lineno + 1),
            start=start,
            end=end,
            changed=changed.encode(),
            before=before,
            after=after,
            ordinal=seen[function, before, after],
        )


def _walk(node: ast.AST, function: str, statement: ast.stmt | None) -> Iterator[tuple[str, ast.stmt, ast.expr | ast.stmt, str]]:
    """Yield what may change: the function it is in, its statement, its node, and what the node becomes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".lstrip(".")
    if isinstance(node, ast.stmt):
        statement = node
    if isinstance(node, ast.expr | ast.stmt) and statement is not None:
        for changed in _changes(node):
            yield function or "(module)", statement, node, changed
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        return  # Python 3.11 does not know where in the file the parts of an f-string are
    for name, value in ast.iter_fields(node):
        if name not in {"annotation", "returns"}:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _walk(child, function, statement)


def _changes(node: ast.expr | ast.stmt) -> Iterator[str]:
    match node:
        case ast.Compare():
            for index, comparison in enumerate(node.ops):
                changed = copy.deepcopy(node)
                changed.ops[index] = COMPARISONS[type(comparison)]()
                yield ast.unparse(changed)
        case ast.BoolOp(op, values):
            yield ast.unparse(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values))
        case ast.BinOp(left, ast.Add() | ast.Sub() as op, right) if not (_is_text(left) or _is_text(right)):
            yield ast.unparse(ast.BinOp(left, ast.Sub() if isinstance(op, ast.Add) else ast.Add(), right))
        case ast.AugAssign(target, ast.Add() | ast.Sub() as op, value) if not _is_text(value):
            yield ast.unparse(ast.AugAssign(target, ast.Sub() if isinstance(op, ast.Add) else ast.Add(), value))
        case ast.Constant(int() | float() as value) if not isinstance(value, bool):
            yield repr(value + 1)
        case ast.Expr(ast.Call() | ast.Await(ast.Call())):
            yield "pass"
        case ast.Return(ast.Constant(bool() as value)):
            yield f"return {not value}"
        case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None"


def _in_one_line(lines: bytes) -> str:
    """Return the lines without their comments, which `ruff format` has put behind two spaces."""
    return " ".join(re.sub(r"  # .*", "", lines.decode()).split())


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))
