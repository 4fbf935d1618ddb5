"""What a store's size costs:  python -m benchmarks.provider_store ROUNDS FOLDER      prints one line of JSON

Six stores stand side by side: 10, 1,000 and 100,000 consents for as many virtual machines, in SQLite and in PostgreSQL. Each
holds what such a number leaves behind: three receipts for each consent, and for every other one its withdrawal. Then the
provider's own transactions are run on them in turn: a grant (the offer and the node's receipt) and a lease.
"""

from __future__ import annotations

import json
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Table, insert, update

from benchmarks.machines import machines
from benchmarks.measures import SIZES, size_name
from eva.consent import CLOUDADMIN, MAX_SECONDS, Access, Consent, Kind
from eva.resource_id import ResourceId
from eva.token import SigningKey, Typ, b64
from eva.wire import Envelope, Event, LeaseRequest, Receipt
from lab.postgresql import Postgresql
from provider.consent.ask import Ask
from provider.consent.authority import RecentNonces
from provider.consent.desk import Desk, Offer
from provider.consent.enabling import enable
from provider.consent.features import FeatureBooks, GlobalState
from provider.consent.intake import Intake
from provider.keys import Signer, sign_key_set
from provider.store.books import QUARTER, Books
from provider.store.place import Place, PostgresqlServer, parse_place
from provider.store.schema import consents, loads, nodes, receipts, revocations, watermarks
from provider.store.store import Store

NODES = 8
TURNS = 20  # of each transaction in one round
SPARE = 1024  # virtual machines that have no consent yet
CHUNK = 2_000  # rows in one statement

T = TypeVar("T")
Row = dict[str, Any]  # as SQLAlchemy takes it


def jti() -> str:
    return b64(secrets.token_bytes(16))


