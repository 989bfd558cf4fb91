"""Installing the package installs everything that it imports, on each supported Python."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.core.imports import Version, environment_of, requirements, undeclared

PYTHONS: list[Version] = [(3, 11), (3, 12), (3, 13), (3, 14)]


def test_these_are_the_pythons_that_it_is_for():
    allowed = SpecifierSet(metadata.metadata("kafka-chat")["Requires-Python"])
    assert [minor for minor in range(15) if f"3.{minor}" in allowed] == [minor for _, minor in PYTHONS]
    assert sys.version_info[:2] in PYTHONS, "a Python that nobody has thought of; add it above"


@pytest.mark.parametrize("python", PYTHONS, ids="{0[0]}.{0[1]}".format)
def test_each_module_that_is_imported_belongs_to_a_requirement(python: Version):
    assert undeclared("kafka_chat", "kafka-chat", python) == []


def test_a_requirement_that_is_not_declared_is_found():
    lacking = undeclared("kafka_chat", "kafka-chat", (3, 11), left_out=["typing-extensions"])
    assert {(one.importer, one.module) for one in lacking} == {("quart_schema.conversion", "typing_extensions")}
    assert undeclared("kafka_chat", "kafka-chat", (3, 12), left_out=["typing-extensions"]) == []
    assert {one.importer.partition(".")[0] for one in undeclared("kafka_chat", "kafka-chat", (3, 12), left_out=["h11"])} == {"kafka_chat"}


@pytest.mark.parametrize("python", PYTHONS, ids="{0[0]}.{0[1]}".format)
def test_the_lock_of_the_image_has_all_of_them(python: Version):
    lock = (Path(__file__).parents[2] / "requirements-runtime.lock").read_text()
    locked = [Requirement(line.removesuffix(" \\")) for line in lock.splitlines() if line[:1].isalnum()]
    environment = environment_of(python)
    names = {one.name for one in locked if one.marker is None or one.marker.evaluate(environment)}
    _, brought = requirements("kafka-chat", python)
    assert brought <= names
