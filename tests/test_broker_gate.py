"""broker/gate.py: a byte passes while the session is live at that very byte, and never again after it was shut."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from broker.gate import Gate
from broker.lease import LeaseState, Limits
from broker.watching import Rein
from eva.ending import Ending
from eva.instant import NS
from eva.ledger import Term
from eva.wire import Lease
from tests.broker_parts import NODE, START, HandClock, jti


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The broker's end of a console, and the guest's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


class Stand:
    """A gate that is open: 60 s of consent, a lease of now, an operator attached."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.lease = LeaseState(Limits())
        self.rein = Rein("cid", watched=False)
        self.renew()
        now = self.clock.now()
        self.gate = Gate(self.clock, Term(now.wall + 60 * NS, now.boot + 60 * NS), self.lease, self.rein)
        self.gate.paused = False

    def renew(self) -> None:
        nonce = jti()
        self.lease.ask(nonce, self.clock.now())
        self.lease.count(Lease(NODE, nonce, 0, 0, START), 0)


def test_open_it_lets_bytes_through(ends):
    stand = Stand()
    assert stand.gate.send(ends[0], b"ls\n") == 3
    assert ends[1].recv(10) == b"ls\n"


def test_it_counts_them(ends):
    stand = Stand()
    stand.gate.send(ends[0], b"ls\n")
    assert stand.gate.passed == 3


def test_before_an_operator_is_attached_it_is_closed(ends):
    stand = Stand()
    stand.gate.paused = True
    assert stand.gate.send(ends[0], b"x") == 0


def test_shut_it_stays_shut(ends):
    stand = Stand()
    stand.gate.shut(Ending.CONSENT_REVOKED)
    stand.renew()
    assert stand.gate.send(ends[0], b"x") == 0


def test_the_first_reason_stays():
    stand = Stand()
    assert stand.gate.shut(Ending.CONSENT_REVOKED)
    assert not stand.gate.shut(Ending.NODE_STOPPING)
    assert stand.gate.ending is Ending.CONSENT_REVOKED


def test_expiry_on_the_wall_clock_is_found_at_the_byte(ends):
    stand = Stand()
    stand.clock.step(60)
    assert stand.gate.send(ends[0], b"x") == 0


def test_expiry_on_the_boot_clock_is_found_at_the_byte(ends):
    stand = Stand()
    stand.clock.boot += 60 * NS
    stand.renew()
    assert stand.gate.send(ends[0], b"x") == 0


def test_an_old_lease_holds_and_a_new_one_lets_go(ends):
    stand = Stand()
    stand.clock.run(7)
    assert stand.gate.send(ends[0], b"x") == 0
    stand.renew()
    assert stand.gate.send(ends[0], b"x") == 1


def test_a_full_socket_takes_nothing_and_blocks_nobody(ends):
    stand = Stand()
    while stand.gate.send(ends[0], b"x" * 65536):
        pass
    assert stand.gate.open()


def test_a_console_that_is_gone_is_told(ends):
    stand = Stand()
    ends[1].close()
    with pytest.raises(OSError, match="Broken pipe"):
        stand.gate.send(ends[0], b"x")


def test_keys_are_released_once_also_when_shut(ends):
    stand = Stand()
    stand.gate.shut(Ending.CONSENT_REVOKED)
    stand.gate.release(ends[0], b"up")
    stand.gate.release(ends[0], b"up")
    assert ends[1].recv(10) == b"up"


def test_a_release_never_waits(ends):
    stand = Stand()
    while stand.gate.send(ends[0], b"x" * 65536):
        pass
    stand.gate.release(ends[0], b"up")


# -- the giver's rein --------------------------------------------------------------------------------------------------


def test_a_rein_that_holds_lets_no_input_through(ends):
    stand = Stand()
    stand.rein.paused = True
    assert stand.gate.send(ends[0], b"ls\n") == 0
    assert not stand.gate.open()


def test_it_lets_through_what_is_no_input(ends):
    stand = Stand()
    stand.rein.paused = True
    assert stand.gate.send(ends[0], b"update", is_input=False) == 6


def test_what_is_no_input_does_not_pass_a_gate_that_is_shut(ends):
    stand = Stand()
    stand.gate.shut(Ending.CONSENT_REVOKED)
    assert stand.gate.send(ends[0], b"update", is_input=False) == 0


def test_who_holds_is_told():
    stand = Stand()
    assert stand.gate.held_by == ""
    stand.clock.run(7)
    assert stand.gate.held_by == "lease"
    stand.rein.paused = True
    assert stand.gate.held_by == "tenant"
