"""The cookies of a watching tenant's browser: opened as a request brings them, sealed as an answer sets them."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import TypeVar

from fastapi import Request

from eva.token import SigningKey
from provider.watch.seal import Purpose, seal, unseal
from provider.watch.session import (
    SESSION_COOKIE,
    SESSION_SECONDS,
    SIGN_IN_COOKIE,
    SIGN_IN_SECONDS,
    VERDICT_SECONDS,
    Outcome,
    Session,
    SignIn,
    cookies,
    session_cookie,
    sign_in_cookie,
)

T = TypeVar("T", Session, SignIn, Outcome)


class Jar:
    """`key`: the provider's signing key, as it is now; `now`: Unix seconds."""

    def __init__(self, key: Callable[[], SigningKey], now: Callable[[], int]) -> None:
        self._key = key
        self._now = now

    def session(self, request: Request, cid: str) -> Session | None:
        """Who is signed in for this consent."""
        found = self._opened(_sent(request, SESSION_COOKIE), Purpose.SESSION, SESSION_SECONDS, Session.from_json)
        return next((one for one in found if one.cid == cid and one.expires_at > self._now()), None)

    def outcome(self, request: Request, cid: str) -> Outcome | None:
        """Why the last sign-in for this consent opened nothing."""
        found = self._opened(_sent(request, SESSION_COOKIE), Purpose.VERDICT, VERDICT_SECONDS, Outcome.from_json)
        return next((one for one in found if one.cid == cid), None)

    def sign_in(self, request: Request, state: str) -> SignIn | None:
        """The sign-in of this browser that has this state."""
        found = self._opened(_sent(request, SIGN_IN_COOKIE), Purpose.SIGN_IN, SIGN_IN_SECONDS, SignIn.from_json)
        return next((one for one in found if hmac.compare_digest(one.pending.state.encode(), state.encode())), None)

    def _opened(self, sealed: Iterable[str], purpose: Purpose, seconds: int, read: Callable[[str], T]) -> list[T]:
        # what is sealed was written here, so it reads; who runs another version of us signs in again
        texts = (unseal(self._key(), purpose, one, self._now(), seconds) for one in sealed)
        found: list[T] = []
        for text in texts:
            try:
                found += [] if text is None else [read(text)]
            except ValueError:
                continue
        return found

    def keep_sign_in(self, one: SignIn) -> str:
        return sign_in_cookie(seal(self._key(), Purpose.SIGN_IN, one.to_json(), self._now()))

    def keep(self, one: Session | Outcome) -> str:
        """What a sign-in came to. Of the two the later takes the other's place."""
        now = self._now()
        if isinstance(one, Session):
            sealed = seal(self._key(), Purpose.SESSION, one.to_json(), now)
            return session_cookie(one.cid, sealed, max(0, one.expires_at - now))
        return session_cookie(one.cid, seal(self._key(), Purpose.VERDICT, one.to_json(), now), VERDICT_SECONDS)


def _sent(request: Request, name: str) -> list[str]:
    return cookies(request.headers.getlist("cookie"), name)
