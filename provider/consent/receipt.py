"""A tenant's receipt: what the nodes signed about one consent, and what it shows to whoever has the nodes' public keys.

The document is made of the nodes' own tokens; nothing in it is believed for the provider's saying so. Each record of a
consent's audit chain at a node is told by one token (eva.wire, Event.RECORDED), and each holds the digest of the one before
it, so what was edited, left out before the last, or put elsewhere is found. Errors:

BadReceipt      what the document shows to be wrong: `place`, counted from 1, 0 for the document itself; `why`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from eva.audit import BadChain, Story, Told, verify_records
from eva.audit import Event as Audited
from eva.consent import PROVIDER
from eva.members import BadMember, Json, Members, strict_json
from eva.resource_id import BadResourceId, ResourceId
from eva.token import BadToken, Typ, is_jti, verify
from eva.wire import Event, Receipt
from provider.consent.authority import Refusal, Refused
from provider.store.records import Mark, Records

VERSION = 1
PAGE = 512  # tokens in one answer: a consent's sessions seldom need a second one, and it is 2 MiB at most
MAX_TOKENS = 20_000  # in a file
MAX_BYTES = (MAX_TOKENS + 1) * 4096
LATE_MS = 60_000  # after a consent's expiry: by then its end is recorded, unless the node is gone


class BadReceipt(Exception):
    def __init__(self, place: int, why: str) -> None:
        self.place = place
        self.why = why
        super().__init__(f"token {place}: {why}" if place else why)


def document(
    records: Records, resource_id: ResourceId, consent_id: str | None, now_ms: int, after: Mark | None = None, most: int = PAGE
) -> bytes:
    """The receipt of this consent for this VM, None for the newest; `after`: the page that follows. Raises Refused."""
    if consent_id is None:
        newest = records.newest_of(resource_id, 1)
        consent_id = newest[0].cid if newest else ""
    tokens = records.tokens_of(consent_id)
    if not tokens or tokens[0].resource_key != resource_id.key:
        raise Refused(Refusal.NO_CONSENT, "no consent for this virtual machine has this id")
    abouts = {consent_id, *(one.jti for one in tokens), *(one.jti for one in records.revocations_of(tokens))}
    # a node that never had the consent knows nothing of it, whatever it signs
    said = records.said(sorted({one.node for one in tokens}), sorted(abouts), after, most + 1)
    body: dict[str, Json] = {
        "eva_receipt": VERSION,
        "consent_id": consent_id,
        "resource_id": str(tokens[0].consent().resource_id),
        "made_at_ms": now_ms,
        "tokens": [one.token for one in said[:most]],
    }
    if after is not None:
        body["after"] = str(after)
    if len(said) > most:
        body["next"] = str(said[most - 1].mark)
    return json.dumps(body, indent=1).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Proof:
    """What a receipt shows. `whole`: the chain at every node runs to the consent's end there. `lines`: for people."""

    consent_id: str
    resource_id: ResourceId
    whole: bool
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Document:
    """`after`, `next`: empty where no page is before it, or follows."""

    consent_id: str
    resource_id: ResourceId
    tokens: tuple[str, ...]
    after: str
    next: str


def verify_receipt(pages: Sequence[bytes], keys: Mapping[str, Ed25519PublicKey], now_ms: int) -> Proof:
    """What the document shows, given its pages in order and the nodes' public keys by kid. Raises BadReceipt."""
    found = _joined([_parse(raw) for raw in pages])
    by_key: dict[str, list[tuple[int, Receipt]]] = {}
    for place, token in enumerate(found.tokens, start=1):
        kid, receipt = _receipt(place, token, keys)
        mine = by_key.setdefault(kid, [])
        if mine and receipt.number <= mine[-1][1].number:
            raise BadReceipt(place, f"{receipt.node}'s word {receipt.number} stands after its word {mine[-1][1].number}")
        mine.append((place, receipt))
    lines: list[str] = []
    open_at: list[str] = []
    for said in by_key.values():
        node = said[0][1].node
        story = _story(found, said)
        lines += _told(node, story)
        lines += _signed(node, [receipt for _, receipt in said])
        if (why := _open(story, now_ms)) is not None:
            open_at.append(f"{node}: {why}")
    if not by_key:
        open_at.append("no node has said anything about it")
    if found.next:
        open_at.append(f"a page follows that is not here: $skipToken={found.next}")
    return Proof(found.consent_id, found.resource_id, not open_at, (*lines, *open_at))


