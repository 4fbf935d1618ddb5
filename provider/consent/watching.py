"""Who may watch where, and the token that lets him in there.

Raises Refused (authority): NO_CONSENT, NOT_GIVER, NO_NODE, NOT_WATCHABLE; StoreDown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from eva.consent import Consent
from eva.resource_id import ResourceId
from eva.token import SigningKey, Typ
from eva.watch import MAX_WATCH_SECONDS, Watch, watch_socket
from provider.consent.authority import Refusal, Refused
from provider.consent.origin import origin_at, origins
from provider.consent.standing import ending, leading
from provider.keys import Signer, Signers
from provider.store.books import Books
from provider.store.filed import State
from provider.store.records import Records
from provider.store.store import StoreThread

MOST_NODES = 64  # that a page's policy names

Gave = Callable[[str], bool]  # whether a consent's `sub` names who asks


@dataclass(frozen=True, slots=True)
class Watchable:
    """A consent that was granted once.

    `node` None: it is between two nodes. `origin` None: tenants cannot watch at its node. `over`: its ending's word, None while
    it stands.
    """

    consent: Consent
    node: str | None
    origin: str | None
    over: str | None

    def reached(self) -> tuple[str, str]:
        """The node and its origin. Raises Refused where there is no watching now."""
        if self.over is not None:
            raise Refused(Refusal.NO_CONSENT, "this consent is over")
        if self.node is None:
            raise Refused(Refusal.NO_NODE, "the consent's node is lost, and no other has it yet")
        if self.origin is None:
            raise Refused(Refusal.NOT_WATCHABLE, f"tenants cannot watch at {self.node}, which serves this consent")
        return self.node, self.origin


@dataclass(frozen=True, slots=True)
class Pass:
    """A watch token, the websocket it is for, and its end in Unix seconds."""

    token: str
    url: str
    expires_at: int


def watchable(records: Records, cid: str, now: int) -> Watchable | None:
    """The consent `cid`, None where nobody was ever told of one. `now`: Unix seconds."""
    granted = [one for one in records.tokens_of(cid) if one.granted_ms is not None]
    if not granted:
        return None
    filed = leading(granted, now)
    state = filed.state(now)
    if state is State.GRANTED:
        return Watchable(filed.consent(), filed.node, origin_at(records, filed), None)
    if state is State.MOVING:
        return Watchable(filed.consent(), None, None, None)
    return Watchable(filed.consent(), None, None, ending(filed, state, records.revocations_of(granted)) or str(state))


def mine(connection: Connection, resource_id: ResourceId, gave: Gave, now: int) -> str:
    """The cid of the newest consent for this VM that the caller gave."""
    tokens = [one for one in Books(connection).unexpired(resource_id, now) if one.stands(now) or one.homeless(now)]
    if not tokens:
        raise Refused(Refusal.NO_CONSENT, "no consent for this virtual machine is in force")
    given = [one for one in tokens if gave(one.consent().giver)]
    if not given:
        raise Refused(Refusal.NOT_GIVER, "only who gave a consent may watch")
    return max(given, key=lambda one: (one.issued_at, one.jti)).cid


def admit(records: Records, signer: Signer, cid: str, gave: Gave, now: int, jti: str) -> Pass:
    """Signs the token by which the giver gets in once, at the consent's node."""
    found = watchable(records, cid, now)
    if found is None:
        raise Refused(Refusal.NO_CONSENT, "no consent has this id")
    consent = found.consent
    if not gave(consent.giver):
        raise Refused(Refusal.NOT_GIVER, "only who gave a consent may watch")
    node, origin = found.reached()
    expires_at = min(now + MAX_WATCH_SECONDS, consent.expires_at)
    watch = Watch(jti, cid, node, consent.resource_id, consent.giver, now, expires_at)
    return Pass(signer.key.sign(Typ.WATCH, watch.to_claims()), watch_socket(origin), expires_at)


class Watching:
    """The same for the REST and the pages, with the store, the keys, the clock and the dice."""

    def __init__(self, store: StoreThread, signers: Signers, wall_ms: Callable[[], int], new_jti: Callable[[], str]) -> None:
        self._store = store
        self._signers = signers
        self._wall_ms = wall_ms
        self._new_jti = new_jti

    def _now(self) -> int:
        return self._wall_ms() // 1000

    def sealing_key(self) -> SigningKey:
        """Which every provider has: what one seals by it, another opens."""
        return self._signers.current.key

    async def find(self, cid: str) -> Watchable | None:
        return await self._store.read(lambda connection: watchable(Records(connection), cid, self._now()))

    async def sockets(self, cid: str) -> list[str]:
        """The origins of the websockets that its page may open: its node's, and those of the nodes that it may move to."""

        def look(connection: Connection) -> list[str]:
            records = Records(connection)
            found = watchable(records, cid, self._now())
            if found is None or found.over is not None or (found.node is not None and found.origin is None):
                return []
            own = set() if found.origin is None else {found.origin}
            return sorted(f"wss{origin.removeprefix('https')}" for origin in own | origins(records, MOST_NODES))

        return await self._store.read(look)

    async def origin(self, consent: Consent) -> str | None:
        """Where this consent's giver can watch now."""
        found = await self.find(consent.cid)
        return None if found is None else found.origin

    async def admit(self, cid: str, gave: Gave) -> Pass:
        def signed(connection: Connection) -> Pass:
            signer = self._signers.in_force(connection)
            return admit(Records(connection), signer, cid, gave, self._now(), self._new_jti())

        return await self._store.read(signed)

    async def admit_to_machine(self, resource_id: ResourceId, gave: Gave) -> Pass:
        """To the caller's newest consent for this VM."""
        cid = await self._store.read(lambda connection: mine(connection, resource_id, gave, self._now()))
        return await self.admit(cid, gave)
