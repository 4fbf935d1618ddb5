"""Where the consent is that this node has not: the provider is asked, so that an operator hears which node to go to.

A hint for people, and nothing hangs on it: no answer is as good as none. It costs little: an answer is kept for a few
seconds, an account asks so often and no more, and few questions are under way at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import httpx

from broker.attempts import Buckets, Rate
from broker.certificates import client_context
from broker.clock import Clock
from broker.settings import Provider
from eva.instant import NS
from eva.members import BadMember
from eva.resource_id import ResourceId
from eva.token import SigningKey, b64
from eva.whereabouts import WHEREABOUTS_PATH, Query, Whereabouts
from eva.wire import CONTENT_TYPE, Envelope

log = logging.getLogger(__name__)

SECONDS: Final = 2.0  # for an answer
KEPT_SECONDS: Final = 5
KEPT: Final = 256  # answers
AT_ONCE: Final = 4  # questions
MAX_ANSWER: Final = 1024  # bytes
BY_ACCOUNT: Final = Rate(5, 6)  # 10 a minute


class Inquiry:
    """`randomness(n)` gives n random bytes. Raises OSError for a CA file that is missing."""

    def __init__(self, node: str, provider: Provider, key: SigningKey, clock: Clock, randomness: Callable[[int], bytes]) -> None:
        self._node = node
        self._url = provider.url + WHEREABOUTS_PATH
        self._tls = client_context(provider.ca)
        self._key = key
        self._clock = clock
        self._randomness = randomness
        self._asked = Buckets(BY_ACCOUNT)
        self._kept: OrderedDict[ResourceId, tuple[int, str | None]] = OrderedDict()  # until when (boot ns)
        self._under_way = 0

    async def find(self, account: str, resource_id: ResourceId) -> str | None:
        """Another node that has a consent for the VM, as far as is known within SECONDS. Never raises."""
        now = self._clock.now()
        until, node = self._kept.get(resource_id, (0, None))
        if now.boot < until:
            return node
        if self._under_way >= AT_ONCE or not self._asked.has_token(account, now):
            return None
        self._asked.spend(account, now)
        self._under_way += 1
        try:
            async with asyncio.timeout(SECONDS):
                node = await self._ask(resource_id)
        except (httpx.HTTPError, BadMember, TimeoutError) as error:
            log.warning("the provider does not say where the consent is: %s", error or type(error).__name__)
            return None
        finally:
            self._under_way -= 1
        if node is not None and node.lower() == self._node.lower():
            node = None  # it is on its way here
        self._kept[resource_id] = (self._clock.now().boot + KEPT_SECONDS * NS, node)
        self._kept.move_to_end(resource_id)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return node

    async def _ask(self, resource_id: ResourceId) -> str | None:
        """Raises httpx.HTTPError, BadMember."""
        query = Query(self._node, b64(self._randomness(16)), self._clock.now().wall_seconds, resource_id)
        payload = Envelope(self._key.sign(Query.TYP, query.to_claims())).encode()
        headers = {"content-type": CONTENT_TYPE}
        async with (
            httpx.AsyncClient(verify=self._tls, timeout=SECONDS, trust_env=False) as https,
            https.stream("POST", self._url, content=payload, headers=headers) as answer,
        ):
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            answer.raise_for_status()
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MAX_ANSWER:
                    raise BadMember("an answer that is too long")
        return Whereabouts.decode(body).node
