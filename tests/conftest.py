"""What every test may use: brokers, unique names, and a deadline, which is set without asking."""

from __future__ import annotations

import functools
import gc
import inspect
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, settings

from tests.support.brokers import embedded_broker, kafka_cluster
from tests.support.chats import Chats
from tests.support.leaks import task_tree
from tests.support.with_tokens import WITH_TOKENS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.support.brokers import Broker, EmbeddedBroker, KafkaCluster

DEADLINE_SECONDS = 120.0  # ends a hang; a test that takes longer on a busy machine has a mark of its own
# Under `autojump_clock` time costs nothing, and a test that waits for nothing jumps right here.
AUTOJUMP_DEADLINE_SECONDS = 30 * 86400.0


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """One real Kafka broker, shared by all tests; a test that stops or freezes brokers starts a `kafka_cluster` instead."""
    with kafka_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedBroker]:
    """The embedded broker, shared by all tests."""
    with embedded_broker() as broker:
        yield broker


@pytest.fixture(params=["embedded", "kafka"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each of the two brokers in turn: for what holds on both."""
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def chats() -> Chats:
    """Names that no other test uses."""
    return Chats.unique()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(*names): the anchors of the promises in docs/ that this test holds; tests/core/promises.py")
    config.addinivalue_line("markers", "access_off: it holds only where no tokens are asked for")
    # How long an example takes decides nothing: the machine may have other things to do.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")
    config.addinivalue_line("markers", f"deadline(seconds): how long this async test may take, instead of {DEADLINE_SECONDS:g} s")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what holds only without tokens, if there are some."""
    if WITH_TOKENS:
        left_out = [item for item in items if item.get_closest_marker("access_off")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Keep the collector off what stays for the whole run: tests that look for leaks collect twice each, 0.1 s every time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each async test its deadline, before pytest-trio takes the function over."""
    if not isinstance(item, pytest.Function) or item.get_closest_marker("trio") is None:
        return
    marker = item.get_closest_marker("deadline")
    if marker is not None:
        (seconds,) = marker.args
    else:
        seconds = AUTOJUMP_DEADLINE_SECONDS if "autojump_clock" in item.fixturenames else DEADLINE_SECONDS
    property_test = getattr(item.obj, "hypothesis", None)
    if property_test is None:
        item.obj = _within(seconds, item.obj)
    elif not getattr(property_test.inner_test, "has_deadline", False):  # the items of a parametrized one share it
        property_test.inner_test = _within(seconds, property_test.inner_test)


def _within(seconds: float, test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    assert inspect.iscoroutinefunction(test)

    @functools.wraps(test)
    async def within_deadline(*args: Any, **kwargs: Any) -> None:
        late = False

        async def watch() -> None:
            nonlocal late
            with watching:
                await trio.sleep(seconds)
                late = True
                sys.stderr.write(f"--- the deadline of {seconds:g} s is over; what the tasks were waiting for:\n{task_tree()}\n")
                scope.cancel()

        watching = trio.CancelScope()
        with trio.CancelScope() as scope:
            trio.lowlevel.spawn_system_task(watch)
            try:
                await test(*args, **kwargs)
            finally:
                watching.cancel()
        if late and scope.cancelled_caught:
            pytest.fail(f"the test was not done within its deadline of {seconds:g} s")

    within_deadline.has_deadline = True  # type: ignore[attr-defined]
    return within_deadline
