"""The walk: headers whole to their reader, bodies past it, nothing copied that need not be."""

from broker.rfb_walk import Bytes, Walk


class Tagged:
    """A format for the test: a tag, a length byte, a body. K keeps, D drops, R replaces, L has a longer header."""

    def __init__(self) -> None:
        self.walk = Walk(2, self.read)
        self.headers: list[bytes] = []

    def read(self, header: Bytes) -> Bytes | None:
        if header[0] == ord("L") and len(header) < 3:
            self.walk.more(3)
            return None
        self.headers.append(bytes(header))
        self.walk.follow(header[1], passing=header[0] != ord("D"))
        self.walk.expect(2, self.read)
        if header[0] == ord("D"):
            return b""
        return b"<>" if header[0] == ord("R") else header


STREAM = b"K\x03abcD\x02xxR\x01rL\x02!llK\x00D\x00K\x01z"
PASSED = b"K\x03abc<>rL\x02!llK\x00K\x01z"


def test_a_stream_in_one_piece() -> None:
    assert b"".join(Tagged().walk.feed(STREAM)) == PASSED


def test_a_stream_split_at_every_byte() -> None:
    for at in range(len(STREAM) + 1):
        tagged = Tagged()
        assert b"".join(tagged.walk.feed(STREAM[:at]) + tagged.walk.feed(STREAM[at:])) == PASSED


def test_a_stream_byte_by_byte() -> None:
    tagged = Tagged()
    assert b"".join(b"".join(tagged.walk.feed(bytes((byte,)))) for byte in STREAM) == PASSED


def test_readers_see_whole_headers() -> None:
    tagged = Tagged()
    for byte in STREAM:
        tagged.walk.feed(bytes((byte,)))
    assert tagged.headers == [b"K\x03", b"D\x02", b"R\x01", b"L\x02!", b"K\x00", b"D\x00", b"K\x01"]


def test_a_piece_inside_a_body_goes_on_as_the_same_object() -> None:
    tagged = Tagged()
    tagged.walk.feed(b"K\x10")
    piece = bytearray(16)
    (passed,) = tagged.walk.feed(memoryview(piece))
    assert isinstance(passed, memoryview)
    assert passed.obj is piece


def test_a_piece_with_nothing_to_take_out_goes_on_as_it_came() -> None:
    piece = b"K\x03abcK\x01z"
    (passed,) = Tagged().walk.feed(piece)
    assert passed is piece


def test_an_empty_piece_gives_nothing() -> None:
    assert Tagged().walk.feed(b"") == ()


def test_a_walk_awaits_its_reader_only_between_a_body_and_the_next_header() -> None:
    tagged = Tagged()
    states = [tagged.walk.awaits(tagged.read)]
    for byte in b"K\x01z":
        tagged.walk.feed(bytes((byte,)))
        states.append(tagged.walk.awaits(tagged.read))
    assert states == [True, False, False, True]
