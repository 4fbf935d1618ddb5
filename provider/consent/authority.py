"""The rules by which the provider decides, without store, network or clock. Errors:

Refused         a wish or message that is not granted: which `Refusal`, and a `detail` for the log and the caller
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from eva.consent import MAX_AHEAD, MAX_SECONDS
from eva.ledger import Reject
from eva.wire import Event, LeaseRequest, Receipt

ALIVE_MS = 6_000  # a node asks every 2 s: after three asks missed it gets no new consent
CUT_MS = 1_000  # what a node may take to cut once its lease is too old (design section 6, invariant 1)


class Refusal(StrEnum):
    """Why; a metric label."""

    UNKNOWN_NODE = "unknown-node"
    WRONG_NODE = "wrong-node"  # signed by one node, spoken in the name of another
    AHEAD = "ahead"  # the node has applied revocations that this store never made
    LATE = "late"  # the node has said more since: nobody waits for this answer
    ROLLED_BACK = "rolled-back"  # the node's state is older than what it signed
    NO_NODE = "no-node"
    TOO_SOON = "too-soon"
    TOO_LONG = "too-long"
    TOO_BIG = "too-big"  # more than a token can hold
    NO_CONSENT = "no-consent"
    NODE_REFUSED = "node-refused"
    NODE_SILENT = "node-silent"
    ENROLLED = "enrolled"  # the name or the key is enrolled already
    BAD_NAME = "bad-name"
    FEATURE_OFF = "feature-off"
    UNKNOWN_VM = "unknown-vm"  # no node has it
    CONFLICT = "conflict"  # what stands for this VM was asked for otherwise
    NOT_WATCHABLE = "not-watchable"  # tenants can watch at none of the nodes that would have it
    NOT_GIVER = "not-giver"  # somebody else consented


class Refused(Exception):
    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        self.refusal = refusal
        self.detail = detail
        super().__init__(f"{refusal}: {detail}" if detail else str(refusal))


def issue_time(now: int, *passed: int | None) -> int:
    """The `iat` of a new consent: past the VM's last watermark, which so never covers it, and past the consent's older tokens.

    Unix seconds; None where there is none. Raises Refused where a node would take it for a token from the future.
    """
    issued_at = max([now, *(one + 1 for one in passed if one is not None)])
    if issued_at > now + MAX_AHEAD:
        raise Refused(Refusal.TOO_SOON, f"what stands for this VM was made {issued_at - now} s ahead of this clock")
    return issued_at


def expiry(now: int, seconds: int) -> int:
    """The `exp` of a consent for `seconds` from now. Raises Refused."""
    if not 0 < seconds <= MAX_SECONDS:
        raise Refused(Refusal.TOO_LONG, f"a consent lasts 1 to {MAX_SECONDS} seconds")
    return now + seconds


def check_span(issued_at: int, expires_at: int) -> None:
    """Raises Refused for a consent that would end before it begins."""
    if expires_at <= issued_at:
        raise Refused(Refusal.TOO_SOON, "it would end before it begins: the last one was made this very second")


def watermark_time(now: int, issued: Iterable[int]) -> int:
    """The `issued_by` that covers every consent issued until now, also those whose `iat` runs ahead of the clock."""
    return max([now, *issued])


def at_latest(revoked_ms: int, cut_seconds: int) -> int:
    """When a node that never hears of a revocation has cut (Unix milliseconds).

    No lease leaves after `revoked_ms` without the revocation, so the last that can stand was asked for before it.
    """
    return revoked_ms + cut_seconds * 1000 + CUT_MS


def taken(highest: int, receipts: Iterable[Receipt]) -> list[Receipt]:
    """Of these receipts those that follow `highest` without a gap, in order; the others are sent again by the node."""
    run: list[Receipt] = []
    for receipt in sorted(receipts, key=lambda receipt: receipt.number):
        if receipt.number == highest + len(run) + 1:
            run.append(receipt)
    return run


def confirms(receipt: Receipt, seq: int, consent: str | None, revocation: str) -> bool:
    """Whether the receipt says that this revocation is done: applied, on disk, every session of it cut.

    One for a single consent is answered about that consent; a watermark about the revocation itself, since each
    consent under it may end with a receipt of its own.
    """
    return receipt.event is Event.ENDED and receipt.seq == seq and receipt.about in (consent, revocation)


class AnchorVerdict(StrEnum):
    """What a node's word about its own audit chain is, beside what it said before."""

    FORWARD = "forward"
    SAME = "same"
    LATE = "late"  # shorter, in a message no newer than the newest read: overtaken, or brought again
    BEHIND = "behind"  # shorter, in the newest message of all: the node's state is an old one
    CONFLICT = "conflict"  # another head at the same count: the node signed both, so nobody else can feign it


