"""The control websocket's language: JSON-RPC 2.0 between an operator's client and a node (docs/protocol.md).

A client asks (`Request`), the node answers each request once and in order (`Answer` or `Failure`), and tells by itself what
happens to the client's sessions (`Notice`). One text frame holds one message; batches are not spoken.

Errors:

    BadMember       what came is no message of this language (from eva.members)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from eva.consent import Access, Kind, is_node_name
from eva.members import BadMember, Json, Members, strict_json

SUBPROTOCOL = "eva.control.v1"
SERIAL_SUBPROTOCOL = "eva.serial.v1"
GRAPHICS_SUBPROTOCOL = "eva.vnc.v1"
TICKET_PREFIX = "eva.ticket."  # the second offered subprotocol carries the ticket
CONTROL_PATH = "/v1/control"
CONSOLE_PATH = "/v1/console"
MAX_MESSAGE = 16_384  # bytes of one control message
MAX_SECRET = 1024  # characters of a password
CTRL_ALT_DEL = (29, 56, 111)  # Linux input key codes
MAX_CHORD = 5

CONSOLE_SUBPROTOCOLS = {Kind.SERIAL: SERIAL_SUBPROTOCOL, Kind.GRAPHICS: GRAPHICS_SUBPROTOCOL}


class Method(StrEnum):
    """What a client may ask. Parameters and results: docs/protocol.md."""

    # account, password; or again; or nothing, with a client certificate or the cookie of an issuer's word
    SIGN_IN = "sign_in"
    WORKSTATION_GRANT = "workstation.grant"
    WORKSTATION_REVOKE = "workstation.revoke"
    CONSENTS_LIST = "consents.list"
    SESSION_OPEN = "session.open"  # resource_id, kind, access (optional)
    SESSION_RESUME = "session.resume"  # session, received
    SESSION_LEAVE = "session.leave"  # session
    SESSION_DELETE = "session.delete"  # resource_id
    KEYBOARD_TAKE = "keyboard.take"  # session
    KEYBOARD_GIVE = "keyboard.give"  # session, to
    KEYS_SEND = "keys.send"  # session, chord
    INPUT_RELEASE = "input.release"  # session
    INPUT_MASK = "input.mask"  # session, from, count


class Event(StrEnum):
    """What a node tells by itself."""

    COUNTDOWN = "session.countdown"  # session, remaining_s
    RENEWED = "session.renewed"  # session, expires_at, remaining_s
    VIEWERS = "session.viewers"  # session, viewers, keyboard
    HELD = "session.held"  # session, held, why
    PAUSED = "session.paused"  # session, paused
    ENDED = "session.ended"  # session, reason, text, at_ms, stale_bytes


class Refusal(StrEnum):
    """Why the node did not do it: the word in an error's `data.reason`, and a metric's label."""

    BAD_REQUEST = "bad-request"
    NOT_SIGNED_IN = "not-signed-in"
    WRONG_CREDENTIALS = "wrong-credentials"
    RATE_LIMITED = "rate-limited"
    NOT_SAFELISTED = "not-safelisted"
    NO_CONSENT = "no-consent"  # also where there is one for other operators, or for no VM of this node
    NOT_CONSENTED = "not-consented"  # the kind or the access
    VM_AMBIGUOUS = "vm-ambiguous"
    VM_NOT_RUNNING = "vm-not-running"
    NOT_WATCHED = "not-watched"
    PAUSED = "paused"
    LEASE_STALE = "lease-stale"
    CONSOLE_BUSY = "console-busy"
    CONSOLE_FAILED = "console-failed"
    NO_SESSION = "no-session"
    NO_KEYBOARD = "no-keyboard"
    TOO_MANY = "too-many"
    AUDIT_FAILED = "audit-failed"
    STOPPING = "stopping"


_TEXTS = {
    Refusal.BAD_REQUEST: "The request is not one that this node understands.",
    Refusal.NOT_SIGNED_IN: "Sign in first.",
    Refusal.WRONG_CREDENTIALS: "The account, the password or the certificate is wrong.",
    Refusal.RATE_LIMITED: "Too many attempts. Wait a minute.",
    Refusal.NOT_SAFELISTED: "This workstation is not on the safelist of this node. Run Grant-RdpAccessToErcsVM first.",
    Refusal.NO_CONSENT: "There is no consent in force for you on this virtual machine at this node.",
    Refusal.NOT_CONSENTED: "The tenant did not consent to this kind of console or access.",
    Refusal.VM_AMBIGUOUS: "More than one virtual machine carries this resource ID. The platform must mend that first.",
    Refusal.VM_NOT_RUNNING: "The virtual machine is not running.",
    Refusal.NOT_WATCHED: "The tenant consented only while watching, and is not watching now.",
    Refusal.PAUSED: "The tenant has paused all input.",
    Refusal.LEASE_STALE: "This node cannot reach the resource provider, so nothing new opens.",
    Refusal.CONSOLE_BUSY: "The console is in use outside Emergency VM Access.",
    Refusal.CONSOLE_FAILED: "The hypervisor did not open the console.",
    Refusal.NO_SESSION: "There is no such session of yours.",
    Refusal.NO_KEYBOARD: "You do not hold the keyboard, or the consent is for viewing only.",
    Refusal.TOO_MANY: "This node has as many sessions as it may.",
    Refusal.AUDIT_FAILED: "The audit record cannot be written, so nothing opens.",
    Refusal.STOPPING: "This node is starting or stopping.",
}
_CODES = {Refusal.BAD_REQUEST: -32602} | {
    refusal: -32001 - place for place, refusal in enumerate(r for r in Refusal if r is not Refusal.BAD_REQUEST)
}


class Refused(Exception):
    """The node refuses a request. `detail` is for the node's log, never for the peer.

    `node`: where the consent is that this node has not, if the provider knows; a hint.
    """

    def __init__(self, refusal: Refusal, detail: str = "", node: str | None = None) -> None:
        self.refusal = refusal
        self.detail = detail
        self.node = node
        super().__init__(f"{refusal}: {detail}" if detail else str(refusal))

    @property
    def text(self) -> str:
        """What a person is told."""
        return _TEXTS[self.refusal]


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `id` is echoed in the answer."""

    id: int
    method: Method
    params: Mapping[str, Json] = field(default_factory=dict, repr=False)  # may hold a password

    def encode(self) -> str:
        return _dump({"jsonrpc": "2.0", "id": self.id, "method": str(self.method), "params": dict(self.params)})

    @classmethod
    def decode(cls, text: str) -> Request:
        """Raises BadMember."""
        members = rpc_members(text)
        request = cls(members.integer("id"), members.convert("method", Method), members.table("params", most=8))
        members.nothing_else()
        return request


