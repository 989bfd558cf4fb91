"""What is written to a chat while a page looks, and whether the page has it all."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.pages.chromium import Page
from tests.support.brokers import EmbeddedBroker
from tests.support.chats import message


@dataclass
class Written:
    """What has been written to a chat, for who reads it from the first on."""

    broker: EmbeddedBroker
    topic: str
    chat: str
    records: list[list[object]] = field(default_factory=list)

    def write(self, count: int) -> None:
        """Write this many messages, over the partitions in turn."""
        for _ in range(count):
            self.write_text(str(len(self.records)))

    def write_text(self, text: str) -> None:
        """Write a message, into the partition that is next."""
        at = self.broker.produce(self.topic, message(text), partition=len(self.records) % 4)
        self.records.append([self.chat, at.partition, at.offset, text])

    async def check(self, page: Page) -> None:
        """Wait until the page has as many, and compare: each once, in the order of its partition."""
        await page.until(f"told.length >= {len(self.records)}")
        told = await page.evaluate("told")
        for partition in range(4):
            came, due = ([entry for entry in entries if entry[1] == partition] for entries in (told, self.records))
            assert came == due, f"of partition {partition} the page has {came}, and not {due}"
        assert len(told) == len(self.records)

    async def check_all(self, page: Page) -> None:
        """Likewise, with one more message in each partition, behind which nothing can come that is older."""
        self.write(4)
        await self.check(page)