ROLLED_BACK = frozenset({AnchorVerdict.BEHIND, AnchorVerdict.CONFLICT})


def judge_anchor(request: LeaseRequest, count: int, head: str, head_then: str | None, newest: int | None) -> AnchorVerdict:
    """`count`, `head`: the longest it ever told, 0 and empty before the first. `head_then`: what it once told for this count,
    None where that is not known. `newest`: the newest `iat` it was read with.

    FORWARD and SAME are answered whatever the `iat`: a clock that was set back says nothing about the state. BEHIND and CONFLICT
    are refused for good: who carries messages can bring old ones again, but a node's chain only grows, so a shorter one in a
    message newer than all that were read is none of those (unless it was signed before the node's clock was set back, and kept
    since). LATE gets neither answer nor blame: a node asks one question after the other, so it waits for this answer no more. An
    old state whose clock is old too is LATE: no lease either, and what it tells does not grow until it has one (broker.uplink).
    """
    if request.audit_count > count or (head == "" and request.audit_head != ""):
        return AnchorVerdict.FORWARD
    known = head if request.audit_count == count else head_then
    if known is not None and known != request.audit_head:
        return AnchorVerdict.CONFLICT
    if request.audit_count == count:
        return AnchorVerdict.SAME
    # in one second a node asks more than once
    return AnchorVerdict.BEHIND if newest is None or request.issued_at > newest else AnchorVerdict.LATE


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as the choice sees it. `asked_ms`: its last signed lease request. `load`: unexpired consents it serves."""

    name: str
    asked_ms: int
    load: int


def ranked(candidates: Sequence[Candidate], now_ms: int) -> list[str]:
    """The nodes that are alive, the least loaded first, by name among equals. Raises Refused where none is."""
    alive = [one for one in candidates if one.asked_ms > now_ms - ALIVE_MS]
    if not alive:
        raise Refused(
            Refusal.NO_NODE, f"none of {len(candidates)} enrolled nodes has asked for a lease in the last {ALIVE_MS // 1000} s"
        )
    return [one.name for one in sorted(alive, key=lambda one: (one.load, one.name))]


@dataclass(frozen=True, slots=True)
class Failed:
    """A node that was offered a consent in vain. `refused`: its signed word, or NOT_WATCHABLE; empty where it said nothing.

    `why` for people.
    """

    node: str
    refused: str
    why: str


def verdict(tries: Sequence[Failed]) -> Refused:
    """What the giver is told when no node took his consent."""
    said = "; ".join(f"{one.node} refused: {one.refused}" if one.refused else f"{one.node}: {one.why}" for one in tries)
    if any(not one.refused for one in tries):
        return Refused(Refusal.NODE_SILENT, f"{said}; nothing was granted")
    unwatched = [one.node for one in tries if one.refused == Refusal.NOT_WATCHABLE]
    if unwatched and all(one.refused in (Refusal.NOT_WATCHABLE, Reject.VM_UNKNOWN) for one in tries):
        why = f"tenants cannot watch at {', '.join(unwatched)}: nothing was granted that stands only while one watches"
        return Refused(Refusal.NOT_WATCHABLE, why)
    if all(one.refused == Reject.VM_UNKNOWN for one in tries):
        return Refused(Refusal.UNKNOWN_VM, f"no node knows this virtual machine ({said})")
    return Refused(Refusal.NODE_REFUSED, said)


class RecentNonces:
    """The last nonces of each node, so that the second way of one ask (HTTPS after MQTT) and a replay count for nothing.

    In memory, and each provider has its own: a replay that another provider, or this one after a restart, takes for an ask gets
    a lease for a nonce that its node no longer waits for. It makes a lost node look alive, so that its consents do not move:
    whoever can replay could as well have dropped the consents' letters.
    """

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._seen: dict[str, dict[str, None]] = {}

    def first_time(self, kid: str, nonce: str) -> bool:
        """Whether this enrolled key has not asked with this nonce lately; remembers that it has now."""
        seen = self._seen.setdefault(kid, {})
        if nonce in seen:
            return False
        seen[nonce] = None
        if len(seen) > self._most:
            del seen[next(iter(seen))]
        return True
