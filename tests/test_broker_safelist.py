"""broker/safelist.py: an entry admits one account from one workstation, and no clock makes it live longer than 8 hours."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.safelist import (
    ENTRY_SECONDS,
    MAX_ADDRESSES_EACH,
    MAX_ENTRIES,
    Address,
    BadAddress,
    BadRow,
    Row,
    Safelist,
    SafelistFull,
    parse_address,
)
from eva.instant import NS, Instant

NOW = Instant(1_790_000_000 * NS, 5_000 * NS)
DESK = IPv4Address("10.1.2.3")
HOUR = 3600
BOOT = "0e5f2d5c-2d39-4b43-8f3e-5e3b5a0f7a11"


def at(wall: float, boot: float) -> Instant:
    """NOW with each clock moved by that many seconds."""
    return Instant(NOW.wall + round(wall * NS), NOW.boot + round(boot * NS))


@pytest.fixture
def safelist() -> Safelist:
    made = Safelist(BOOT)
    made.grant(DESK, "alice", NOW)
    return made


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.1.2.3", DESK),
        ("::ffff:10.1.2.3", DESK),
        ("::FFFF:0a01:0203", DESK),
        ("0:0:0:0:0:ffff:10.1.2.3", DESK),
        ("127.0.0.1", IPv4Address("127.0.0.1")),
        ("::1", IPv6Address("::1")),
        ("2001:DB8:0::1", IPv6Address("2001:db8::1")),
        ("::10.1.2.3", IPv6Address("::a01:203")),  # IPv4-compatible (RFC 4291 2.5.5.1) is deprecated and another address
    ],
)
def test_every_spelling_of_an_address_is_one(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "10.1.2",
        "10.1.2.3:22",
        "10.1.2.3/32",
        "010.1.2.3",
        " 10.1.2.3",
        "10.1.2.3\n",
        "\uff11\uff10.1.2.3",
        "[::1]",
        "1" * 500,
        "fe80::1",
        "fe80::1%eth0",
        "2001:db8::1%eth0",
        "::ffff:10.1.2.3%1",
        "169.254.1.1",
        "::ffff:169.254.1.1",
        "0.0.0.0",  # noqa: S104  nothing is bound to it
        "::",
        "224.0.0.1",
        "ff02::1",
    ],
)
def test_what_is_no_one_workstation_is_refused(text: str) -> None:
    with pytest.raises(BadAddress) as caught:
        parse_address(text)
    assert len(caught.value.text) <= 64


# Whom it admits


def test_a_granted_pair_is_admitted(safelist: Safelist) -> None:
    assert safelist.admits(DESK, "alice", NOW)


@pytest.mark.parametrize(
    ("address", "account"),
    [
        (DESK, "bob"),
        (DESK, "Alice"),
        (IPv4Address("10.1.2.4"), "alice"),
        (IPv6Address("::a01:203"), "alice"),
        (IPv4Address("127.0.0.1"), "alice"),
    ],
)
def test_no_other_pair_is(safelist: Safelist, address: Address, account: str) -> None:
    assert not safelist.admits(address, account, NOW)


def test_a_mapped_address_is_admitted_by_its_ipv4_entry(safelist: Safelist) -> None:
    assert safelist.admits(parse_address("::ffff:10.1.2.3"), "alice", NOW)


def test_a_revoked_pair_is_not_admitted(safelist: Safelist) -> None:
    assert safelist.revoke(DESK, "alice")
    assert not safelist.admits(DESK, "alice", NOW)


def test_revoking_tells_when_there_was_nothing(safelist: Safelist) -> None:
    assert not safelist.revoke(DESK, "bob")


# Eight hours


@pytest.mark.parametrize(
    ("wall", "boot", "admitted"),
    [
        (8 * HOUR - 1e-6, 8 * HOUR - 1e-6, True),
        (8 * HOUR, 8 * HOUR, False),
        (8 * HOUR, HOUR, False),  # the wall clock put forward
        (HOUR, 8 * HOUR, False),  # the wall clock put back
        (-100 * HOUR, 8 * HOUR - 1, True),
        (-100 * HOUR, 8 * HOUR, False),
    ],
)
def test_whichever_clock_is_first_ends_it(safelist: Safelist, wall: float, boot: float, admitted: bool) -> None:
    assert safelist.admits(DESK, "alice", at(wall, boot)) is admitted


def test_a_second_grant_renews(safelist: Safelist) -> None:
    safelist.grant(DESK, "alice", at(HOUR, HOUR))
    assert safelist.admits(DESK, "alice", at(8.5 * HOUR, 8.5 * HOUR))


def test_the_end_given_is_the_end(safelist: Safelist) -> None:
    until = safelist.grant(DESK, "bob", NOW)
    assert safelist.admits(DESK, "bob", Instant(until.wall - 1, until.boot - 1))
    assert not safelist.admits(DESK, "bob", until)


def test_sweeping_gives_what_lapsed_and_keeps_the_rest(safelist: Safelist) -> None:
    safelist.grant(DESK, "bob", at(HOUR, HOUR))
    later = at(8 * HOUR, 8 * HOUR)
    assert safelist.sweep(later) == ((DESK, "alice"),)
    assert safelist.sweep(later) == ()
    assert safelist.admits(DESK, "bob", later)


# Bounds


def test_one_account_has_a_few_workstations() -> None:
    safelist = Safelist(BOOT)
    for i in range(MAX_ADDRESSES_EACH):
        safelist.grant(DESK + i, "alice", NOW)
    with pytest.raises(SafelistFull) as caught:
        safelist.grant(DESK + 100, "alice", NOW)
    assert not caught.value.whole


def test_the_whole_list_is_bounded() -> None:
    safelist = Safelist(BOOT)
    for i in range(MAX_ENTRIES):
        safelist.grant(DESK, f"a{i}", NOW)
    with pytest.raises(SafelistFull) as caught:
        safelist.grant(DESK, "one-more", NOW)
    assert caught.value.whole


def test_a_full_list_still_renews() -> None:
    safelist = Safelist(BOOT)
    for i in range(MAX_ADDRESSES_EACH):
        safelist.grant(DESK + i, "alice", NOW)
    safelist.grant(DESK, "alice", at(HOUR, HOUR))
    assert safelist.admits(DESK, "alice", at(8.5 * HOUR, 8.5 * HOUR))


def test_lapsed_entries_take_no_room() -> None:
    safelist = Safelist(BOOT)
    for i in range(MAX_ADDRESSES_EACH):
        safelist.grant(DESK + i, "alice", NOW)
    safelist.grant(DESK + 100, "alice", at(8 * HOUR, 8 * HOUR))


# Across a restart


def test_entries_survive_a_restart_in_one_boot(safelist: Safelist) -> None:
    again = Safelist.from_rows(safelist.to_rows(), BOOT, at(HOUR, HOUR))
    assert again.to_rows() == safelist.to_rows()


def test_a_wall_clock_put_back_before_a_restart_in_one_boot_lengthens_nothing(safelist: Safelist) -> None:
    again = Safelist.from_rows(safelist.to_rows(), BOOT, at(0, 7.5 * HOUR))
    assert again.admits(DESK, "alice", at(0, 8 * HOUR - 1))
    assert not again.admits(DESK, "alice", at(0.5 * HOUR, 8 * HOUR))


def test_an_end_over_eight_hours_ahead_on_the_wall_is_dropped_in_the_same_boot_too(safelist: Safelist) -> None:
    assert Safelist.from_rows(safelist.to_rows(), BOOT, at(-1, 1)).to_rows() == ()


def after_reboot(wall: float, boot: float) -> Instant:
    return Instant(NOW.wall + round(wall * NS), round(boot * NS))


def test_after_a_reboot_the_wall_clocks_rest_is_left_on_both_clocks(safelist: Safelist) -> None:
    again = Safelist.from_rows(safelist.to_rows(), "another boot", after_reboot(7 * HOUR, 60))
    assert again.admits(DESK, "alice", after_reboot(7 * HOUR, HOUR + 59))
    assert not again.admits(DESK, "alice", after_reboot(7 * HOUR, HOUR + 60))
    assert not again.admits(DESK, "alice", after_reboot(8 * HOUR, 60))


@pytest.mark.parametrize("wall", [8 * HOUR, 9 * HOUR, -1e-6, -24 * HOUR])
def test_after_a_reboot_what_has_lapsed_or_was_granted_in_the_future_is_dropped(safelist: Safelist, wall: float) -> None:
    assert Safelist.from_rows(safelist.to_rows(), "another boot", after_reboot(wall, 60)).to_rows() == ()


def test_a_boot_deadline_beyond_eight_hours_is_dropped(safelist: Safelist) -> None:
    (row,) = safelist.to_rows()
    forged = dataclasses.replace(row, until_boot=row.until_boot + 1)
    assert Safelist.from_rows([forged], BOOT, NOW).to_rows() == ()


@given(
    st.integers(-20 * HOUR, 20 * HOUR),
    st.integers(0, 20 * HOUR),
    st.sampled_from([BOOT, "another boot"]),
    st.integers(-20 * HOUR, 20 * HOUR),
    st.integers(0, 20 * HOUR),
)
def test_no_restart_and_no_clock_lengthens_an_entry(wall: int, boot: int, boot_id: str, wall_step: int, rest: int) -> None:
    """Whatever the clocks did, an entry lives at most 8 h of running time, and in one boot 8 h since its grant."""
    first = Safelist(BOOT)
    first.grant(DESK, "alice", NOW)
    start = at(wall, boot) if boot_id == BOOT else after_reboot(wall, boot)
    again = Safelist.from_rows(first.to_rows(), boot_id, start)
    if again.admits(DESK, "alice", Instant(start.wall + wall_step * NS, start.boot + rest * NS)):
        assert rest + (boot if boot_id == BOOT else 0) < ENTRY_SECONDS


ROW = Row("10.1.2.3", "alice", NOW.wall + NS, NOW.boot + NS, BOOT)


@pytest.mark.parametrize(
    "rows",
    [
        [dataclasses.replace(ROW, address="::ffff:10.1.2.3")],
        [dataclasses.replace(ROW, address="fe80::1%eth0")],
        [dataclasses.replace(ROW, address="")],
        [dataclasses.replace(ROW, account="")],
        [ROW, ROW],
        [dataclasses.replace(ROW, account=f"a{i}") for i in range(MAX_ENTRIES + 1)],
    ],
)
def test_rows_that_were_never_written_are_refused_with_their_place(rows: list[Row]) -> None:
    with pytest.raises(BadRow) as caught:
        Safelist.from_rows(rows, BOOT, NOW)
    assert caught.value.place == len(rows) - 1
