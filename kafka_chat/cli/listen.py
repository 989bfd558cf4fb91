"""Prints messages: `kafka-chat listen`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ..client import Gap, Message, Refused, Skipped, open_chat
from .cursor_file import open_notes
from .terminal import message_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..client.tokens import TokenSource
    from .cursor_file import CursorFile

_FLAGS = {  # parameter of the service -> what the user of the command knows it by
    "topic": "--chat",
    "chat": "--chat-only",
    **{name: f"--{name}" for name in ("from", "rewind", "until", "tag", "sender", "cursor")},
    "username": "USER",
}
_CAUSES = {
    "retention": "deleted by age, by size or by hand",
    "recreated": "the topic was deleted or recreated",
    "truncated": "a broker lost the end of its log",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to listen to, and how to print it.

    Attributes:
        url: the service's URL.
        user: the user whose messages to print.
        subscribe_to: first subscribe the user to these chats.
        from_, rewind, until, chats, tags, senders: as `open_chat` has them.
        cursor: where to begin.
        file: keeps the cursor, and says where to begin.
        token: says who listens.
        as_json: print frames, not lines for people.
        meta: print each message's position; in JSON, the whole frame of kafka-chat.v1.
        colours: for people.
    """

    url: str
    user: str
    subscribe_to: Sequence[str] = ()
    from_: str | None = None
    rewind: int = 0
    until: str | None = None
    chats: Sequence[str] = ()
    tags: Sequence[str] = ()
    senders: Sequence[str] = ()
    cursor: str | None = None
    file: CursorFile | None = None
    token: TokenSource | None = None
    as_json: bool = False
    meta: bool = False
    colours: bool = False

    @property
    def bare_will_do(self) -> bool:
        """Whether no option needs kafka-chat.v1; an earlier service would ignore such options."""
        asked = (self.from_, self.rewind, self.until, self.chats, self.tags, self.senders, self.cursor, self.file, self.meta)
        return not any(asked)


async def listen(wanted: Wanted, *, show: Callable[[str], Awaitable[None]], tell: Callable[[str], None]) -> None:
    """Print messages until no more will come.

    Args:
        wanted: what to listen to.
        show: writes a line to stdout.
        tell: writes a sentence to stderr.

    Raises:
        Refused: reconnecting will not help.
        SettingsError: the URL is invalid, or the file contains no cursor.
        CursorNotKept: the file cannot be written.
    """
    try:
        if wanted.file is None:
            await _listen(wanted, wanted.cursor, show=show, tell=tell, note=None)
            return
        cursor = wanted.file.read()
        async with open_notes(wanted.file) as note:
            await _listen(wanted, cursor, show=show, tell=tell, note=note)
    except Refused as refused:
        raise Refused(in_flags(str(refused)), code=refused.code, reason=refused.reason, field=refused.field) from refused


def in_flags(sentence: str) -> str:
    """Return a sentence of the service, with the parameter at its beginning replaced by the flag."""
    name, space, rest = sentence.partition(" ")
    return _FLAGS.get(name, name) + space + rest


def gap_sentence(gap: Gap) -> str:
    """Return a gap as a sentence."""
    if gap.cause == "cluster":
        return "the cursor is from another Kafka cluster: the messages after it are not here, and everything begins as without a cursor"
    where, cause = f"{gap.chat}/{gap.partition}", _CAUSES.get(gap.cause, gap.cause)
    if gap.cause == "retention" and gap.first_lost is not None and gap.first_left is not None:
        last = gap.first_left - 1
        lost = f"offset {last} is" if gap.first_lost == last else f"offsets {gap.first_lost} to {last} are"
        return f"messages of {where} are lost: {lost} gone ({cause}); it continues at {gap.first_left}"
    return f"messages of {where} may be lost, from offset {gap.first_lost} on ({cause}); it continues at {gap.first_left}"


async def _listen(
    wanted: Wanted,
    cursor: str | None,
    *,
    show: Callable[[str], Awaitable[None]],
    tell: Callable[[str], None],
    note: Callable[[str | None], None] | None,
) -> None:
    async with open_chat(
        wanted.url,
        wanted.user,
        cursor=cursor,
        from_=wanted.from_,
        rewind=wanted.rewind,
        until=wanted.until,
        chats=wanted.chats,
        tags=wanted.tags,
        senders=wanted.senders,
        subscribe_to=wanted.subscribe_to,
        bare=wanted.bare_will_do,
        token=wanted.token,
        tell=tell,
    ) as chat:
        async for event in chat:
            if isinstance(event, Message):
                await show(_line(event, wanted))
            elif isinstance(event, Gap):
                tell(gap_sentence(event))
            elif isinstance(event, Skipped):
                tell(f"the message of {event.chat}/{event.partition} at offset {event.offset} is too large for the service to show it")
            if note is not None:  # after printing: if the reader is gone, the message is printed again next time
                note(chat.cursor)


def _line(message: Message, wanted: Wanted) -> str:
    if wanted.as_json:
        return message.frame if wanted.meta else message.bare
    return message_line(message, now=datetime.now().astimezone(), colours=wanted.colours, with_offsets=wanted.meta)
