"""Loads settings from a file, then the environment, then flags; an error is one sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import inspect

from ..errors import SettingsError
from .checks import DEFAULT, checked, refuse_properties, shown
from .kafka_properties import MASK, is_secret, property_name, refusal
from .keys import FIELDS, MAPPINGS, TEXTS, all_sections, annotation_of, in_mapping, keys, keys_in, listed, nearest, path_of, sections
from .model import Settings
from .yaml_file import Entry, Scalar, read_config_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .kafka_properties import PropertyProblem

DEFAULT_FILE = Path("config.yaml")
_KUBERNETES = "tcp://"  # for a Service named kafka-chat-server it sets KAFKA_CHAT_SERVER_PORT=tcp://10.0.0.1:8001
ENVIRONMENT_PREFIX = "KAFKA_CHAT_"
FLAGS = {
    "server.host": "--host",
    "server.port": "--port",
    "server.workers": "--workers",
    "kafka.embedded": "--embedded",
    "kafka.bootstrap_servers": "--bootstrap",
}

NAME_A_BROKER = f"name one by --bootstrap HOST:PORT, {ENVIRONMENT_PREFIX}KAFKA__BOOTSTRAP_SERVERS, or config.yaml"

_PROPERTIES = "kafka.properties"
_PROPERTY = _PROPERTIES + "."
_FILES = "kafka.property_files"
FILE_BYTES = 1 << 16  # of a property's value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A value from one source.

    Attributes:
        source: its source, for an error: `config.yaml, line 3`, `KAFKA_CHAT_SERVER__PORT`, `--port`.
        value: None, a bool, a number, a string or a list of strings.
        is_text: whether the source has only strings, which may stand for a value of any type.
        shown: the value as written, for an error.
    """

    source: str
    value: object
    is_text: bool
    shown: str


def load_settings(
    *,
    config_file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    check_properties: Callable[[Mapping[str, str]], PropertyProblem | None] | None = None,
) -> Settings:
    """Return the settings: defaults, changed by the file, then by the environment, then by flags.

    Args:
        config_file: must exist; None for `config.yaml` in the working directory, if it exists.
        environ: our names begin with `KAFKA_CHAT_` and contain `__`; similar ones are refused.
        flags: by key (`server.port`); see `FLAGS`.
        check_properties: returns librdkafka's problem with `kafka.properties`, or None.

    Raises:
        SettingsError: one sentence with key, value, source, and what is allowed.
    """
    given: dict[str, _Given] = {}
    given.update(_from_file(config_file))
    given.update(_from_environment(environ))
    given.update(_from_flags(flags, given))

    given.update(_from_property_files(given))

    def source(key: str) -> str:
        """Return where a setting came from, or the first of those under it."""
        return next((one.source for known, one in given.items() if known == key or known.startswith(key + ".")), DEFAULT)

    settings = checked(_built(given), source)
    if check_properties is not None:
        refuse_properties(settings.kafka.properties, source, check_properties)
    return settings


def with_embedded_broker(settings: Settings) -> Settings:
    """Return `settings` with the embedded broker.

    Raises:
        SettingsError: they name another broker.
    """
    embedded = msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, embedded=True))
    return checked(embedded, lambda _: "no broker is named, so the embedded one is used")


def variable(key: str) -> str:
    """Return the environment variable of a key: `KAFKA_CHAT_SERVER__PORT` for `server.port`."""
    return ENVIRONMENT_PREFIX + key.replace(".", "__").upper()


# Three sources


def _from_file(path: Path | None) -> Iterator[tuple[str, _Given]]:
    if path is None:
        path = DEFAULT_FILE
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:  # it may exist, and without it we might use the wrong brokers
            raise SettingsError(
                f"{path} cannot be looked up here: {error.strerror}; start in a folder that this user may search, or name "
                "a file with --config"
            ) from error
    for entry in read_config_file(path):
        source = f"{path}, line {entry.line}"
        if entry.key in sections() or entry.key in MAPPINGS:
            if entry.value is None or (isinstance(entry.value, Scalar) and entry.value.value is None):
                continue  # all that is in it is commented out
            inside = _INSIDE.get(entry.key) or f"the keys {listed(keys_in(entry.key))}"
            raise SettingsError(f"{source}: {entry.key} has a value; {inside} are needed under it")
        yield _known(entry.key, source), _from_entry(entry, source)


