"""Consents, ledger, lease, session and gate against a simple model of what they promise, under every order of events.

The model keeps plain sets and numbers. After each step it says of every open console whether an operator's byte may pass,
and of every consent whether it may stand; the broker must say the same, whatever was lost, late, replayed or crashed.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker import state as state_file
from broker.admission import covers
from broker.consents import Consents
from broker.gate import Gate
from broker.lease import Hold, LeaseState, Limits
from broker.metrics import Metrics
from broker.outbox import Outbox
from broker.session import Session, State, Step
from broker.state import Change
from broker.watching import Rein
from eva.consent import CLOUDADMIN, MAX_AHEAD, MAX_SECONDS, Access, Consent, Kind, Principal, Revocation
from eva.ending import Ending
from eva.instant import NS
from eva.ledger import KEEP_SECONDS, Accepted, Term
from eva.token import SigningKey
from eva.wire import Envelope, Lease
from tests.broker_parts import ALICE, NODE, PIN, START, HandClock, Signer, consent, jti, revocation_of, watermark_over

NODE_KEY = SigningKey(Ed25519PrivateKey.generate())
PROVIDER_KEYS = [SigningKey(Ed25519PrivateKey.generate()) for _ in range(6)]
ROOT_KEY = SigningKey(Ed25519PrivateKey.generate())
OPERATORS = (frozenset({CLOUDADMIN}), frozenset({Principal(False, "bob")}))


class LateDisk:
    """In the journal's place: keeps the order, and writes when the test says so. A crash loses what waits."""

    def __init__(self) -> None:
        connection = sqlite3.connect(":memory:", isolation_level="DEFERRED")
        connection.executescript(state_file._SCHEMA)
        self.state = state_file.State(Path("memory"), connection)
        self.waiting: list[tuple[Change, Callable[[], None] | None]] = []

    def post(self, change: Change | None = None, *_: object, then: Callable[[], None] | None = None) -> None:
        self.waiting.append((change or Change(), then))

    def write(self) -> None:
        while self.waiting:
            change, then = self.waiting.pop(0)
            self.state.write(change.statements)
            if then is not None:
                then()


@dataclass
class Console:
    """An operator's session under a consent, and the model's word on it."""

    session: Session
    gate: Gate
    consent: Consent
    until: Term
    over: bool = False


@dataclass(frozen=True)
class Question:
    nonce: str
    boot: int
    seq: int
    run: int


