"""What a distribution imports when it runs, on a Python that need not be the one that is here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Version = tuple[int, int]

EXTRAS = frozenset({"auth"})  # of the distribution itself: what it imports where that is installed

# What `sys.stdlib_module_names` of one Python does not say of the others (PEP 594, 632, 749, 784).
_GONE = {
    (3, 12): {"asynchat", "asyncore", "distutils", "imp", "smtpd"},
    (3, 13): {
        *("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev"),
        *("pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
    },
}
_CONSTANT = (  # what an expression is made of that is the same whenever it is evaluated
    *(ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Set, ast.Constant),
    *(ast.boolop, ast.unaryop, ast.cmpop, ast.expr_context),
)
_NEW = {(3, 14): {"annotationlib", "compression"}}


@dataclass(frozen=True, slots=True)
class Import:
    """One import that is executed.

    Attributes:
        importer: the module that has it.
        line: in its file.
        module: what is imported.
    """

    importer: str
    line: int
    module: str


def requirements(name: str, python: Version, *, left_out: Sequence[str] = ()) -> tuple[set[str], set[str]]:
    """Return what an installation of `name` brings: its own requirements, and all with theirs.

    Args:
        name: of an installed distribution.
        python: markers are evaluated for this one, on Linux.
        left_out: requirements of `name` that are taken for undeclared.
    """
    required = _required(name, EXTRAS, python)
    direct = {one for one, _ in required} - {canonicalize_name(one) for one in left_out}
    todo = [one for one in required if one[0] in direct]
    everything: set[tuple[str, frozenset[str]]] = set()
    while todo:
        one = todo.pop()
        if one not in everything:
            everything.add(one)
            todo += _required(*one, python)
    return direct, {one for one, _ in everything}


def environment_of(python: Version) -> dict[str, str]:
    """Return what environment markers are evaluated with, for this Python."""
    major, minor = python
    version = f"{major}.{minor}"
    return {**default_environment(), "python_version": version, "python_full_version": f"{version}.0", "extra": ""}


def undeclared(package: str, distribution: str, python: Version, *, left_out: Sequence[str] = ()) -> list[Import]:
    """Return the imports that fail in an environment that has nothing but what `distribution` requires.

    Walked is what importing `package` and each of its modules executes; of the package itself also what is imported within
    functions. What an `except ImportError` makes up for is no finding.

    Args:
        package: is importable here, and so is all that it requires.
        distribution: its name in the metadata.
        python: for that version.
        left_out: requirements that are taken for undeclared.
    """
    direct, brought = requirements(distribution, python, left_out=left_out)
    walk = _Walk(python, {package: {distribution}, **_owners()}, brought | {canonicalize_name(distribution)})
    root = _file_of(package)
    assert root is not None
    found: list[Import] = []
    todo = [_module_of(package, file, root.parent) for file in sorted(root.parent.rglob("*.py"))]
    seen = set(todo)
    while todo:
        module = todo.pop()
        ours = module.partition(".")[0] == package
        for one in walk.imports(module, in_functions=ours):
            top = one.module.partition(".")[0]
            owners = walk.owners(top)
            if not walk.is_there(one.module) or (ours and owners and top != package and not owners & direct):
                found.append(one)
            elif owners:
                parts = one.module.split(".")
                parents = {".".join(parts[:end]) for end in range(1, len(parts) + 1)} - seen
                seen |= parents
                todo += parents
    return found


def _required(name: str, extras: frozenset[str], python: Version) -> list[tuple[str, frozenset[str]]]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # of another Python; what it requires in turn is unknown here
        return []
    environment = environment_of(python)
    found = []
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)):
            found.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


class _Walk:
    """Reads modules for one Python, in an environment that has some distributions.

    Args:
        python: the version.
        owned: top-level module -> names of the distributions that have it.
        brought: names of the distributions that are there.
    """

    def __init__(self, python: Version, owned: Mapping[str, Sequence[str] | set[str]], brought: set[str]) -> None:
        self._owned = {top: {canonicalize_name(owner) for owner in owners} for top, owners in owned.items()}
        self._brought = brought
        self._newer = python >= sys.version_info[:2]
        gone = set().union(*(names for version, names in _GONE.items() if version <= python))
        back = set().union(*(names for version, names in _GONE.items() if version > python))
        new = set().union(*(names for version, names in _NEW.items() if version <= python))
        self._standard = (set(sys.stdlib_module_names) | back | new) - gone
        typing = SimpleNamespace(TYPE_CHECKING=False)
        hexversion = python[0] << 24 | python[1] << 16
        self._known = {
            "hexversion": hexversion,
            "sys": SimpleNamespace(
                version_info=(*python, 0, "final", 0),
                hexversion=hexversion,
                platform="linux",
                implementation=SimpleNamespace(name="cpython"),
            ),
            "os": SimpleNamespace(name="posix"),
            "TYPE_CHECKING": False,
            "typing": typing,
            "t": typing,
            "__name__": "imported",
        }

    def owners(self, top: str) -> set[str]:
        """Return the distributions that have a top-level module; none for the standard library's."""
        return set() if top in self._standard else self._owned.get(top, set())

    def is_there(self, module: str) -> bool:
        """Return whether a module can be imported."""
        top = module.partition(".")[0]
        return top in self._standard or bool(self.owners(top) & self._brought)

    def imports(self, module: str, *, in_functions: bool) -> Iterator[Import]:
        """Yield what a module imports; nothing for one that is no Python source."""
        file = _file_of(module)
        if file is not None:
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            yield from self._executed(_parsed(file).body, dict(self._known), module, package, in_functions=in_functions)

    def _executed(
        self, body: Sequence[ast.stmt], known: dict[str, object], module: str, package: str, *, in_functions: bool
    ) -> Iterator[Import]:
        def executed(inner: Sequence[ast.stmt]) -> Iterator[Import]:
            return self._executed(inner, known, module, package, in_functions=in_functions)

        for statement in body:
            match statement:
                case ast.Import(names=names):
                    yield from (Import(module, statement.lineno, name.name) for name in names)
                case ast.ImportFrom():
                    for imported in _imported_from(statement, package):
                        yield Import(module, statement.lineno, imported)
                case ast.If(test=test, body=then, orelse=otherwise):
                    holds = _value(test, known)
                    yield from executed([*(then if holds in (True, None) else ()), *(otherwise if holds in (False, None) else ())])
                case ast.Try(handlers=handlers) if any(_catches_import_error(handler) for handler in handlers):
                    tried = list(executed(statement.body))
                    if all(map(self.is_there, (one.module for one in tried))) and self._has_names(statement.body):
                        yield from tried
                        yield from executed([*statement.orelse, *statement.finalbody])
                    else:
                        yield from executed([inner for handler in handlers for inner in handler.body])
                        yield from executed(statement.finalbody)
                case ast.Try():
                    yield from executed([*statement.body, *(inner for handler in statement.handlers for inner in handler.body)])
                    yield from executed([*statement.orelse, *statement.finalbody])
                case ast.FunctionDef() | ast.AsyncFunctionDef() if in_functions:
                    yield from executed(statement.body)
                case ast.ClassDef() | ast.With() | ast.AsyncWith() | ast.For() | ast.While():
                    yield from executed(statement.body)
                case ast.Assign(targets=[ast.Name(id=name)], value=(ast.Compare() | ast.BoolOp()) as value) if (
                    constant := _value(value, known)
                ) is not None:
                    known[name] = constant

    def _has_names(self, body: Sequence[ast.stmt]) -> bool:
        """Return whether the standard library has the names that are imported from it."""
        for statement in body:
            if isinstance(statement, ast.ImportFrom) and not statement.level and (statement.module or "") in self._standard:
                has = vars(import_module(statement.module or ""))
                if not all(self._newer and name.name in has for name in statement.names):
                    return False
        return True


