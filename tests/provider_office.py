"""A provider's store with a desk that a test sits at: no network, no loop, and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from eva.consent import CLOUDADMIN, Access, Consent, Kind, Revocation
from eva.resource_id import ResourceId
from eva.token import Typ, verify
from eva.wire import Envelope, Event, Lease
from provider.consent.ask import Ask
from provider.consent.authority import RecentNonces, Refusal, Refused
from provider.consent.desk import Desk, Offer, enrol
from provider.consent.features import FeatureBooks
from provider.consent.intake import Answered, Intake, RolledBack, Taken
from provider.keys import Signer, sign_key_set
from provider.store.books import Books
from provider.store.place import Place
from provider.store.store import Store
from tests.provider_parts import SUBSCRIPTION, Pen, jti, resource_id, signing_key

T = TypeVar("T")
NOW = 1_800_000_000
VM = ResourceId.parse(resource_id("vm1"))
OTHER_VM = ResourceId.parse(resource_id("vm2"))


class Office:
    """A store, a signer, two enrolled nodes and a clock that the test sets."""

    def __init__(self, place: Place) -> None:
        self.store = Store(place, create=True)
        key = signing_key()
        self.keys = {key.kid: key.private.public_key()}
        self.signer = Signer(key, sign_key_set(signing_key(), 1, self.keys.values()), 1)
        self.now = NOW
        self.pen, self.other = Pen("AzS-ERCS01"), Pen("AzS-ERCS02")
        self.nonces = RecentNonces()
        with self.store.write() as connection:
            FeatureBooks(connection).enable(SUBSCRIPTION, "test", NOW * 1000)
            for pen in (self.pen, self.other):
                enrol(Books(connection), pen.name, pen.public, NOW * 1000)

    def do(self, decide: Callable[[Desk], T]) -> T:
        with self.store.write() as connection:
            return decide(Desk(connection, self.signer, self.now * 1000, jti))

    def alive(self) -> None:
        """Both nodes ask for a lease now."""
        self.ask(self.pen.request())
        self.ask(self.other.request())

    def vm(self, number: int) -> ResourceId:
        return ResourceId.parse(resource_id(f"many{number}"))

    def in_other_subscription(self) -> ResourceId:
        """A virtual machine of another subscription that may consent."""
        other = ResourceId("0d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c91", "rg1", "vm1")
        self.do(lambda desk: desk.features.enable(other.subscription, "test", NOW * 1000))
        return other

    def offer(self, vm: ResourceId = VM, node: str | None = "AzS-ERCS01", seconds: int = 3600) -> Offer:
        operators = frozenset({CLOUDADMIN})
        ask = Ask(vm, "tenant", frozenset({Kind.SERIAL}), Access.VIEW, operators, seconds, "why", node=node)
        return self.do(lambda desk: desk.offer(ask, 15_000))

    def granted(self, vm: ResourceId = VM, pen: Pen | None = None) -> Consent:
        pen = pen or self.pen
        consent = self.offer(vm, pen.name).consent
        self.receive(pen, pen.receipt(Event.ACCEPTED, consent.jti, uuid="u"))
        assert self.do(lambda desk: desk.acknowledge(consent.jti)) is not None
        return consent

    def receive(self, pen: Pen, *tokens: str) -> Taken:
        return self.do(lambda desk: Intake(desk).take_receipt(Envelope(tokens[0], receipts=tokens[1:]), pen.name))

    def ask(self, token: str, receipts: tuple[str, ...] = (), spoken_as: str | None = None) -> Answered:
        """The answer. Raises Refused."""
        found = self.do(lambda desk: Intake(desk).answer_lease(Envelope(token, receipts=receipts), spoken_as, self.nonces))
        if isinstance(found, RolledBack):
            raise found.refused()
        return found

    def revocation(self, token: str, node: str = "AzS-ERCS01") -> Revocation:
        return Revocation.from_claims(verify(token, Typ.REVOCATION, self.keys, node))

    def lease(self, answer: Answered) -> tuple[Lease, list[int]]:
        """The lease, and the numbers of the revocations that came with it."""
        envelope = Envelope.decode(answer.payload)
        lease = Lease.from_claims(verify(envelope.token, Typ.LEASE, self.keys, answer.node))
        return lease, [self.revocation(token, answer.node).seq for token in envelope.revocations]

    def refusal(self, decide: Callable[[], object]) -> Refusal:
        with pytest.raises(Refused) as caught:
            decide()
        return caught.value.refusal