class Broker(RuleBasedStateMachine):
    consents = Bundle("consents")
    facts = Bundle("facts")
    questions = Bundle("questions")

    @initialize(target=consents, seconds=st.sampled_from([1, 5, 3600, MAX_SECONDS]))
    def begin(self, seconds: int) -> Consent:
        """A new node with one consent, a fresh lease and an operator at the console: most that can go wrong begins here."""
        self.clock = HandClock()
        self.disk = LateDisk()
        self.runs = itertools.count(1)
        self.boot_id = "boot0"
        self.consoles: list[Console] = []
        # the provider's own books
        self.revocations: list[Revocation] = []
        self.signer = Signer(ROOT_KEY, PROVIDER_KEYS[0])
        self.keys = {PROVIDER_KEYS[0].kid}
        self.rotations = 0
        # the model: what this run was told, what the disk has of it
        self.accepted: dict[str, tuple[Consent, int]] = {}
        self.dead: set[str] = set()
        self.marks: dict[object, int] = {}
        self.seen = 0
        self.asked: dict[str, Question] = {}
        self.told_seqs: set[int] = set()
        self.known_keys: tuple[int, set[str]] = (0, set())
        self.on_disk: tuple[dict[str, Consent], set[str], dict[object, int], int, set[int]] = ({}, set(), {}, 0, set())
        self.keys_on_disk = self.known_keys
        self.fresh: tuple[int, int] | None = None  # when the newest lease that counts was asked for; its seq
        self.waiting_lease: list[tuple[Question, int]] = []
        self.start()
        first = replace(consent(seconds, vm="a"), kid=self.signer.key.kid)
        self.come_to(first)
        return first

    def start(self) -> None:
        self.run_number = next(self.runs)
        self.lease = LeaseState(Limits())
        outbox = Outbox(NODE, NODE_KEY, bytes)
        public = self.signer.root.private.public_key()
        self.node = Consents(
            NODE,
            public,
            self.clock,
            self.boot_id,
            self.disk,
            outbox,
            self.lease,
            Metrics(),
            lambda _: (PIN,),  # type: ignore[arg-type]
        )
        self.node.cutter = self
        self.node.restore(self.disk.state.load())

    def end_consents(self, jtis: list[str], ending: Ending) -> int:
        """The sessions' part of a cut."""
        for console in self.consoles:
            if console.consent.jti in jtis and console.gate.shut(ending):
                console.session.take(Step.END, ending)
        return 0

    def carry_on(self, before: Accepted, after: Accepted) -> int:
        """The sessions' part of a renewal."""
        for console in self.consoles:
            if console.session.accepted is before and console.gate.ending is None:
                if covers(after.consent, ALICE, Kind.SERIAL, Access.KEYBOARD):
                    console.session.accepted = after
                    console.gate.term = console.gate.term.at_most(after.term)
                else:
                    console.gate.shut(Ending.CONSENT_REVOKED)
                    console.session.take(Step.END, Ending.CONSENT_REVOKED)
        return 0

    def extend(self, accepted: Accepted) -> None:
        for console in self.consoles:
            if console.session.accepted is accepted:
                console.gate.term = accepted.term

    # -- the model ------------------------------------------------------------------------------------------------------

    def covered(self, one: Consent) -> bool:
        return one.jti in self.dead or one.issued_at <= self.marks.get(one.resource_id, -1)

    def wall(self) -> int:
        return max(self.clock.wall, self.seen)

    def may_stand(self, one: Consent) -> bool:
        known = self.accepted.get(one.jti)
        if known is None or self.covered(one):
            return False
        return self.wall() < one.expires_at * NS and self.clock.boot < known[1]

    def lease_age(self) -> float:
        return float("inf") if self.fresh is None else (self.clock.boot - self.fresh[0]) / NS

    def seq(self, seqs: set[int]) -> int:
        return next(n for n in itertools.count() if n + 1 not in seqs)

    def close_dead(self) -> None:
        for console in self.consoles:
            console.over |= self.covered(console.consent)

    def disk_done(self) -> None:
        """All that waited is on disk."""
        kept = {j: c for j, (c, _) in self.accepted.items()}
        self.keys_on_disk = self.known_keys
        for console in self.consoles:
            console.until = self.end_of(console.consent)
        self.on_disk = (kept, set(self.dead), dict(self.marks), self.noted, set(self.told_seqs))
        for question, seq in self.waiting_lease:
            if self.seq(self.told_seqs) >= seq and (self.fresh is None or question.boot > self.fresh[0]):
                self.fresh = (question.boot, seq)
        self.waiting_lease.clear()

    noted = 0

    def end_of(self, one: Consent) -> Term:
        return Term(one.expires_at * NS, self.accepted[one.jti][1])

    def letter(self, one: Consent | Revocation | Lease, key: SigningKey | None = None, *more: Revocation) -> bytes:
        """What the provider sends, with its newest key set; the node has heard of that set when it is through."""
        signed = (key or self.signer.key).sign(one.TYP, one.to_claims())
        ring = [k for k in PROVIDER_KEYS if k.kid in self.keys]
        self.hear_keys()
        return Envelope(signed, keys=self.signer.key_set(*ring), revocations=tuple(map(self.signer.sign, more))).encode()

    def hear_keys(self) -> None:
        if self.signer.version > self.known_keys[0]:
            self.known_keys = (self.signer.version, set(self.keys))
            self.dead |= {j for j, (c, _) in self.accepted.items() if c.kid not in self.keys}
            self.close_dead()

    def told(self, one: Revocation) -> None:
        self.told_seqs.add(one.seq)
        if one.consent is not None:
            self.dead.add(one.consent)
        else:
            self.marks[one.resource_id] = max(self.marks.get(one.resource_id, -1), one.issued_by or 0)
        self.close_dead()

    # -- rules ----------------------------------------------------------------------------------------------------------

    @rule(
        target=consents,
        seconds=st.sampled_from([1, 60, 3600, MAX_SECONDS]),
        ahead=st.sampled_from([-5, 0, 30, 31]),
        vm=st.sampled_from("ab"),
    )
    def sign(self, seconds: int, ahead: int, vm: str) -> Consent:
        one = consent(seconds, issued_at=self.clock.wall // NS + ahead, vm=vm)
        return replace(one, kid=self.signer.key.kid)

    @rule(
        target=consents,
        one=consents,
        seconds=st.sampled_from([1, 60, 3600, MAX_SECONDS]),
        later=st.sampled_from([None, -1, 0, 1, 30]),
        operators=st.sampled_from(OPERATORS),
        access=st.sampled_from(Access),
    )
    def renew_at_the_provider(
        self, one: Consent, seconds: int, later: int | None, operators: frozenset[Principal], access: Access
    ) -> Consent:
        return self.sign_a_renewal(one, seconds, later, operators, access)

    def sign_a_renewal(
        self, one: Consent, seconds: int, later: int | None, operators: frozenset[Principal], access: Access
    ) -> Consent:
        """As the provider does, issued now; or as it never would, so and so long after the one that it renews."""
        issued = max(self.clock.wall // NS, one.issued_at + 1) if later is None else one.issued_at + later
        again = consent(seconds, issued, cid=one.cid, resource_id=one.resource_id, operators=operators, access=access)
        return replace(again, kid=self.signer.key.kid)

    @precondition(lambda self: self.consoles)
    @rule(
        target=consents,
        which=st.integers(0, 9),
        seconds=st.sampled_from([60, 3600, MAX_SECONDS]),
        operators=st.sampled_from(OPERATORS),
        written=st.booleans(),
    )
    def renew_under_a_console(self, which: int, seconds: int, operators: frozenset[Principal], written: bool) -> Consent:
        """The tenant renews while an operator is on."""
        one = self.sign_a_renewal(
            self.consoles[-1 - which % len(self.consoles)].consent, seconds, None, operators, Access.KEYBOARD
        )
        self.deliver(one)
        if written:
            self.write()
        return one

    @precondition(lambda self: self.rotations + 1 < len(PROVIDER_KEYS))
    @rule(overlap=st.booleans())
    def rotate_the_key(self, overlap: bool) -> None:
        self.rotations += 1
        old, self.signer.key = self.signer.key, PROVIDER_KEYS[self.rotations]
        self.signer.version += 1
        self.keys = {self.signer.key.kid} | ({old.kid} if overlap else set())

    @rule()
    def withdraw_older_keys(self) -> None:
        self.signer.version += 1
        self.keys = {self.signer.key.kid}

    @rule(one=consents)
    def grant(self, one: Consent) -> None:
        self.deliver(one)

    def deliver(self, one: Consent) -> None:
        """For the first time or again, signed as it was."""
        self.node.take_consent(self.letter(one, next(k for k in PROVIDER_KEYS if k.kid == one.kid)))
        if one.kid not in self.known_keys[1]:
            return
        self.run_out()
        if one.jti in self.accepted or self.covered(one):
            return
        seconds = self.wall() // NS
        mine = [c for c, _ in self.accepted.values() if c.cid == one.cid]
        outdated = any(one.issued_at <= c.issued_at for c in mine)
        if one.expires_at <= seconds or one.issued_at > seconds + MAX_AHEAD or outdated:
            self.dead.add(one.jti)  # refused, for good
            return
        left = min(one.expires_at - seconds, one.expires_at - one.issued_at)
        self.accepted[one.jti] = (one, self.clock.boot + left * NS)
        for before in mine:
            self.renew(before, one)

    def renew(self, before: Consent, after: Consent) -> None:
        """`after` takes the place of `before`, if that stood. Until it is on disk, consoles carried over end with the sooner."""
        admits = after.operators == OPERATORS[0] and after.access is Access.KEYBOARD
        for console in self.consoles:
            if console.consent.jti == before.jti and not console.over:
                console.over = not admits
                if admits:
                    console.consent = after
                    console.until = console.until.at_most(self.end_of(after))
        self.dead.add(before.jti)

    def run_out(self) -> None:
        """What time has ended is over, for the node has looked."""
        self.seen, boot = self.wall(), self.clock.boot
        self.dead |= {j for j, (c, until) in self.accepted.items() if self.seen >= c.expires_at * NS or boot >= until}
        self.close_dead()

    @rule(target=facts, one=consents, mark=st.booleans())
    def revoke_at_the_provider(self, one: Consent, mark: bool) -> Revocation:
        seq = len(self.revocations) + 1
        self.revocations.append(watermark_over(one, seq) if mark else revocation_of(one, seq))
        return self.revocations[-1]

    @rule(fact=facts)
    def revoke(self, fact: Revocation) -> None:
        """Delivered early, late or again."""
        self.told(fact)
        self.node.take_revocation(self.letter(fact))

    @rule(one=consents)
    def delete(self, one: Consent) -> None:
        if self.may_stand(one):
            found = self.node.ledger.get(one.jti)
            assert found is not None
            self.node.delete([found], "alice")
            self.dead.add(one.jti)
            self.close_dead()

    @rule(target=questions)
    def ask(self) -> Question:
        return self.question()

    def question(self) -> Question:
        question = Question(jti(), self.clock.boot, self.node.seq_on_disk, self.run_number)
        self.lease.ask(question.nonce, self.clock.now())
        self.asked[question.nonce] = question
        while len(self.asked) > 16:
            del self.asked[next(iter(self.asked))]
        return question

    @rule(question=questions, page=st.sampled_from([1, 64]))
    def answer(self, question: Question, page: int) -> None:
        self.take_answer(question, page)

    def take_answer(self, question: Question, page: int) -> None:
        """The provider's answer, at once or late, the first or a replay; it carries what came after the seq asked with."""
        lease = Lease(NODE, question.nonce, len(self.revocations), 0, START)
        more = self.revocations[question.seq : question.seq + page]
        asked = question.nonce in self.asked
        assert self.node.take_lease(self.letter(lease, None, *more)) == asked
        if not asked:
            return
        for fact in more:
            self.told(fact)
        if question.nonce in {q.nonce for q, _ in self.waiting_lease}:
            return  # what it carries closes; the question counts once
        told = self.seq(self.told_seqs)
        if told < lease.seq:
            return
        if told > self.seq(self.on_disk[4]):
            self.waiting_lease.append((question, lease.seq))
            return
        del self.asked[question.nonce]
        if self.fresh is None or question.boot > self.fresh[0]:
            self.fresh = (question.boot, lease.seq)

    @rule()
    def disk_catches_up(self) -> None:
        self.write()

    @rule(one=consents)
    def operator_comes(self, one: Consent) -> None:
        self.come_to(one)

    def come_to(self, one: Consent) -> None:
        """All goes as it should: delivered, a lease at once, all on disk, and the console asked for."""
        self.deliver(one)
        self.take_answer(self.question(), 64)
        self.write()
        self.try_to_open(one)

    def write(self) -> None:
        self.disk.write()
        for question, _ in self.waiting_lease:
            self.asked.pop(question.nonce, None)
        self.disk_done()

    @rule(one=consents)
    def open_console(self, one: Consent) -> None:
        self.try_to_open(one)

    def try_to_open(self, one: Consent) -> None:
        """An operator comes: admitted exactly if the model would."""
        now = self.clock.now()
        found = {a.consent.jti: a for a in self.node.ledger.standing(now)}.get(one.jti)
        admitted = found is not None and self.lease.is_open(now)
        assert admitted == (self.may_stand(one) and self.lease_age() <= 6)
        if found is not None and admitted and covers(one, ALICE, Kind.SERIAL, Access.KEYBOARD):
            self.consoles.append(self.console(found))

    def console(self, found: Accepted) -> Console:
        gate = Gate(self.clock, found.term, self.lease, Rein(found.consent.cid, watched=False))
        session = Session("s", ALICE, found, Kind.SERIAL, Access.KEYBOARD, self.clock.now())
        for step in (Step.ADMIT, Step.OPENED, Step.ATTACH):
            session.take(step)
        gate.paused = False
        return Console(session, gate, found.consent, self.end_of(found.consent))

    @precondition(lambda self: self.consoles)
    @rule(which=st.integers(0, 9))
    def drop_or_come_back(self, which: int) -> None:
        one = self.consoles[which % len(self.consoles)]
        if one.session.state is not State.ENDED:
            one.session.take(Step.DETACH if one.session.state is State.LIVE else Step.ATTACH)
            one.gate.paused = one.session.state is not State.LIVE

    @rule(seconds=st.sampled_from([0.5, 2, 5.9, 6.1, 9, 15.1, 60, 3600, MAX_SECONDS]))
    def run(self, seconds: float) -> None:
        """Time goes on, or the host sleeps: the boot clock knows no difference."""
        self.clock.run(seconds)

    @rule(seconds=st.sampled_from([-MAX_SECONDS, -3600, -31, -1, 1, 31, 3600, KEEP_SECONDS + MAX_SECONDS]))
    def step_the_wall_clock(self, seconds: int) -> None:
        self.clock.step(seconds)

    @rule(note=st.booleans())
    def tick(self, note: bool) -> None:
        now = self.clock.now()
        self.node.tick(now)
        self.run_out()
        if note:
            self.node.note_time(now)
            self.noted = max(self.noted, self.seen)
        if self.lease.hold(now) is Hold.LOST:
            self.end_consents(list(self.accepted), Ending.LEASE_LOST)
        for console in self.consoles:
            console.over |= self.lease_age() > 15

    @rule(reboot=st.booleans())
    def crash(self, reboot: bool) -> None:
        """What is not on disk is forgotten; nobody's console comes back."""
        self.disk.waiting.clear()
        self.waiting_lease.clear()
        self.consoles.clear()
        self.asked.clear()
        self.fresh = None
        kept, self.dead, self.marks, self.seen, self.told_seqs = (x if isinstance(x, int) else x.copy() for x in self.on_disk)  # type: ignore[attr-defined]
        self.noted = self.seen
        self.known_keys = self.keys_on_disk
        if reboot:
            self.clock.boot, self.boot_id = 5 * NS, f"boot{self.run_number}"
        assert self.disk.state.load().wall_seen == self.seen
        self.clock.wall = max(self.clock.wall, self.seen)  # a node whose clock is behind does not start
        self.start()
        old = self.accepted
        self.accepted = {}
        for one in kept.values():
            left = max(0, one.expires_at * NS - self.clock.wall)
            boot = self.clock.boot + left
            self.accepted[one.jti] = (one, boot if reboot or one.jti not in old else min(boot, old[one.jti][1]))
        # what has no row of an ending but its number is what the provider sends again
        self.told_seqs = set(range(1, self.seq(self.told_seqs) + 1))
        # as the daemon does before it serves
        self.node.begin(self.clock.now())
        self.noted = self.seen = max(self.seen, self.clock.wall)
        self.run_out()
        self.write()

    # -- what must hold -------------------------------------------------------------------------------------------------

    @invariant()
    def a_byte_passes_exactly_when_it_may(self) -> None:
        now = self.clock.now()
        for one in self.consoles:
            in_term = now.wall < one.until.wall and now.boot < one.until.boot
            live = one.session.state is State.LIVE
            assert one.gate.open() == (not one.over and live and in_term and self.lease_age() <= 6)

    @invariant()
    def a_console_ends_when_its_consent_does(self) -> None:
        """Also one that an operator is not typing at just now."""
        for one in self.consoles:
            assert one.over or one.gate.term == one.until

    @invariant()
    def what_stands_is_what_may(self) -> None:
        now = self.clock.now()
        assert {a.consent.jti for a in self.node.ledger.standing(now)} == {
            j for j, (c, _) in self.accepted.items() if self.may_stand(c)
        }

    @invariant()
    def of_one_cid_one_stands(self) -> None:
        cids = [a.consent.cid for a in self.node.ledger.standing(self.clock.now())]
        assert len(cids) == len(set(cids))

    @invariant()
    def an_open_lease_knows_every_revocation_that_it_vouches_for(self) -> None:
        if self.lease.is_open(self.clock.now()):
            assert self.fresh is not None
            vouched = self.revocations[: self.fresh[1]]
            standing = [a.consent for a in self.node.ledger.standing(self.clock.now())]
            for fact in vouched:
                assert not [c for c in standing if c.jti == fact.consent]
                assert not [c for c in standing if c.resource_id == fact.resource_id and c.issued_at <= (fact.issued_by or 0)]


def profile(examples: int, steps: int, *, random: bool) -> settings:
    """`random`: other examples each time, to find what nobody has thought of; else the same ones, to hold what was found."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=not random,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


class TestModel(Broker.TestCase):
    settings = profile(200, 40, random=False)


@pytest.mark.faults
@pytest.mark.timeout(3600)
class TestModelAtLength(Broker.TestCase):
    settings = profile(5000, 80, random=True)