def _parse(raw: bytes) -> _Document:
    if len(raw) > MAX_BYTES:
        raise BadReceipt(0, f"longer than {MAX_BYTES} bytes")
    try:
        body = strict_json(raw)
        tokens = body.pop("tokens", None)
        after, following = (str(Mark.parse(str(body.pop(name)))) if name in body else "" for name in ("after", "next"))
        members = Members(body)
        if members.integer("eva_receipt") != VERSION:
            raise BadReceipt(0, f"of another version than {VERSION}")
        consent_id, resource_id = members.text("consent_id"), ResourceId.parse(members.text("resource_id"))
        members.integer("made_at_ms")
        members.nothing_else()
    except (ValueError, BadMember, BadResourceId) as error:
        raise BadReceipt(0, f"no receipt: {error}") from None
    if not isinstance(tokens, list) or len(tokens) > MAX_TOKENS or not is_jti(consent_id):
        raise BadReceipt(0, "no receipt: it needs a consent's id and a list of tokens")
    texts = tuple(token for token in tokens if isinstance(token, str))
    if len(texts) != len(tokens):
        raise BadReceipt(0, "no receipt: a token is no text")
    return _Document(consent_id, resource_id, texts, after, following)


def _joined(pages: Sequence[_Document]) -> _Document:
    """The document that these are the pages of, each following the one before."""
    whole = pages[0]
    if whole.after:
        raise BadReceipt(0, f"the pages before the one that follows {whole.after} are missing")
    for number, page in enumerate(pages[1:], start=2):
        if (page.consent_id, page.resource_id) != (whole.consent_id, whole.resource_id):
            raise BadReceipt(0, f"page {number} is of another consent")
        if not whole.next or page.after != whole.next:
            raise BadReceipt(0, f"page {number} does not follow the one before it")
        whole = replace(page, tokens=whole.tokens + page.tokens, after="")
    return whole


def _receipt(place: int, token: str, keys: Mapping[str, Ed25519PublicKey]) -> tuple[str, Receipt]:
    try:
        claims = verify(token, Typ.RECEIPT, keys, PROVIDER)
        return claims.kid, Receipt.from_claims(claims)
    except BadToken as error:
        raise BadReceipt(place, f"not signed by any of the given nodes' keys, or edited ({error.detail})") from None


def _story(found: _Document, said: Sequence[tuple[int, Receipt]]) -> Story:
    """The chain of one node's records. Raises BadReceipt."""
    nodes = {receipt.node for _, receipt in said}
    if len(nodes) > 1:
        raise BadReceipt(said[0][0], "one key speaks for two nodes")
    recorded = [(place, receipt) for place, receipt in said if receipt.event is Event.RECORDED]
    for place, receipt in recorded:
        if receipt.about != found.consent_id:
            raise BadReceipt(place, "tells of another consent")
    try:
        story = verify_records(found.consent_id, [receipt.record for _, receipt in recorded])
    except BadChain as error:
        raise BadReceipt(recorded[error.line - 1][0], error.why) from None
    for (place, _), told in zip(recorded, story.records, strict=True):
        if (named := told.facts.get("resource_id")) is not None and not _same(named, found.resource_id):
            raise BadReceipt(place, "tells of another virtual machine")
    return story


def _same(named: Json, resource_id: ResourceId) -> bool:
    try:
        return isinstance(named, str) and ResourceId.parse(named) == resource_id
    except BadResourceId:
        return False


def _open(story: Story, now_ms: int) -> str | None:
    """Why the chain does not run to the consent's end, or None if it does."""
    if not story.records:
        return "none of its records is here"
    last = story.records[-1]
    stands = False
    expires_ms = 0
    for told in story.records:
        if told.event in (Audited.CONSENT_ENDED, Audited.CONSENT_REFUSED):
            stands = False if told.event is Audited.CONSENT_ENDED else stands
        elif isinstance(until := told.facts.get("expires_at"), int):
            stands, expires_ms = True, until * 1000
    if story.running:
        return f"the records end at {_utc(last.at_ms)} with {len(story.running)} sessions open"
    if stands and now_ms > expires_ms + LATE_MS:
        return f"the records end at {_utc(last.at_ms)}, before the consent's end at {_utc(expires_ms)}: later ones are missing"
    return f"the consent had not ended by the last record, {_utc(last.at_ms)}" if stands else None


def _told(node: str, story: Story) -> list[str]:
    if not story.records:
        return []
    lines = [f"{node}: {len(story.records)} records, each signed, linked to the one before, none missing between"]
    return lines + [f"  {_utc(told.at_ms)}  {told.event}{_facts(told)}" for told in story.records]


def _facts(told: Told) -> str:
    return "".join(f" {_plain(name)}={_plain(found)}" for name, found in sorted(told.facts.items()))


def _plain(found: Json) -> str:
    """What a terminal may show: a node's texts are its own."""
    if isinstance(found, list):
        return ",".join(map(_plain, found))
    text = str(found)
    return text if text.isprintable() else ascii(text)


def _signed(node: str, said: Sequence[Receipt]) -> list[str]:
    """What a node told the provider outside the chain."""
    return [
        f"  {_utc(one.at_ms)}  {node} to the provider: {one.event} " + " ".join(f"{name}={text}" for name, text in one.facts)
        for one in said
        if one.event is not Event.RECORDED
    ]


def _utc(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError):  # a number that is no time a person could read
        return f"{ms} ms"
