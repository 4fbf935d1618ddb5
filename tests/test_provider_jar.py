"""provider/watch/jar.py: cookies that any provider with the key opens, each for its own purpose and consent."""

from __future__ import annotations

import pytest
from fastapi import Request

from oidc.relying_party import Pending
from provider.rest.caller import Caller
from provider.watch.jar import Jar
from provider.watch.session import Outcome, Session, SignIn, Verdict
from tests.provider_parts import jti, signing_key

NOW = 1_800_000_000
KEY = signing_key()
CID = jti()
CALLER = Caller("https://login.example", "olivia", "", frozenset(), True)
STATE = "s" * 43


class Clock:
    now = NOW


def jar(clock: Clock | None = None) -> Jar:
    return Jar(lambda: KEY, lambda: (clock or Clock()).now)


def bringing(*set_cookies: str) -> Request:
    pairs = "; ".join(one.partition(";")[0] for one in set_cookies)
    return Request({"type": "http", "headers": [(b"cookie", pairs.encode())]})


def session(seconds: int = 3600, cid: str = CID) -> Session:
    return Session(cid, CALLER, NOW + seconds)


def test_another_provider_opens_it():
    assert jar().session(bringing(jar().keep(session())), CID) == session()


def test_a_new_signing_key_signs_everybody_out():
    other = Jar(signing_key, lambda: NOW)
    assert other.session(bringing(jar().keep(session())), CID) is None


def test_it_is_for_its_consent_only():
    assert jar().session(bringing(jar().keep(session())), jti()) is None


@pytest.mark.parametrize(("later", "good"), [(59, True), (60, False)])
def test_it_ends_with_the_consent(later: int, good: bool):
    clock = Clock()
    clock.now = NOW + later
    assert (jar(clock).session(bringing(jar().keep(session(60))), CID) is not None) is good


def test_a_consent_that_is_renewed_does_not_lengthen_it():
    clock = Clock()
    clock.now = NOW + 28_801
    assert jar(clock).session(bringing(jar().keep(session(100_000))), CID) is None


def test_it_is_found_beside_others():
    mine = jar().keep(session())
    alien = mine.partition("=")[0] + "=alien"
    assert jar().session(bringing(alien, jar().keep(session(cid=jti())), mine), CID) == session()


def test_an_outcome_is_no_session():
    request = bringing(jar().keep(Outcome(CID, Verdict.NOT_GIVER, "Nora")))
    assert jar().session(request, CID) is None
    assert jar().outcome(request, CID) == Outcome(CID, Verdict.NOT_GIVER, "Nora")


def test_a_session_is_no_outcome():
    assert jar().outcome(bringing(jar().keep(session())), CID) is None


@pytest.mark.parametrize(("later", "good"), [(600, True), (601, False)])
def test_a_sign_in_has_ten_minutes(later: int, good: bool):
    clock = Clock()
    clock.now = NOW + later
    kept = jar().keep_sign_in(SignIn(CID, Pending(STATE, "n", "v")))
    assert (jar(clock).sign_in(bringing(kept), STATE) is not None) is good


def test_a_sign_in_answers_to_its_own_state():
    kept = jar().keep_sign_in(SignIn(CID, Pending(STATE, "n", "v")))
    assert jar().sign_in(bringing(kept), "t" * 43) is None


def test_a_sign_in_is_no_session():
    kept = jar().keep_sign_in(SignIn(CID, Pending(STATE, "n", "v")))
    renamed = "__Secure-eva-watch=" + kept.partition("=")[2]
    assert jar().session(bringing(renamed), CID) is None
