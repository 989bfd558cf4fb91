"""History pages: a range of all partitions of one chat, ordered by time.

A page is read like everything else: for the time of a request, a reader joins the audience, so the Tail follows its chat, and the
logs provide positions, batches in memory, page reads and new messages. It is not a client, and gets no offers of frames.
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
    """Makes history pages.

    Args:
        context: the parts of the service.
        lookup: for requests that only pages make.
    """

    def __init__(self, context: SessionContext, *, lookup: Lookup) -> None:
        self._context = context
        self._lookup = lookup
        self._compacted = CompactedTopics(lookup)
        self._shared = SharedMerge()
        self._readers: set[HistoryReader] = set()
        self._draining = False

    def drain(self) -> None:
        """End all waits for new messages, and allow no further ones."""
        self._draining = True
        for reader in self._readers:
            reader.finish()

    async def page(self, query: PageQuery, *, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> Page:
        """Return a page.

        Args:
            query: what it should contain.
            waiting: entered while it waits for a new message; then the client's disconnect ends it.

        Raises:
            RequestError: the cursor is of another cluster, or wholly of a later version.
            NotFound: the chat has no topic.
            BrokerError: brokers do not answer, or the topic is deleted meanwhile.
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
