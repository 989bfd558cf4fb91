"""What is left to the garbage collector because it holds itself."""

from __future__ import annotations

import concurrent.futures
import gc
import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

OURS = ("kafka_chat", "confluent_kafka", "cimpl")


@contextmanager
def circles_of_ours() -> Iterator[Counter[str]]:
    """Count what the block leaves in circles that is of this service, or of the Kafka client; filled when the block ends.

    Circles of Quart and werkzeug that hold nothing of ours are not counted: they are dead as soon as they are made, so a young
    collection takes them.
    """
    found: Counter[str] = Counter()
    gc.collect(1)
    gc.freeze()  # so that the collection at the end looks at what the block has made alone
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(name for name in map(_name, gc.garbage) if name)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()


def _name(thing: object) -> str | None:
    """Return what `thing` is called, if it is of ours."""
    kind = type(thing)
    if inspect.isframe(thing):
        return f"a frame of {thing.f_code.co_qualname}" if "/kafka_chat/" in thing.f_code.co_filename else None
    if inspect.iscoroutine(thing) or inspect.isasyncgen(thing):
        code = thing.cr_code if inspect.iscoroutine(thing) else thing.ag_code
        return f"a coroutine of {thing.__qualname__}" if "/kafka_chat/" in code.co_filename else None
    if inspect.isfunction(thing):
        return f"the function {thing.__qualname__}" if thing.__module__.startswith(OURS) else None
    if kind is concurrent.futures.Future or kind.__module__.startswith(OURS):
        return kind.__qualname__
    return None
