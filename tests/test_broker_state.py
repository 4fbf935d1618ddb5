"""broker/state.py on real SQLite files: all that was written comes back, and a file that is not whole is refused by name."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from broker.safelist import Row
from broker.state import BadState, Change, Loaded, State
from broker.watching import StoredRein
from eva.ending import Ending
from eva.instant import NS
from eva.ledger import Accepted, Ended, Pin, Term, Watermark
from eva.wire import Event, Receipt
from hypervisor.inventory import Inventory
from hypervisor.sighting import Listed, Seen
from tests.broker_parts import NODE, PIN, START, consent, jti, vm_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    State.create(tmp_path / "state.db", NODE)
    return tmp_path / "state.db"


def load(path: Path) -> Loaded:
    state = State.open(path, NODE)
    try:
        return state.load()
    finally:
        state.close()


def write(path: Path, change: Change) -> Loaded:
    state = State.open(path, NODE)
    state.write(change.statements)
    state.close()
    return load(path)


def test_a_new_one_is_empty(path: Path):
    found = load(path)
    assert (found.consents, found.ended, found.seq, found.last_receipt, found.audit_count) == ((), (), 0, 0, 0)


def test_only_its_owner_may_read_it(path: Path):
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_consent_comes_back(path: Path):
    one = consent()
    (row,) = write(path, Change().consent(Accepted(one, PIN, Term(1, 2)), "token", "boot1")).consents
    assert (row.token, row.host, row.uuid, row.generation, row.term_wall, row.term_boot, row.boot_id) == (
        "token", PIN.host, PIN.uuid, PIN.generation, 1, 2, "boot1",
    )  # fmt: skip


def test_the_generation_that_a_consent_names_is_counted_on_from(path: Path):
    """It may be known to this run alone: of a domain that was away when it began. Or the consent would end at a restart."""
    domain = Seen(PIN.uuid, "vm1", 1, True, False, None, True, True, False, None)
    second = Inventory(write(path, Change().generation(PIN.host, PIN.uuid, 2)).generations)
    second.apply(PIN.host, Listed(0))  # gone while nobody looked
    second.apply(PIN.host, domain)
    pin = Pin(PIN.host, PIN.uuid, second.vms[0].generation)
    third = Inventory(write(path, Change().consent(Accepted(consent(), pin, Term(1, 2)), "token", "boot1")).generations)
    third.apply(PIN.host, domain)
    third.apply(PIN.host, Listed(1))
    assert third.vms[0].generation == pin.generation == 3


def test_a_generation_never_falls(path: Path):
    write(path, Change().generation(PIN.host, PIN.uuid, 3))
    found = write(
        path, Change().consent(Accepted(consent(), PIN, Term(1, 2)), "token", "boot1").generation(PIN.host, PIN.uuid, 2)
    )
    assert found.generations == {(PIN.host, PIN.uuid): 3}


def test_an_ending_comes_back_and_its_first_reason_stays(path: Path):
    first = Ended(jti(), Ending.FEATURE_DISABLED, START)
    assert write(path, Change().ended(first).ended(Ended(first.jti, Ending.CONSENT_REVOKED, 0))).ended == (first,)


def test_a_watermark_only_rises(path: Path):
    high, low = (Watermark(vm_id(), by, Ending.CONSENT_REVOKED, by) for by in (START, START - 9))
    assert write(path, Change().watermark(high).watermark(low)).watermarks == (high,)


def test_receipts_come_back_in_order_until_they_are_delivered(path: Path):
    change = Change()
    for number in (2, 1, 3):
        change.receipt(Receipt(NODE, jti(), number, Event.DELETED, "about", 0), f"token{number}")
    found = write(path, change.deletion_answered(2).receipts_delivered([1]))
    assert [(r.number, r.event) for r in found.receipts] == [(2, Event.ENDED), (3, Event.DELETED)]


def test_the_safelist_is_replaced_whole(path: Path):
    one, other = (Row(f"10.0.0.{n}", "alice", 1, 2, "boot1") for n in (1, 2))
    write(path, Change().workstations([one]))
    assert write(path, Change().workstations([other])).workstations == (other,)


def test_generations_and_counts_come_back(path: Path):
    found = write(path, Change().generation("host1", "uuid", 4).meta("seq", 7).meta("wall_seen", 9 * NS).meta("keys:2", "token"))
    assert (found.generations, found.seq, found.wall_seen, found.keys) == ({("host1", "uuid"): 4}, 7, 9 * NS, {2: "token"})


def test_a_change_is_all_or_nothing(path: Path):
    state = State.open(path, NODE)
    with pytest.raises(sqlite3.Error):
        state.write([*Change().meta("seq", 7).statements, ("INSERT INTO nothing VALUES (1)", ())])
    state.close()
    assert load(path).seq == 0


def test_it_is_never_made_over_one_that_is_there(path: Path):
    with pytest.raises(FileExistsError):
        State.create(path, NODE)


def refusal(path: Path) -> BadState:
    with pytest.raises(BadState) as caught:
        load(path)
    assert caught.value.path == path
    return caught.value


def test_a_missing_file(tmp_path: Path):
    assert "keygen" in refusal(tmp_path / "state.db").why


@pytest.mark.parametrize("raw", [b"", b"not a database" * 100, b"SQLite format 3\0" + bytes(4096)])
def test_a_file_that_is_none(tmp_path: Path, raw: bytes):
    path = tmp_path / "state.db"
    path.write_bytes(raw)
    refusal(path)


def test_another_nodes(tmp_path: Path):
    State.create(tmp_path / "state.db", "AzS-ERCS02")
    assert "AzS-ERCS02" in refusal(tmp_path / "state.db").why


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 9",
        "DROP TABLE ended",
        "INSERT INTO ended VALUES ('x', 'no-such-reason', 1)",
        "INSERT INTO watermark VALUES ('/no/resource', 1, 'consent-revoked', 1)",
        "INSERT INTO meta VALUES ('seq', 'seven')",
        "INSERT INTO meta VALUES ('keys:x', 'token')",
        "INSERT INTO receipt VALUES (1, 'token', 'no-such-event', 'x')",
        "DELETE FROM meta",
    ],
)
def test_what_makes_no_sense_is_refused(path: Path, sql: str):
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()
    refusal(path)


def test_a_truncated_file_is_refused(path: Path):
    raw = path.read_bytes()
    for size in range(512, len(raw) - 4096, 4096):
        path.write_bytes(raw[:size])
        refusal(path)


def test_a_flipped_bit_is_refused_or_read_and_never_another_error(path: Path):
    change = Change()
    for number in range(1, 30):
        one = consent()
        change.consent(Accepted(one, PIN, Term(1, 2)), "token" * 50, "boot1").ended(Ended(one.jti, Ending.CONSENT_REVOKED, START))
        change.receipt(Receipt(NODE, jti(), number, Event.ENDED, one.jti, 0), "token")
    write(path, change)
    whole, rounds = path.read_bytes(), random.Random(3)
    refused = 0
    for _ in range(400):
        raw = bytearray(whole)
        at = rounds.randrange(len(raw))
        raw[at] ^= 1 << rounds.randrange(8)
        path.write_bytes(bytes(raw))
        try:
            load(path)
        except BadState as error:
            assert error.path == path  # noqa: PT017 - it is allowed not to be raised
            refused += 1
    assert refused > 20


def test_pauses_and_watch_tokens_come_back(path: Path):
    change = (
        Change().pause("c1", paused=True).watch_begun("c1").watch_begun("c2").pause("c2", paused=False).pause("c3", paused=True)
    )
    write(path, change.watch("t1", 60).watch("t2", 90).forget_watches(60).forget_reins(["c3"]))
    found = load(path)
    assert found.reins == (StoredRein("c1", paused=True, begun=True), StoredRein("c2", paused=False, begun=True))
    assert found.watches == {"t2": 90}