def _imported_from(statement: ast.ImportFrom, package: str) -> Iterator[str]:
    """Yield the module that names come from, and those names that are modules in it."""
    base = statement.module or ""
    if statement.level:
        parents = package.split(".")
        base = ".".join([*parents[: len(parents) - statement.level + 1], *filter(None, [base])])
    yield base
    for name in statement.names:
        if base.partition(".")[0] not in sys.stdlib_module_names and _file_of(f"{base}.{name.name}") is not None:
            yield f"{base}.{name.name}"


def _value(expression: ast.expr, known: dict[str, object]) -> bool | None:
    """Return what a condition is, as far as the version and the platform decide it; None where something else does."""
    if not all(isinstance(node, _CONSTANT) for node in ast.walk(expression)):
        return None
    try:
        value = eval(compile(ast.Expression(expression), "a condition", "eval"), {"__builtins__": {}}, known)
    except (NameError, AttributeError, TypeError, LookupError):
        return None
    return value if isinstance(value, bool) else None


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
    return handler.type is None or bool(names & {"ImportError", "ModuleNotFoundError", "Exception"})


@cache
def _owners() -> Mapping[str, Sequence[str]]:
    return metadata.packages_distributions()


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


@cache
def _file_of(module: str) -> Path | None:
    """Return the source of a module that is importable here; None for an extension, a namespace or what is not there."""
    relative = Path(*module.split("."))
    for folder in map(Path, sys.path):
        for file in (folder / relative / "__init__.py", folder / relative.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def _module_of(package: str, file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])
