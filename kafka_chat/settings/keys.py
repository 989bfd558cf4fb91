"""The keys of all settings: `server.port`, `auth.issuers.main.audience`, `kafka.properties.sasl.mechanism`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import msgspec
from msgspec import inspect

from .model import IssuerSettings, RoleSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

# Settings that are mappings, whose names are the operator's (or librdkafka's): under each name a text, or fields.
TEXTS = ("kafka.properties", "kafka.property_files")
FIELDS: dict[str, type[msgspec.Struct]] = {"auth.issuers": IssuerSettings, "auth.roles": RoleSettings}
MAPPINGS = (*TEXTS, *FIELDS)


def keys() -> dict[str, inspect.Type]:
    """Return every key with its type; a mapping stands for everything in it."""
    return {key: inspect.type_info(annotation) for key, annotation in _annotations("", Settings)}


def sections() -> set[str]:
    """Return the keys that contain other keys and are not mappings."""
    return {key.rpartition(".")[0] for key in keys()}


def annotation_of(key: str) -> object:
    """Return the annotated type of a setting; None if there is no such setting, or for a mapping itself."""
    mapping, name, field = in_mapping(key)
    if mapping in TEXTS:
        return str if name else None
    if mapping in FIELDS:
        return next((one.type for one in msgspec.structs.fields(FIELDS[mapping]) if name and one.name == field), None)
    return dict(_annotations("", Settings)).get(key)


def in_mapping(key: str) -> tuple[str, str, str]:
    """Return the mapping that a key is in, the name in it, and the field below that; empty strings if there is none."""
    for mapping in MAPPINGS:
        rest = key.removeprefix(mapping + ".") if key != mapping else ""
        if rest == key:
            continue
        if mapping in TEXTS:
            return mapping, rest, ""
        name, _, field = rest.rpartition(".")
        return mapping, name, field
    return "", "", ""


def path_of(key: str) -> list[str]:
    """Return a key's parts; a name in a mapping may contain dots."""
    mapping, name, field = in_mapping(key)
    return [*mapping.split("."), name, *([field] if field else [])] if mapping else key.split(".")


def keys_in(section: str) -> list[str]:
    """Return the keys directly below a section, a mapping, or a name in one."""
    mapping, name, _ = in_mapping(section + ".")
    if mapping in FIELDS and name:
        return [one.name for one in msgspec.structs.fields(FIELDS[mapping])]
    return [key.removeprefix(section + ".") for key in keys() if section and key.startswith(section + ".")]


def nearest(key: str) -> str | None:
    """Return the key that was probably meant: one with the same or a similar name, in any section."""
    section, _, name = key.rpartition(".")
    inside = get_close_matches(name, keys_in(section), n=1, cutoff=0.6)
    if inside:
        return f"{section}.{inside[0]}"
    named = [known for known in keys() if known.endswith("." + name)]
    near = get_close_matches(key, named, n=1, cutoff=0) or get_close_matches(key, keys(), n=1, cutoff=0.8)
    return next(iter(near), None)


def listed(names: Iterable[str]) -> str:
    """Return names as a list in a sentence."""
    return ", ".join(names)


def all_sections() -> str:
    """Return all sections as a list in a sentence."""
    return "the sections " + listed(section.name for section in msgspec.structs.fields(Settings))


def _annotations(prefix: str, kind: type[msgspec.Struct]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for field in msgspec.structs.fields(kind):
        key = prefix + field.name
        if key not in MAPPINGS and isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found += _annotations(key + ".", field.type)
        else:
            found.append((key, field.type))
    return found
