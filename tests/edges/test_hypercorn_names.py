"""The list of names of hypercorn, h11, wsproto, quart-trio and trio that we use is complete and correct, and each of its tests exists."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import kafka_chat.web.server

TESTS = Path(__file__).parents[1]
WEB = Path(kafka_chat.web.server.__file__).parents[1]
FOREIGN = ("hypercorn", "h11", "wsproto", "quart_trio")
ASGI = "hypercorn.typing"  # may be named outside of web/server, where types are checked


def listed() -> list[tuple[str, str, str, str]]:
    """Module, name, the rest of its line, test."""
    found = []
    module = ""
    for line in (kafka_chat.web.server.__doc__ or "").partition("says.\n")[2].splitlines():
        if (entry := re.fullmatch(r"    ([\w, ]+): (.+) \[([\w/]+)\]", line)) is not None:
            found += [(module, name, entry[2], entry[3]) for name in entry[1].split(", ")]
        elif re.fullmatch(r"[\w.]+", line):
            module = line
        else:
            assert line == "", f"this line is none of the list: {line}"
    return found


LISTED = listed()


def trees(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def foreign_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of all that a file imports of them, or asks a module of theirs for."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and str(node.module).split(".")[0] in FOREIGN:
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            modules |= {alias.name: alias.name for alias in node.names if alias.name.split(".")[0] in FOREIGN}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (module := ast.unparse(node.value)) in modules:
            yield module, node.attr


def private_names(tree: ast.Module) -> Iterator[str]:
    """The private attributes of what is not the object itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr) and ast.unparse(node.value) not in ("self", "cls"):
            yield node.attr


def test_every_name_that_is_imported_is_in_the_list_and_nothing_else_is():
    used = {name for path, tree in trees(WEB) for name in foreign_names(tree) if path.is_relative_to(WEB / "server") or name[0] != ASGI}
    of_ours = {(module, name) for module, name, _, _ in LISTED if module.split(".")[0] in FOREIGN and not name.startswith("_")}
    modules = {module for module, _ in used}
    assert {(module, name) for module, name in used if f"{module}.{name}" not in modules} == of_ours


def test_hypercorn_h11_and_wsproto_are_imported_in_this_folder_alone_but_for_the_types_of_asgi():
    elsewhere = {
        (path.relative_to(WEB.parent).as_posix(), module)
        for path, tree in trees(WEB.parent)
        if not path.is_relative_to(WEB / "server")
        for module, _ in foreign_names(tree)
    }
    elsewhere.discard(("issuers/fetch.py", "h11"))  # it is a client of HTTP, and uses h11's public names only
    assert {module for _, module in elsewhere if not module.startswith("quart_trio")} == {ASGI}


def test_every_private_name_of_theirs_that_is_touched_is_in_the_list():
    touched = {name for _, tree in trees(WEB) for name in private_names(tree)}
    words = {word for _, name, rest, _ in LISTED for word in re.findall(r"\w+", f"{name} {rest}")}
    assert len(touched) > 5
    assert touched <= words


def test_every_name_of_the_list_is_in_what_is_installed():
    for module, name, _, _ in LISTED:
        if name.startswith("_"):
            continue  # an attribute that an instance has; its test makes one
        assert hasattr(importlib.import_module(module), name), (module, name)


def test_every_test_of_the_list_is_there():
    assert len(LISTED) > 60
    for _, name, _, test in LISTED:
        assert (TESTS / f"{test}.py").is_file(), (name, test)
