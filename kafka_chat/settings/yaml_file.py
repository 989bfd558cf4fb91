"""Reads a configuration file into dotted keys with line numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from ..errors import SettingsError
from .file_contents import contents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_BYTES = 1 << 20  # a hundred times what all settings take
PIPE_SECONDS = 10.0  # for what writes to a pipe: the output of a command that fetches secrets may take a while
DEPTH = 8  # more than any setting needs; an alias may contain itself

_SCALARS = {"tag:yaml.org,2002:" + kind for kind in ("null", "bool", "int", "float", "str", "timestamp")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A plain value, both parsed and as written.

    Attributes:
        value: None, a bool, an int, a float or a str.
        text: the text in the file, without quotes.
    """

    value: bool | float | str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key of the file.

    Attributes:
        key: the names of its mappings and its own name, joined by dots.
        line: its line number, from 1.
        value: a scalar, a list of scalars, or None for an empty mapping.
    """

    key: str
    line: int
    value: Scalar | tuple[Scalar, ...] | None


def read_config_file(path: Path) -> list[Entry]:
    """Return the entries of a YAML file, in order.

    An error names file and line but never quotes the file, which may contain a password.

    Raises:
        SettingsError: it cannot be read, is too large, is not YAML, is not a mapping, or has a key twice.
    """
    try:
        text = contents(path, MOST_BYTES, seconds=PIPE_SECONDS).decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise SettingsError(f"{_where(path, error)}: {_problem(error, text)}") from error
    except RecursionError as error:
        raise SettingsError(f"{path} is nested too deeply; settings need at most {DEPTH} levels") from error
    except yaml.YAMLError as error:  # an invalid character; YAML's message would quote it
        raise SettingsError(f"{path} has a control character, which YAML does not allow") from error
    entries: dict[str, Entry] = {}
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise SettingsError(f"{path}, line {root.start_mark.line + 1}: sections such as `server:` with their keys under them are needed")
    for entry in _entries(path, loader, root, prefix="", depth=0):
        if entry.key in entries:
            raise SettingsError(f"{path}, line {entry.line}: {entry.key} is set twice; first on line {entries[entry.key].line}")
        entries[entry.key] = entry
    return list(entries.values())


def _entries(path: Path, loader: yaml.SafeLoader, mapping: yaml.MappingNode, *, prefix: str, depth: int) -> Iterator[Entry]:
    """Yield the keys of a mapping and of its nested mappings."""
    seen: dict[str, int] = {}
    for name, node in mapping.value:
        line = name.start_mark.line + 1
        if not isinstance(name, yaml.ScalarNode):
            raise SettingsError(f"{path}, line {line}: a key is a name, not a list or a mapping")
        key = prefix + name.value
        if name.value in seen:
            raise SettingsError(f"{path}, line {line}: {key} is set twice; first on line {seen[name.value]}")
        seen[name.value] = line
        if isinstance(node, yaml.MappingNode) and node.value:
            if depth == DEPTH:
                raise SettingsError(f"{path}, line {line}: {key} is too deep; a section and its keys are needed")
            yield from _entries(path, loader, node, prefix=key + ".", depth=depth + 1)
        else:
            yield Entry(key=key, line=line, value=_value(path, loader, node, key))


def _value(path: Path, loader: yaml.SafeLoader, node: yaml.Node, key: str) -> Scalar | tuple[Scalar, ...] | None:
    """Return a scalar or a list of them; None for an empty mapping."""
    if isinstance(node, yaml.MappingNode):
        return None
    if isinstance(node, yaml.SequenceNode):
        return tuple(_scalar(path, loader, item, key) for item in node.value)
    return _scalar(path, loader, node, key)


def _scalar(path: Path, loader: yaml.SafeLoader, node: yaml.Node, key: str) -> Scalar:
    """Return a plain value."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
        raise SettingsError(f"{path}, line {node.start_mark.line + 1}: {key} has a value that is not plain text, a number, true or false")
    if node.tag.endswith((":str", ":timestamp")):
        return Scalar(value=node.value, text=node.value)
    try:
        return Scalar(value=loader.construct_object(node), text=node.value)
    except (ValueError, KeyError):  # an explicit `!!int x`
        return Scalar(value=node.value, text=node.value)


def _where(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark is not None else str(path)


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    """Return YAML's error without its quotations from the file."""
    mark = error.problem_mark
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        return "a tab, where YAML needs spaces"
    problem = re.sub(r"\s*(['\"]).*\1", "", error.problem or "", flags=re.DOTALL)
    if problem in ("", "expected"):  # the rest was a quotation
        problem = "something is missing before this"
    return f"this is not YAML ({problem}); text with special characters needs quotes"
