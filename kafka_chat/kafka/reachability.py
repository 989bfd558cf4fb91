"""Decides whether the brokers are away, and reports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..errors import BrokerError

if TYPE_CHECKING:
    from ..telemetry.metrics import Telemetry
    from .lookup import KafkaLookup

UNANSWERED_SECONDS = 15.0  # how long requests about topics may fail while brokers answer pings; one times out after 10


class Reachability:
    """The state of the brokers, updated by each look of the Tail's watch.

    They are away when none answers a ping, and back when a whole look is answered. Pings alone are not enough: if an
    advertised host name does not resolve, some pings succeed and others fail.

    Attributes:
        away: why no broker answers; None while one does.
    """

    def __init__(self, lookup: KafkaLookup, telemetry: Telemetry) -> None:
        self._lookup = lookup
        self._telemetry = telemetry
        self._answered = False  # whether any broker ever has
        self._unanswered: tuple[str, float] | None = None  # the request that fails although brokers are up, and since when
        self.away: str | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong, as a sentence; None if nothing is, or only for a short time so far."""
        if self.away:
            return self.away
        if not self._answered:
            why = self._lookup.reasons()
            return f"no broker has answered yet: {why}" if why else "no broker has answered yet"
        if self._unanswered and trio.current_time() - self._unanswered[1] > UNANSWERED_SECONDS:
            return self._unanswered[0]
        return None

    async def looked(self, failed: str | None, *, ask: bool) -> None:
        """Report brokers that are away, or back.

        Args:
            failed: the unanswered request of this look; None if all were answered.
            ask: whether to ping the brokers.
        """
        silent = await self._silence() if ask else None
        if failed is None:
            self._unanswered = None
        else:
            self._unanswered = self._unanswered or (failed, trio.current_time())
        reason = silent or (failed if self.away else None)
        if reason and not self.away:
            self._telemetry.brokers_away(reason=reason)
        elif self.away and not reason:
            self._telemetry.brokers_back()
        self.away = reason
        if reason is None:
            self._answered = True
            self._lookup.forget_reasons()

    async def _silence(self) -> str | None:
        """Return why no broker answers; None if one does, and only requests to others failed."""
        try:
            await self._lookup.ping()
        except BrokerError as error:
            return str(error)
        return None
