"""The RFB filter: stands between one operator's VNC client and QEMU's VNC server, trusting neither. Pure: bytes in, bytes out.

Invariants 4, 6 and 9 of the design; RFC 6143. What it decides and why: docs/decisions/, "RFB filter".
"""

from typing import Final

from broker.rfb_client import ClientMessage, ClientSide, ClientStep
from broker.rfb_protocol import Agreement, Dropped, RfbError, Stage
from broker.rfb_server import ServerSide, ServerStep

__all__ = ["ClientMessage", "ClientStep", "Dropped", "RfbError", "RfbFilter", "ServerStep"]

MAX_TITLE = 200


class RfbFilter:
    """One viewer: both directions of one connection to QEMU. After an RfbError every call raises RfbError.

    `from_operator(data, keyboard)` takes the client's bytes and gives whole messages for QEMU, each of at most 256 bytes.
    Without `keyboard`, key and pointer messages that end in `data` are dropped and counted. `is_input(data)`: whether these
    are one key or one movement, whole and by itself, which `from_operator` would give as they are to whoever has a keyboard.
    `from_guest(data)` takes QEMU's bytes and gives the pieces for the client, slices of `data` wherever possible.
    """

    __slots__ = ("_agreement", "_server", "from_guest", "from_operator", "is_input")

    def __init__(self, title: str) -> None:
        """`title` is shown by the client in place of the guest's name: printable ASCII, at most 200; else ValueError."""
        if not (title.isascii() and title.isprintable() and len(title) <= MAX_TITLE):
            raise ValueError(title)
        self._agreement = Agreement()
        client = ClientSide(self._agreement)
        self._server = ServerSide(self._agreement, title)
        # theirs, without a detour by this object: each key and each piece of a screen goes this way
        self.is_input: Final = client.is_input
        self.from_operator: Final = client.feed
        self.from_guest: Final = self._server.feed

    @property
    def running(self) -> bool:
        """Whether the handshake is done."""
        return self._agreement.stage is Stage.RUNNING

    @property
    def screen(self) -> tuple[int, int]:
        """Width and height in pixels as the guest last told; (0, 0) before the handshake is done."""
        return self._agreement.width, self._agreement.height

    @property
    def relative(self) -> bool:
        """Whether the guest takes pointer events as movements (rfbproto, QEMU Pointer Motion Change)."""
        return self._agreement.relative

    @property
    def at_rest(self) -> bool:
        """Whether the guest's last byte was the last of its message."""
        return self._server.at_rest
