"""A walk over a stream of headers and bodies that copies neither where it need not. Pure."""

from collections.abc import Callable

Bytes = bytes | memoryview
Reader = Callable[[Bytes], Bytes | None]


class Walk:
    """Hands each header to its reader and passes or drops the bytes that follow it, whatever the pieces they come in.

    A reader gives what goes on in the header's place: that very object, other bytes or none; or None once it has
    asked with `more` because the header is longer than it seemed. It calls `expect` for the next header and `follow`
    for the bytes in between. At most one incomplete header is kept.
    """

    __slots__ = ("_body", "_head", "_need", "_passing", "_read")

    def __init__(self, need: int, read: Reader) -> None:
        self._head = bytearray()
        self._need = need
        self._read = read
        self._body = 0
        self._passing = True

    def expect(self, need: int, read: Reader) -> None:
        """Let the next header have `need` bytes (at least 1) and be read by `read`."""
        self._need = need
        self._read = read

    def more(self, need: int) -> None:
        """Let the present header have `need` bytes, more than it had; the reader is called again."""
        self._need = need

    def follow(self, length: int, *, passing: bool = True) -> None:
        """Let `length` bytes follow unread, which go on or, without `passing`, are dropped."""
        self._body = length
        self._passing = passing

    def awaits(self, read: Reader) -> bool:
        """Whether nothing of the next header has come yet and `read` will get it."""
        return not self._body and not self._head and self._read == read

    def feed(self, data: Bytes) -> tuple[Bytes, ...]:
        """Give the pieces of `data` that go on, slices of it wherever possible. Raise what a reader raises."""
        if self._passing and self._body >= len(data) > 0:
            # The hot path: a piece wholly inside pixels goes on as it came
            self._body -= len(data)
            return (data,)
        view = memoryview(data)
        size = len(view)
        pieces: list[Bytes] = []
        at = kept = 0  # bytes walked, and bytes of them that are in `pieces` or dropped
        while at < size:
            if self._body:
                start, at = at, min(at + self._body, size)
                self._body -= at - start
                if not self._passing:
                    pieces.append(view[kept:start])
                    kept = at
                continue
            missing = self._need - len(self._head)
            if self._head or missing > size - at:
                pieces.append(view[kept:at])
                self._head += view[at : at + missing]
                at = kept = min(at + missing, size)
                if len(self._head) == self._need:
                    pieces.append(self._read_head())
                continue
            header = view[at : at + missing]
            answer = self._read(header)
            if answer is None:
                continue
            if answer is not header:
                pieces += view[kept:at], answer
                kept = at + missing
            at += missing
        if not kept:  # nothing was taken out
            return (data,) if size else ()
        pieces.append(view[kept:])
        return tuple([piece for piece in pieces if piece])

    def _read_head(self) -> Bytes:
        answer = self._read(bytes(self._head))
        if answer is None:
            return b""
        self._head.clear()
        return answer
