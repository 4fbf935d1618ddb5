"""broker/lobby.py: who has a seat, and who gives one up."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from broker.lobby import Bounds, Lobby, Seat
from broker.safelist import Address

EVIL, HOME = IPv4Address("203.0.113.0"), IPv4Address("192.0.2.10")
SMALL = Bounds(most=12, each=4, strangers=8)


class Door:
    """A lobby, and what became of those who came."""

    def __init__(self, bounds: Bounds = SMALL) -> None:
        self.lost = 0
        self.gone: list[object] = []
        self.lobby = Lobby(bounds, self._count)

    def _count(self) -> None:
        self.lost += 1

    def come(self, address: Address, name: object = None, *, familiar: bool = False) -> Seat | None:
        return self.lobby.enter(address, lambda: self.gone.append(name), familiar=familiar)

    def fill(self, *counts: int, familiar: bool = False) -> None:
        """So many from each of as many addresses, named (address, number)."""
        for place, count in enumerate(counts):
            for number in range(count):
                assert self.come(EVIL + place, (place, number), familiar=familiar) is not None


@pytest.fixture
def door() -> Door:
    return Door()


def test_an_address_has_so_many_and_loses_none_of_its_own(door: Door) -> None:
    door.fill(4)
    assert door.come(EVIL) is None
    assert (len(door.lobby), door.lost, door.gone) == (4, 1, [])


def test_an_address_has_no_more_by_becoming_familiar(door: Door) -> None:
    door.fill(3)
    assert door.come(EVIL, familiar=True) is not None
    assert door.come(EVIL, familiar=True) is None


def test_an_ipv6_network_is_one_address(door: Door) -> None:
    network = 0x2001_0DB8 << 96
    assert [door.come(IPv6Address(network + i)) is not None for i in range(5)] == [True] * 4 + [False]
    assert door.come(IPv6Address(network + (1 << 64))) is not None


def test_an_ipv4_address_is_no_ipv6_network(door: Door) -> None:
    door.fill(4)
    assert door.come(IPv6Address(int(EVIL) << 64)) is not None


def test_a_seat_left_is_free_again(door: Door) -> None:
    seats = [door.come(EVIL) for _ in range(4)]
    assert seats[0] is not None
    seats[0].leave()
    assert [door.come(EVIL) is not None for _ in range(2)] == [True, False]


def test_a_seat_left_twice_is_free_once(door: Door) -> None:
    seats = [door.come(EVIL) for _ in range(4)]
    assert seats[0] is not None
    seats[0].leave()
    seats[0].leave()
    assert [door.come(EVIL) is not None for _ in range(2)] == [True, False]
    assert len(door.lobby) == 4


def test_a_calm_stranger_gets_the_oldest_seat_of_the_busiest_address(door: Door) -> None:
    door.fill(2, 4, 2)
    assert door.come(HOME) is not None
    assert (door.gone, door.lost, len(door.lobby)) == ([(1, 0)], 1, 8)


def test_of_a_flood_from_many_addresses_the_oldest_goes(door: Door) -> None:
    door.fill(*[1] * 8)
    assert door.come(HOME) is not None
    assert door.gone == [(0, 0)]


def test_an_address_takes_no_seat_of_one_that_has_no_more(door: Door) -> None:
    door.fill(2, 2, 2, 2)
    assert door.come(EVIL) is None
    assert (door.gone, door.lost, len(door.lobby)) == ([], 1, 8)


def test_a_flood_takes_no_seat_of_a_calm_address(door: Door) -> None:
    assert door.come(HOME, "calm") is not None
    for number in range(1000):
        door.come(EVIL + number % 5, number)
    assert "calm" not in door.gone


def test_strangers_leave_seats_to_the_familiar(door: Door) -> None:
    door.fill(2, 2, 2, 2)
    for number in range(4):
        assert door.come(HOME + number, familiar=True) is not None
    assert door.gone == []


def test_when_all_are_taken_a_stranger_goes_before_one_who_is_familiar(door: Door) -> None:
    door.fill(2, 2, 2, 2)
    for number in range(2):
        for name in ("familiar", "familiar too"):
            assert door.come(HOME + number, name, familiar=True) is not None
    assert door.come(HOME + 2, familiar=True) is not None
    assert door.gone == [(0, 0)]


def test_the_familiar_share_what_is_left_among_them(door: Door) -> None:
    door.fill(4, 4, 4, familiar=True)
    assert door.come(HOME, familiar=True) is not None
    assert (door.gone, door.lost) == ([(0, 0)], 1)


def test_a_stranger_takes_no_seat_of_the_familiar_while_strangers_have_their_share(door: Door) -> None:
    for number in range(4):
        assert door.come(HOME + number, "familiar", familiar=True) is not None
    door.fill(4, 4)
    assert door.come(EVIL + 2) is not None
    assert door.gone == [(0, 0)]


def test_who_had_to_give_way_does_not_count_when_it_goes(door: Door) -> None:
    seat = door.come(EVIL, "first")
    assert seat is not None
    door.fill(0, *[1] * 7)
    assert door.come(HOME) is not None
    assert door.gone == ["first"]
    seat.leave()
    assert len(door.lobby) == 8


def test_an_empty_lobby_remembers_nobody(door: Door) -> None:
    seats = [door.come(EVIL + i, familiar=i % 2 == 0) for i in range(8)]
    for seat in seats:
        assert seat is not None
        seat.leave()
    assert len(door.lobby) == 0
    assert door.lobby._familiar.places == door.lobby._strangers.places == {}