def _from_entry(entry: Entry, source: str) -> _Given:
    """Return a value of the file; text where text is wanted, however YAML understood it (a password may be `0123`)."""
    kind = inspect.type_info(annotation_of(entry.key))
    wants_text = any(isinstance(part, inspect.StrType | inspect.VarTupleType) for part in _parts(kind))
    if isinstance(entry.value, tuple):
        return _Given(
            source=source,
            value=[_text_or_value(item, wants_text=wants_text) for item in entry.value],
            is_text=False,
            shown="[" + ", ".join(item.text for item in entry.value) + "]",
        )
    if entry.value is None:
        return _Given(source=source, value={}, is_text=False, shown="{}")
    value = _text_or_value(entry.value, wants_text=wants_text)
    if entry.key.startswith(_PROPERTY) and isinstance(value, bool):
        value = str(value).lower()
    return _Given(
        source=source, value=value, is_text=False, shown=shown(value) if isinstance(value, str) else entry.value.text or "nothing"
    )


def _text_or_value(scalar: Scalar, *, wants_text: bool) -> object:
    is_number = isinstance(scalar.value, int | float) and not isinstance(scalar.value, bool)
    return scalar.text if wants_text and is_number else scalar.value


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, _Given]]:
    by_variable = {variable(key): key for key in keys()}
    prefixes = {variable(mapping) + "__": mapping for mapping in MAPPINGS}
    misspelt = {name.replace("__", "_"): name for name in by_variable}
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        text = environ[name]
        if "__" not in name:
            if name in misspelt and not text.startswith(_KUBERNETES):
                raise SettingsError(f"{name}: there is no such setting; did you mean {misspelt[name]}?")
            continue
        prefix = next((known for known in prefixes if name.startswith(known) and name != known), None)
        key = by_variable.get(name) if prefix is None else _key_in_mapping(prefixes[prefix], name.removeprefix(prefix))
        if key in MAPPINGS:
            raise SettingsError(f"{name}: each {_NAMED[key]} has its own variable, such as {variable(key)}__{_EXAMPLE[key]}")
        if key is not None and annotation_of(key) is not None:
            yield key, _from_text(text, name)
        else:
            near = nearest(name.removeprefix(ENVIRONMENT_PREFIX).strip("_").replace("__", ".").lower())
            hint = f"did you mean {variable(near)}?" if near else f"see {all_sections()}"
            raise SettingsError(f"{name}: there is no such setting; {hint}")


def _key_in_mapping(mapping: str, name: str) -> str:
    """Return the key of a variable whose name goes on, behind that of a mapping, with `name`."""
    if mapping in TEXTS:
        return f"{mapping}.{property_name(name)}"
    entry, _, field = name.lower().rpartition("__")
    return f"{mapping}.{entry}.{field}"


def _from_property_files(given: Mapping[str, _Given]) -> Iterator[tuple[str, _Given]]:
    """Yield the properties whose values are in files."""
    for key, one in tuple(given.items()):
        mapping, name, _ = in_mapping(key)
        if mapping != _FILES:
            continue
        if _PROPERTY + name in given:
            raise SettingsError(
                f"{one.source}: {key} is set, and so is {_PROPERTY}{name} ({given[_PROPERTY + name].source}); set only one of them"
            )
        path = Path(str(one.value))
        try:
            with path.open("rb") as file:
                content = file.read(FILE_BYTES + 1)
            text = content.decode()
        except (OSError, ValueError) as error:  # no UTF-8, or a name with a zero byte
            why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise SettingsError(f"{one.source}: {key} is {one.shown}, which cannot be read: {why}") from error
        if len(content) > FILE_BYTES:
            raise SettingsError(f"{one.source}: {key} is {one.shown}, which has over {FILE_BYTES} bytes")
        value = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
        yield _PROPERTY + name, _Given(source=f"{path}, named by {one.source}", value=value, is_text=False, shown=MASK)


def _from_flags(flags: Mapping[str, object], lower: Mapping[str, _Given]) -> Iterator[tuple[str, _Given]]:
    """Yield the flags; a broker named by a flag replaces one of the other kind from the file or the environment."""
    for key, value in flags.items():
        yield key, _from_text(value, FLAGS[key]) if isinstance(value, str) else _plain(value=value, source=FLAGS[key])
    if "kafka.bootstrap_servers" in flags and "kafka.embedded" in lower and "kafka.embedded" not in flags:
        yield "kafka.embedded", _plain(value=False, source=FLAGS["kafka.bootstrap_servers"])
    if flags.get("kafka.embedded") and "kafka.bootstrap_servers" in lower and "kafka.bootstrap_servers" not in flags:
        yield "kafka.bootstrap_servers", _plain(value=None, source=FLAGS["kafka.embedded"])


def _from_text(text: str, source: str) -> _Given:
    return _Given(source=source, value=text, is_text=True, shown=shown(text))


