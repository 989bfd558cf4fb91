"""Pages of one chat's past: a range of all its partitions, in the order of time.

A page is read like everything else: a reader joins the audience for the time of a request, so the Tail follows its chat, and
the logs give it positions, batches in memory, pages of the past, and news. It is not a client: nothing is offered to it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from ...errors import RequestError
from ..audience.wanted_start import LATEST, Rewind
from ..records.formats import Format
from .compacted_topics import CompactedTopics
from .page_reading import PageReading
from .reader import HistoryReader
from .shared_merge import SharedMerge

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ..ports import Lookup
    from ..session.context import SessionContext
    from .query import Page, PageQuery


class History:
    """Makes pages.

    Args:
        context: the service.
        lookup: for questions that only pages ask.
    """

    def __init__(self, context: SessionContext, *, lookup: Lookup) -> None:
        self._context = context
        self._lookup = lookup
        self._compacted = CompactedTopics(lookup)
        self._shared = SharedMerge()
        self._readers: set[HistoryReader] = set()
        self._draining = False

    def drain(self) -> None:
        """End all waits for news, and allow no new ones."""
        self._draining = True
        for reader in self._readers:
            reader.finish()

    async def page(self, query: PageQuery, *, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> Page:
        """Return a page.

        Args:
            query: what it should contain.
            waiting: entered while it waits for news; during that time the client's disconnect ends it.

        Raises:
            RequestError: the cursor is from another cluster, or all of it is from a later version.
            NotFound: the chat has no topic.
            BrokerError: brokers do not answer, or the topic is deleted in the meantime.
        """
        context, cursor = self._context, query.cursor
        if cursor is not None and not await context.cluster.may_be(cursor.cluster):
            raise RequestError("cursor is from another Kafka cluster; leave it out to start over", field="cursor")
        if cursor is not None and cursor.says_nothing:
            raise RequestError("cursor is from a later version of this service; leave it out to start over", field="cursor")
        view, begin = query.view(Format.V1), LATEST if isinstance(query.begin, Rewind) else query.begin
        reader = HistoryReader(query.chat, begin, cursor, context.names, view=view, page_reads=context.page_reads)
        if self._draining:
            reader.finish()
        reading = PageReading(query, reader, context, lookup=self._lookup, shared=self._shared, compacted=self._compacted)
        self._readers.add(reader)
        try:
            with context.audience.joined(reader, known=True):
                return await reading.run(waiting)
        finally:
            self._readers.discard(reader)
            if not self._readers:
                self._shared.forget()