@dataclass
class Node:
    """Signs what a node sends."""

    name: str
    key: SigningKey
    receipts: int = 0
    seq: int = 0
    records: int = 0

    def request(self) -> str:
        self.records += 1
        request = LeaseRequest(self.name, jti(), int(time.time()), "boot-1", self.seq, 1, self.records, jti())
        return self.key.sign(Typ.LEASE_REQUEST, request.to_claims())

    def acceptance(self, about: str) -> str:
        self.receipts += 1
        facts = (("generation", "1"), ("host", "host1"), ("uuid", "12345678-1234-4234-8234-123456789012"))
        receipt = Receipt(self.name, jti(), self.receipts, Event.ACCEPTED, about, time.time_ns() // 1_000_000, 0, facts)
        return self.key.sign(Typ.RECEIPT, receipt.to_claims())


class Office:
    """One store with so many consents, and those who work on it."""

    def __init__(self, place: Place, size: int) -> None:
        self.store = Store(place, create=True)
        key = SigningKey(Ed25519PrivateKey.generate())
        root = SigningKey(Ed25519PrivateKey.generate())
        self._signer = Signer(key, sign_key_set(root, 1, [key.private.public_key()]), 1)
        self._nonces = RecentNonces()
        self._nodes = {
            f"AzS-ERCS{number:02}": Node(f"AzS-ERCS{number:02}", SigningKey(Ed25519PrivateKey.generate()))
            for number in range(1, NODES + 1)
        }
        every = machines(size + SPARE)
        self._spare = iter(every[size:])
        with self.store.write() as connection:
            FeatureBooks(connection).set_state(GlobalState.ENABLED)
            for node in self._nodes.values():
                Books(connection).enrol(node.name, node.key.private.public_key(), 0)
            self._fill(connection, every[:size])

    def _do(self, decide: Callable[[Desk], T]) -> T:
        with self.store.write() as connection:
            return decide(Desk(connection, self._signer, time.time_ns() // 1_000_000, jti))

    def revive(self) -> None:
        """Every node is heard, so that it is offered consents for the next six seconds."""
        for node in self._nodes.values():
            self._lease(node)

    def _lease(self, node: Node) -> float:
        envelope = Envelope(node.request())
        began = time.perf_counter()
        self._do(lambda desk: Intake(desk).answer_lease(envelope, node.name, self._nonces))
        return time.perf_counter() - began

    def grant(self) -> float:
        """The seconds of a grant's transactions; what the node does for it in between does not count."""
        ask = Ask(next(self._spare), "tenant", None, None, None, MAX_SECONDS, "bench")
        began = time.perf_counter()
        offer = self._do(lambda desk: enable(desk, ask, 15_000))
        took = time.perf_counter() - began
        assert isinstance(offer, Offer)
        consent = offer.consent
        envelope = Envelope(self._nodes[consent.node].acceptance(consent.jti))
        began = time.perf_counter()
        self._do(lambda desk: Intake(desk, {consent.jti}).take_receipt(envelope, consent.node))
        return took + time.perf_counter() - began

    def lease(self) -> float:
        return self._lease(self._nodes[secrets.choice(list(self._nodes))])

    # what so many consents leave behind

    def _fill(self, connection: Connection, every: list[ResourceId]) -> None:
        now = int(time.time())
        rows: dict[Table, list[Row]] = defaultdict(list)
        served: Counter[tuple[str, int]] = Counter()
        names = list(self._nodes)
        token = ""
        for number, resource_id in enumerate(every):
            node = self._nodes[names[number % NODES]]
            consent = _consent(resource_id, node.name, now, now + QUARTER + number % (MAX_SECONDS - QUARTER))
            token = token or self._signer.key.sign(Typ.CONSENT, consent.to_claims())  # one signature for all: nobody verifies it
            withdrawn = number % 2 == 1
            rows[consents].append(_filed(consent, token, self._signer.key.kid, now, withdrawn=withdrawn))
            for event in (Event.ACCEPTED, Event.RECORDED, Event.RECORDED):
                node.receipts += 1
                rows[receipts].append(_said(node, consent.jti, event, now, token))
            if withdrawn:
                node.seq += 1
                rows[revocations].append(_revoked(node, consent, now, token))
                rows[watermarks].append({"resource_key": resource_id.key, "issued_by": now})
            else:
                served[node.name, -(-consent.expires_at // QUARTER) * QUARTER] += 1
        rows[loads] = [{"node": node, "until": until, "consents": count} for (node, until), count in served.items()]
        for table, some in rows.items():
            for start in range(0, len(some), CHUNK):
                connection.execute(insert(table), some[start : start + CHUNK])
        for node in self._nodes.values():
            connection.execute(update(nodes).where(nodes.c.name == node.name).values(seq=node.seq, receipts=node.receipts))


def _consent(resource_id: ResourceId, node: str, now: int, until: int) -> Consent:
    cid = jti()
    operators, kinds = frozenset({CLOUDADMIN}), frozenset(Kind)
    return Consent(cid, cid, node, resource_id, "tenant", operators, kinds, Access.KEYBOARD, now, until, False)


def _filed(consent: Consent, token: str, kid: str, now: int, *, withdrawn: bool) -> Row:
    return {
        "jti": consent.jti,
        "cid": consent.cid,
        "kid": kid,
        "node": consent.node,
        "resource_key": consent.resource_id.key,
        "issued_at": consent.issued_at,
        "expires_at": consent.expires_at,
        "token": token,
        "claims": json.dumps(consent.to_claims()),
        "offered_until_ms": now * 1000,
        "answer": "accepted",
        "granted_ms": now * 1000,
        "revoked_ms": now * 1000 if withdrawn else None,
    }


def _said(node: Node, about: str, event: Event, now: int, token: str) -> Row:
    row = {"kid": node.key.kid, "number": node.receipts, "node": node.name, "about": about, "event": str(event)}
    return row | {"received_ms": now * 1000, "token": token}


def _revoked(node: Node, consent: Consent, now: int, token: str) -> Row:
    row = {"node": node.name, "seq": node.seq, "jti": jti(), "resource_key": consent.resource_id.key, "issued_by": now}
    return row | {"made_ms": now * 1000, "token": token, "confirmed_ms": now * 1000}


def places(folder: Path, server: Postgresql) -> Iterator[tuple[str, int, Place]]:
    for size in SIZES:
        yield "sqlite", size, folder / f"{size}.db"
        place = parse_place(server.database(f"with{size}"))
        assert isinstance(place, PostgresqlServer)
        yield "pg", size, replace(place, password_file=server.password_file)


def measure(rounds: int, folder: Path) -> dict[str, dict[str, list[tuple[float, None]]]]:
    """Milliseconds, by measure and contender."""
    samples: dict[str, dict[str, list[tuple[float, None]]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        server = stack.enter_context(Postgresql())
        offices: list[tuple[str, int, Office]] = []
        for database, size, place in places(folder, server):
            office = Office(place, size)
            stack.callback(office.store.close)
            offices.append((database, size, office))
        with server.connect() as connection:
            connection.execute("CHECKPOINT")  # what was filled in is not written back while others are measured
        for number in range(-1, rounds):  # the first one warms up
            times: dict[tuple[str, int, str], list[float]] = defaultdict(list)
            for turn in range(TURNS):
                if turn % 10 == 0:
                    for _, _, office in offices:
                        office.revive()
                first = turn % len(offices)
                for database, size, office in offices[first:] + offices[:first]:
                    times[database, size, "grant"].append(office.grant())
                    times[database, size, "lease"].append(office.lease())
            for (database, size, what), some in times.items():
                if number >= 0:
                    samples[f"store-{what}-{database}"][size_name(size)].append((statistics.median(some) * 1000, None))
    return samples


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=Path(sys.argv[2]).resolve()))
    try:
        print(json.dumps(measure(int(sys.argv[1]), folder)))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