def _plain(*, value: object, source: str) -> _Given:
    return _Given(source=source, value=value, is_text=False, shown=json.dumps(value))


_INSIDE = {
    _PROPERTIES: "librdkafka's properties",
    _FILES: "librdkafka's properties, each with a file,",
    "auth.issuers": "names, each with its keys,",
    "auth.roles": "names of roles, each with its rights,",
}
_NAMED = {_PROPERTIES: "property", _FILES: "property", "auth.issuers": "key of an issuer", "auth.roles": "right of a role"}
_EXAMPLE = {_PROPERTIES: "SASL_PASSWORD", _FILES: "SASL_PASSWORD", "auth.issuers": "MAIN__JWKS_URL", "auth.roles": "STAFF__READ"}


# From what was given to Settings


def _built(given: Mapping[str, _Given]) -> Settings:
    """Return the settings, each value converted to its type by itself, so that an error has its source."""
    found: dict[str, Any] = {}
    for key, one in given.items():
        *objects, name = path_of(key)
        inside = found
        for part in objects:
            inside = inside.setdefault(part, {})
        inside[name] = _property(name, one) if in_mapping(key)[0] == _PROPERTIES else _converted(key, one)
    return msgspec.convert(found, Settings)


def _converted(key: str, one: _Given) -> object:
    """Return a value in its setting's type."""
    annotation = annotation_of(key)
    kind = inspect.type_info(annotation)
    value = one.value
    if one.is_text:
        text = cast("str", value).strip()
        optional = isinstance(kind, inspect.UnionType)
        takes_list = any(isinstance(part, inspect.VarTupleType) for part in _parts(kind))
        value = [item.strip() for item in text.split(",") if text] if takes_list else text
        if optional and text.lower() in ("", "null"):
            value = None
    try:
        return msgspec.convert(value, annotation, strict=not one.is_text)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: bytes that are no UTF-8
        raise SettingsError(f"{one.source}: {key} is {one.shown}; {_allowed(kind, is_text=one.is_text)} is needed") from error


def _property(name: str, one: _Given) -> str:
    """Return the value of a librdkafka property."""
    if reason := refusal(name):
        raise SettingsError(f"{one.source}: {_PROPERTIES} may not set {name}: {reason}")
    if not isinstance(one.value, str) or "\0" in one.value:
        value = MASK if is_secret(name) else one.shown
        raise SettingsError(f"{one.source}: {_PROPERTY}{name} is {value}; text, a number, true or false is needed")
    return one.value


def _known(key: str, source: str) -> str:
    """Return `key` if there is such a setting. What is set to it is not shown: it may be a password in the wrong place."""
    if annotation_of(key) is not None:
        return key
    mapping, name, field = in_mapping(key)
    if mapping in FIELDS and not name:
        fields = listed(keys_in(f"{mapping}.{field}"))
        raise SettingsError(f"{source}: under {key} keys are needed, of {fields}")
    if (near := nearest(key)) is not None:
        raise SettingsError(f"{source}: there is no setting {key}; did you mean {near}?")
    section = f"{mapping}.{name}" if mapping in FIELDS else key.partition(".")[0]
    inside = f"{section} has {listed(keys_in(section))}" if keys_in(section) else f"see {all_sections()}"
    if "." in key and (section == "kafka" or not keys_in(section)):
        inside += f"; librdkafka's properties go under {_PROPERTIES}"
    raise SettingsError(f"{source}: there is no setting {key}; {inside}")


# Words


def _parts(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """Return the types of a union, or the type itself."""
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _allowed(kind: inspect.Type, *, is_text: bool) -> str:
    """Return in words which values a setting of this type may have."""
    match kind:
        case inspect.UnionType():
            rest = next(part for part in kind.types if not isinstance(part, inspect.NoneType))
            return _allowed(rest, is_text=is_text) + ", or nothing,"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=low, le=high):
            return f"a whole number {_between(low, high)}"
        case inspect.FloatType(le=high):
            return f"a number above 0 and at most {high:g}"
        case inspect.LiteralType(values=values):
            *others, last = map(str, values)
            return f"{', '.join(others)} or {last}"
        case inspect.VarTupleType():
            return "text, or several separated by commas," if is_text else "a list of strings, such as [one, two],"
        case inspect.StrType(max_length=longest, pattern=pattern) if pattern is not None:
            return f"a name of 1 to {longest} of the characters A-Z a-z 0-9 . _ -"
        case _:
            return "text"


def _between(low: int | None, high: int | None) -> str:
    return f"from {low} to {high}" if high is not None else f"from {low}"
