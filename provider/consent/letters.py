"""Consents and revocations on their way to nodes, and revocations seen through to the node's signed word. Errors:

Undelivered     a letter that MQTT did not take in time
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from eva.wire import Envelope, consent_topic, revocation_topic
from provider.consent.authority import at_latest
from provider.consent.desk import Offer
from provider.consent.waits import Waits
from provider.keys import Signers
from provider.meters import Meters
from provider.store.filed import Notice
from provider.store.records import Records

HINT_SECONDS = 1.0  # how long a letter is tried for that nobody waits for
AT_ONCE = 32  # letters under way together

log = logging.getLogger("provider.consent.letters")

Look = Callable[[Callable[[Records], list[Notice]]], Awaitable[list[Notice]]]


class Undelivered(Exception):
    """`why` for the log."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class Post(Protocol):
    """The way to the nodes."""

    async def send(self, topic: str, payload: bytes, *, expires: int | None, patience: float) -> None:
        """Until the MQTT broker has acknowledged it. `expires`, `patience`: seconds. Raises Undelivered."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of a revocation at one node: confirmed, or cut `at_latest_ms` without its word."""

    notice: Notice
    at_latest_ms: int

    @property
    def confirmed(self) -> bool:
        return self.notice.confirmed_ms is not None


class Letters:
    def __init__(self, post: Post, signers: Signers, waits: Waits, meters: Meters, cut_seconds: int) -> None:
        self._post = post
        self._signers = signers
        self._waits = waits
        self._meters = meters
        self._cut_seconds = cut_seconds
        self._room = asyncio.Semaphore(AT_ONCE)

    async def send_offer(self, offer: Offer, patience: float) -> None:
        """A letter that comes when the offer is taken back is one that nobody needs: it expires. Raises Undelivered."""
        payload = Envelope(offer.token, keys=self._signers.current.key_set).encode()
        async with self._room:
            topic = consent_topic(offer.consent.node)
            await self._post.send(topic, payload, expires=max(1, round(patience + 0.5)), patience=patience)

    async def send_revocation(self, notice: Notice, patience: float = HINT_SECONDS) -> None:
        """Sent at once for speed only: the node's next lease carries it, whatever becomes of the letter."""
        payload = Envelope(notice.token, keys=self._signers.current.key_set).encode()
        try:
            async with self._room:
                await self._post.send(revocation_topic(notice.node), payload, expires=None, patience=patience)
        except Undelivered as error:
            log.warning("revocation %d of %s waits for its next lease: %s", notice.seq, notice.node, error.why)
        else:
            self._meters.revocations.inc()

    async def hint(self, notices: Collection[Notice]) -> None:
        """Sends revocations that nobody waits for."""
        async with asyncio.TaskGroup() as group:
            for notice in notices:
                group.create_task(self.send_revocation(notice))

    async def see_through(self, notices: Sequence[Notice], look: Look, patience: float) -> list[Cut]:
        """Sends revocations, all at once, and waits for each node's word, `patience` seconds at the most."""
        for notice in notices:
            log.info("revocation %d of %s is on disk", notice.seq, notice.node)
        open_still = {(one.node, one.seq): one for one in notices}
        abouts = {about for one in notices for about in (one.jti, one.consent) if about is not None}
        last = dict(open_still)
        with self._waits.on(*abouts) as wait:
            sending: list[asyncio.Task[None]] = []
            try:
                async with asyncio.timeout(patience), asyncio.TaskGroup() as group:
                    # beside the wait: with MQTT down the node has it by its next lease, and its receipt the same way
                    sending = [
                        group.create_task(self.send_revocation(one, patience)) for one in notices if one.confirmed_ms is None
                    ]
                    while True:
                        found = await look(partial(Records.notices, keys=list(open_still)))
                        last |= {(one.node, one.seq): one for one in found}
                        open_still = {key: one for key, one in last.items() if one.confirmed_ms is None}
                        if not open_still:
                            break
                        await wait.pause()
                    for task in sending:
                        task.cancel()
            except TimeoutError:
                for notice in open_still.values():
                    log.warning("revocation %d of %s is not confirmed", notice.seq, notice.node)
        return [Cut(one, at_latest(one.made_ms, self._cut_seconds)) for one in last.values()]
