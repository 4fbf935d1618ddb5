"""broker/outbox.py: numbers without gaps, and each receipt kept until the provider has it."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.outbox import Outbox
from broker.state import Change, StoredReceipt
from eva.token import SigningKey
from eva.wire import MAX_RECEIPTS, Event
from tests.broker_parts import NODE, HandClock, jti

KEY = SigningKey(Ed25519PrivateKey.generate())


def outbox(*events: Event) -> Outbox:
    made = Outbox(NODE, KEY, bytes)
    for event in events:
        made.add(Change(), event, jti(), HandClock().now())
    return made


def numbers(of: Outbox) -> list[int]:
    return sorted(of._waiting)


def test_numbers_have_no_gap():
    assert numbers(outbox(*[Event.ACCEPTED] * 5)) == [1, 2, 3, 4, 5]


def test_they_go_on_after_a_restart_though_nothing_waits():
    box = outbox()
    box.restore([], 41)
    assert box.add(Change(), Event.ENDED, jti(), HandClock().now()).number == 42


def test_the_oldest_go_first_and_only_so_many():
    box = Outbox(NODE, KEY, bytes)
    stored = [StoredReceipt(n, f"token{n}", Event.ENDED, "x") for n in range(1, MAX_RECEIPTS + 5)]
    box.restore(reversed(stored), len(stored))
    assert box.oldest() == tuple(f"token{n}" for n in range(1, MAX_RECEIPTS + 1))


def test_what_is_delivered_goes():
    box = outbox(*[Event.ENDED] * 3)
    assert (box.delivered(2), numbers(box)) == ([1, 2], [3])


def test_a_deletion_stays_until_it_is_answered():
    box = outbox(Event.DELETED)
    assert (box.delivered(1), numbers(box)) == ([], [1])
    box.answered(Change(), box._waiting[1].about)
    assert (box.delivered(1), numbers(box)) == ([1], [])


def test_an_answer_is_for_its_own_consent():
    box, change = outbox(Event.DELETED), Change()
    box.answered(change, jti())
    assert (box.delivered(1), change.statements) == ([], [])


def test_it_is_written_where_it_is_added():
    box, change = outbox(), Change()
    box.add(change, Event.ENDED, jti(), HandClock().now())
    assert [sql.split()[0:3] for sql, _ in change.statements] == [["INSERT", "INTO", "receipt"], ["INSERT", "OR", "REPLACE"]]