@dataclass(frozen=True, slots=True)
class Answer:
    id: int
    result: Mapping[str, Json] = field(repr=False)  # may hold a ticket

    def encode(self) -> str:
        return _dump({"jsonrpc": "2.0", "id": self.id, "result": dict(self.result)})


@dataclass(frozen=True, slots=True)
class Failure:
    """`id` is None where the request's own could not be read. `node`: as in Refused."""

    id: int | None
    refusal: Refusal
    node: str | None = None

    def encode(self) -> str:
        data: dict[str, Json] = {"reason": str(self.refusal)}
        if self.node is not None:
            data["node"] = self.node
        error: dict[str, Json] = {"code": _CODES[self.refusal], "message": _TEXTS[self.refusal], "data": data}
        return _dump({"jsonrpc": "2.0", "id": self.id, "error": error})


@dataclass(frozen=True, slots=True)
class Notice:
    event: Event
    params: Mapping[str, Json]

    def encode(self) -> str:
        return encode_notice(self.event, self.params)


def encode_notice(event: StrEnum, params: Mapping[str, Json]) -> str:
    """What a node tells by itself, on whichever channel has such an event."""
    return _dump({"jsonrpc": "2.0", "method": str(event), "params": dict(params)})


def decode_from_node(text: str) -> Answer | Failure | Notice:
    """What the node said, for a client. Raises BadMember."""
    members = rpc_members(text)
    if members.has("method"):
        found: Answer | Failure | Notice = Notice(members.convert("method", Event), members.table("params", most=16))
    elif members.has("error"):
        error = Members(members.table("error", most=3))
        data = Members(error.table("data", most=2))
        node = data.convert("node", _node_name) if data.has("node") else None
        found = Failure(members.integer("id") if not members.null("id") else None, data.convert("reason", Refusal), node)
        data.nothing_else()
    else:
        found = Answer(members.integer("id"), members.table("result", most=32))
    members.nothing_else()
    return found


