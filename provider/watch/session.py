"""What is sealed into a watching tenant's cookies, and the cookies (RFC 6265bis). Pure. Errors: ValueError for what is none.

The session's is for one consent: another one's page does not get it, and would not take it. The one of a sign-in under way
is `Lax`, because the issuer's redirect comes from another site; whoever replays it has neither the browser's state nor an
authorization code, each of which works once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from eva.members import BadMember, Json, Members, strict_json
from oidc.relying_party import Pending
from provider.rest.caller import Caller

SESSION_COOKIE = "__Secure-eva-watch"  # not __Host-, which would send it to every consent's page
SIGN_IN_COOKIE = "__Host-eva-watch-sign-in"
SESSION_SECONDS = 28_800
SIGN_IN_SECONDS = 600
VERDICT_SECONDS = 60
MAX_GROUPS = 8
MAX_COOKIE = 4096  # what browsers keep (RFC 6265bis 5.6)
MOST_ALIKE = 4


class Verdict(StrEnum):
    """Why a sign-in opened nothing: kept until the page has asked."""

    DECLINED = "declined"  # by the issuer, or the person at its page
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    NOT_GIVER = "not-giver"
    NO_ROLE = "no-role"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Session:
    """`caller` signed in to watch the consent `cid`; of his groups those that give a right there. `expires_at`: Unix seconds."""

    cid: str
    caller: Caller
    expires_at: int

    def to_json(self) -> str:
        who = self.caller
        body: dict[str, Json] = {"cid": self.cid, "issuer": who.issuer, "id": who.id, "name": who.name, "home": who.home}
        body["exp"] = self.expires_at
        if who.groups:
            body["groups"] = sorted(who.groups)
        return json.dumps(body)

    @classmethod
    def from_json(cls, text: str) -> Session:
        members = Members(strict_json(text.encode()))
        try:
            groups = members.each("groups", str, MAX_GROUPS) if members.has("groups") else []
            issuer, identifier, name = (members.text(one) for one in ("issuer", "id", "name"))
            caller = Caller(issuer, identifier, name, frozenset(groups), members.truth("home"))
            found = cls(members.text("cid"), caller, members.integer("exp"))
            members.nothing_else()
        except BadMember as error:
            raise ValueError(error.why) from None
        return found


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in that was begun for the consent `cid`."""

    cid: str
    pending: Pending

    def to_json(self) -> str:
        return json.dumps({"cid": self.cid, "pending": self.pending.to_json()})

    @classmethod
    def from_json(cls, text: str) -> SignIn:
        members = Members(strict_json(text.encode()))
        try:
            found = cls(members.text("cid"), Pending.from_json(members.text("pending")))
            members.nothing_else()
        except BadMember as error:
            raise ValueError(error.why) from None
        return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sign-in for the consent `cid` came to, where it opened nothing. `who`: as whom, empty where nobody is known."""

    cid: str
    verdict: Verdict
    who: str

    def to_json(self) -> str:
        return json.dumps({"cid": self.cid, "verdict": str(self.verdict), "who": self.who})

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        members = Members(strict_json(text.encode()))
        try:
            found = cls(members.text("cid"), members.convert("verdict", Verdict), members.text("who"))
            members.nothing_else()
        except BadMember as error:
            raise ValueError(error.why) from None
        return found


def session_path(cid: str) -> str:
    return f"/watch/{cid}"


def session_cookie(cid: str, sealed: str, seconds: int) -> str:
    """A Set-Cookie for one consent's page. `seconds` 0: it is taken away."""
    return f"{SESSION_COOKIE}={sealed}; Path={session_path(cid)}; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict"


def sign_in_cookie(sealed: str, seconds: int = SIGN_IN_SECONDS) -> str:
    """A Set-Cookie for the time at the issuer. `seconds` 0: it is taken away."""
    return f"{SIGN_IN_COOKIE}={sealed}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax"


def cookies(headers: Iterable[str], name: str) -> list[str]:
    """The values of this name in a request's Cookie headers: a neighbour of our host can put one of his own beside ours."""
    found = (pair.strip().partition("=") for header in headers for pair in header.split(";"))
    return [value for key, equals, value in found if key == name and equals and len(value) <= MAX_COOKIE][:MOST_ALIKE]
