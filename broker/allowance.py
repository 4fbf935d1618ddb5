"""How little may lie below the gate (invariant 4): what was written and the guest may not have read yet. Pure.

A paused guest takes nothing, and what libvirt and QEMU hold for it cannot be called back: it would reach the guest after
the cut. So no more than LIMIT bytes go down until there is a sign that they were taken.
"""

from __future__ import annotations

LIMIT = 256  # bytes


class EchoAllowance:
    """For serial: any output of the guest is the sign. The operator may release LIMIT more by hand ("send anyway")."""

    def __init__(self) -> None:
        self._room = LIMIT
        self.stale = 0  # bytes written since the guest's last output: what it may still receive after a cut

    @property
    def room(self) -> int:
        return self._room

    def wrote(self, count: int) -> None:
        self._room -= count
        self.stale += count

    def guest_spoke(self) -> None:
        self._room = LIMIT
        self.stale = 0

    def release(self) -> None:
        """The operator's "send anyway"."""
        self._room = LIMIT


class QueueAllowance:
    """For graphics: the kernel's count of what QEMU has not read yet is the sign (SIOCOUTQ, unix(7)).

    On a unix socket that count is of buffer memory, not of bytes: only its zero is exact, so bytes are counted here.
    """

    __slots__ = ("stale",)

    def __init__(self) -> None:
        self.stale = 0

    def fits(self, size: int) -> bool:
        """Whether so many bytes may be written even if none of those before were read: no need to ask the kernel."""
        return size <= LIMIT - self.stale

    def room(self, queued: int) -> int:
        """Bytes that may be written now, given the kernel's count."""
        if queued == 0:
            self.stale = 0
        return LIMIT - self.stale

    def wrote(self, count: int) -> None:
        self.stale += count