def _node_name(text: str) -> str:
    """Raises ValueError."""
    if not is_node_name(text):
        raise ValueError
    return text


_dump: Callable[[Mapping[str, Json]], str] = json.JSONEncoder(separators=(",", ":")).encode


def rpc_members(text: str) -> Members:
    """The members of one JSON-RPC message. Raises BadMember."""
    if len(text) > MAX_MESSAGE:
        raise BadMember(f"a message of {len(text)} characters")
    try:
        members = Members(strict_json(text.encode()))
    except ValueError as error:
        raise BadMember(str(error)[:80]) from None
    members.exactly("jsonrpc", "2.0")
    return members


@dataclass(frozen=True, slots=True)
class Opened:
    """The result of `session.open` and `session.resume`: how to fetch the console, and what is known about it.

    `ticket`: one use, 30 s. `remaining_s`: until the consent ends. `offset`: where the console's bytes will start for this
    attachment (serial). `keyboard`: whether this session holds it.
    """

    session: str
    ticket: str = field(repr=False)
    kind: Kind
    access: Access
    keyboard: bool
    consent: str
    resource_id: str
    node: str
    giver: str
    reason: str
    expires_at: int
    remaining_s: int

    def to_members(self) -> dict[str, Json]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_members(cls, members: Members) -> Opened:
        """Raises BadMember."""
        return cls(
            session=members.text("session", longest=64),
            ticket=members.text("ticket", longest=64),
            kind=members.convert("kind", Kind),
            access=members.convert("access", Access),
            keyboard=members.truth("keyboard"),
            consent=members.text("consent", longest=64),
            resource_id=members.text("resource_id"),
            node=members.text("node"),
            giver=members.text("giver"),
            reason=members.text("reason"),
            expires_at=members.integer("expires_at"),
            remaining_s=members.integer("remaining_s"),
        )


# What a guest may ask of the owner's terminal. The bytes stand here and not on the wire, so a guest cannot shape them.
QUERIES = {"da1": b"\x1b[c", "dsr5": b"\x1b[5n", "dsr6": b"\x1b[6n"}


class Mark(StrEnum):
    """The `notice` member of a text frame on a serial console. A client that ignores text frames still works."""

    ATTACHED = (
        "attached"  # offset: the count of console bytes at which this attachment starts; taken: operator bytes taken so far
    )
    HELD = "held"  # held: bytes waiting, 0 when they are all through; why: "no-echo", "lease" or "tenant"
    TAKEN = "taken"  # taken: operator bytes taken so far, so that a client knows what to send again after a drop
    QUERY = "query"  # query: one of QUERIES; the terminal's answer is typed. To the keyboard's owner only, never replayed
    ENDED = "ended"  # reason, text


def encode_mark(mark: Mark, **members: Json) -> str:
    """The text frame that says so."""
    return _dump({"notice": str(mark), **members})


def decode_mark(text: str) -> tuple[Mark, Members]:
    """The notice and its other members. Raises BadMember."""
    if len(text) > MAX_MESSAGE:
        raise BadMember("too long")
    try:
        members = Members(strict_json(text.encode()))
    except ValueError as error:
        raise BadMember(str(error)[:80]) from None
    return members.convert("notice", Mark), members
