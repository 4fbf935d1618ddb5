"""One keyboard for each VM: who may type. Pure. It changes hands only openly; the caller records and tells every change."""

from __future__ import annotations


class Keyboard:
    """`owner` is the id of the session that types, or None."""

    __slots__ = ("owner",)

    def __init__(self) -> None:
        self.owner: str | None = None

    def claim_free(self, session: str) -> bool:
        """Takes the keyboard if nobody has it. Whether `session` owns it afterwards."""
        if self.owner is None:
            self.owner = session
        return self.owner == session

    def take(self, session: str) -> str | None:
        """Takes it, whoever has it. Gives who had it, if that was another."""
        before, self.owner = self.owner, session
        return before if before != session else None

    def let_go(self, session: str) -> bool:
        """Gives it up. Whether it was this session's."""
        if self.owner != session:
            return False
        self.owner = None
        return True
