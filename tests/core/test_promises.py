"""Each promise of docs/protocol.md, docs/operations.md and docs/access.md is held by a test that names it; CONTRIBUTING.md says how."""

from __future__ import annotations

from tests.core.promises import Promise, held_by_tests, named_in, problems, promises, promises_in, withdrawn

TEXT = """\
# A heading

<a id="p-order"></a>In order. <a id="p-once"></a>Once.

| 400 | <a id="p-bad"></a>bad |
"""
SOURCE = """\
import pytest

@pytest.mark.promise("p-order", "p-once")
async def test_in_order_and_once(): ...

class TestMore:
    @pytest.mark.deadline(3)
    @pytest.mark.promise("p-bad")
    def test_bad(self): ...
"""


def held(*names: str) -> dict[str, set[str]]:
    return {name: {"test_a.py"} for name in names}


def test_promises_are_found_with_their_words():
    assert promises_in(TEXT, "a.md") == [
        Promise("p-order", "a.md", 3, "In order. Once."),
        Promise("p-once", "a.md", 3, "Once."),
        Promise("p-bad", "a.md", 5, "bad |"),
    ]


def test_tests_name_what_they_hold():
    assert named_in(SOURCE) == {"p-order", "p-once", "p-bad"}
    assert named_in("def promise(): ...\n\n'p-order'\n") == set()


def test_what_is_made_and_held_is_no_problem():
    assert problems(promises_in(TEXT, "a.md"), held(*named_in(SOURCE))) == []


def test_a_promise_without_a_test_and_a_test_without_a_promise_are_problems():
    made, names = promises_in(TEXT, "a.md"), held("p-order", "p-bad", "p-more")
    assert problems(made, names) == ["a.md:3: p-once: Once. (no test holds it)"]
    assert withdrawn(made, names) == ["test_a.py: p-more (no document makes this promise)"]


def test_a_name_that_is_none_or_is_taken_is_a_problem():
    made = [Promise("p-Once", "a.md", 1, ""), Promise("p-bad", "a.md", 2, ""), Promise("p-bad", "b.md", 3, "")]
    assert len(problems(made, held("p-Once", "p-bad"))) == 3


def test_every_promise_of_the_documents_is_held_by_a_test_and_no_test_holds_another():
    made, marked = promises(), held_by_tests()
    found = problems(made, marked) + withdrawn(made, marked)
    assert made
    assert not found, "\n".join(found)
