"""The code flow against an issuer that others wrote, and against one that says what it should not."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

import oidc.document
import oidc.https
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from oidc.answer import Answer
from oidc.failure import Declined, Misconfigured, NotBelieved, SignInFailed, Unreachable
from oidc.https import MAX_BYTES
from oidc.relying_party import Begun, Pending, RelyingParty, Tokens
from oidc.settings import Client
from tests.oidc_parts import PERSON, WEBSITE, OidcServer, private_jwk
from tests.scripted_issuer import CLIENT, ScriptedIssuer, dumped, said, scripted_issuer

BACK = "https://localhost:1/sign-in/oidc/callback"
RESOURCE = "https://api.example"
SECRET = "a secret+with%all:sorts"  # what must be form-encoded in the header
PEOPLE = {PERSON: {"preferred_username": "olivia@corp", "groups": ["ops", "staff"]}}


# an issuer that others wrote


@pytest.fixture(scope="module", params=[None, SECRET], ids=["public", "confidential"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[OidcServer]:
    one = OidcServer(tmp_path_factory.mktemp("openid") / "server", RESOURCE, BACK, request.param, PEOPLE)
    one.start(private_jwk("key-1"))
    yield one
    one.stop()


def client(server: OidcServer) -> Client:
    return Client(server.url, WEBSITE, server.secret, ("openid",), server.ca)


async def came_back(server: OidcServer, begun: Begun) -> Answer:
    """What the browser brings after the person has signed in."""

    def browse() -> httpx.URL:
        with server.client() as browser:
            return server.signed_in(browser, browser.get(begun.url))

    return Answer.parse((await asyncio.to_thread(browse)).query.decode())


async def test_a_person_signs_in(server: OidcServer) -> None:
    party = RelyingParty(client(server), BACK)
    begun = await party.begin()
    answer = await came_back(server, begun)
    tokens = await party.finish(begun.pending, answer.code, answer.state, answer.iss)
    assert (tokens.id_claims["sub"], tokens.id_claims["preferred_username"]) == (PERSON, "olivia@corp")
    assert tokens.id_claims["groups"] == ["ops", "staff"]
    assert tokens.access_token


async def test_a_code_works_once(server: OidcServer) -> None:
    party = RelyingParty(client(server), BACK)
    begun = await party.begin()
    answer = await came_back(server, begun)
    await party.finish(begun.pending, answer.code, answer.state, answer.iss)
    with pytest.raises(Declined) as caught:
        await party.finish(begun.pending, answer.code, answer.state, answer.iss)
    assert caught.value.error == "invalid_grant"


async def test_a_code_is_of_no_use_to_another_sign_in(server: OidcServer) -> None:
    """Who puts his own code into somebody else's sign-in has not their verifier (RFC 7636)."""
    party = RelyingParty(client(server), BACK)
    mine, theirs = await party.begin(), await party.begin()
    answer = await came_back(server, mine)
    with pytest.raises(Declined):
        await party.finish(theirs.pending, answer.code, theirs.pending.state, answer.iss)


async def test_the_answer_says_whose_it_is(server: OidcServer) -> None:
    party = RelyingParty(client(server), BACK)
    begun = await party.begin()
    answer = await came_back(server, begun)
    assert answer.iss == server.url
    with pytest.raises(NotBelieved):
        await party.finish(begun.pending, answer.code, answer.state, None)


async def test_an_access_token_for_a_resource(server: OidcServer) -> None:
    asks = replace(client(server), scopes=("openid", "consoles"), extra={"resource": RESOURCE})
    party = RelyingParty(asks, BACK)
    begun = await party.begin()
    answer = await came_back(server, begun)
    tokens = await party.finish(begun.pending, answer.code, answer.state, answer.iss)
    assert tokens.access_token.count(".") == 2
    assert tokens.expires_in is not None


async def test_a_wrong_secret(server: OidcServer) -> None:
    if server.secret is None:
        return
    party = RelyingParty(replace(client(server), client_secret="another"), BACK)
    begun = await party.begin()
    answer = await came_back(server, begun)
    with pytest.raises(Declined) as caught:
        await party.finish(begun.pending, answer.code, answer.state, answer.iss)
    assert caught.value.error == "invalid_client"


# an issuer that says what it should not


@pytest.fixture
async def issuer(certificates: Authority) -> AsyncIterator[ScriptedIssuer]:
    async with scripted_issuer(certificates) as one:
        yield one


def party_of(issuer: ScriptedIssuer, certificates: Authority, **changed: Any) -> RelyingParty:
    return RelyingParty(replace(Client(issuer.url, CLIENT, ca=certificates.ca), **changed), BACK)


async def finished(issuer: ScriptedIssuer, party: RelyingParty) -> Tokens:
    begun = await party.begin()
    issuer.nonce = begun.pending.nonce
    return await party.finish(begun.pending, "code", begun.pending.state, issuer.url)


async def test_what_the_browser_is_sent_with(issuer: ScriptedIssuer, certificates: Authority) -> None:
    begun = await party_of(issuer, certificates, scopes=("openid", "groups"), extra={"prompt": "login"}).begin()
    parts = urlsplit(begun.url)
    asked = {name: texts[0] for name, texts in parse_qs(parts.query).items()}
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{issuer.url}/auth"
    assert len(asked.pop("code_challenge")) == 43
    assert asked == {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": BACK,
        "scope": "openid groups",
        "state": begun.pending.state,
        "nonce": begun.pending.nonce,
        "code_challenge_method": "S256",
        "prompt": "login",
    }
    assert begun.pending.verifier not in begun.url


async def test_no_two_are_alike(issuer: ScriptedIssuer, certificates: Authority) -> None:
    party = party_of(issuer, certificates)
    first, second = (await party.begin()).pending, (await party.begin()).pending
    assert len({first.state, first.nonce, first.verifier, second.state, second.nonce, second.verifier}) == 6


async def test_its_configuration_and_its_keys_are_fetched_once(issuer: ScriptedIssuer, certificates: Authority) -> None:
    party = party_of(issuer, certificates)
    for _ in range(3):
        await finished(issuer, party)
    assert sorted(set(issuer.asked)) == ["/.well-known/openid-configuration", "/jwks", "/token"]
    assert issuer.asked.count("/jwks") == issuer.asked.count("/.well-known/openid-configuration") == 1


async def test_a_new_key_is_found(issuer: ScriptedIssuer, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc.document, "PAUSE_SECONDS", 0.0)
    party = party_of(issuer, certificates)
    await finished(issuer, party)
    issuer.kid = "k2"
    assert (await finished(issuer, party)).id_claims["sub"] == "olivia"


async def test_unknown_keys_do_not_make_it_ask_again_and_again(
    issuer: ScriptedIssuer, certificates: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc.document, "PAUSE_SECONDS", 3600.0)
    party = party_of(issuer, certificates)
    await finished(issuer, party)
    for number in range(3):
        issuer.kid = f"unknown-{number}"
        with pytest.raises(NotBelieved):
            await finished(issuer, party)
    assert issuer.asked.count("/jwks") == 1


async def test_the_secret_goes_in_the_header_or_where_that_is_not_taken_in_the_body(
    issuer: ScriptedIssuer, certificates: Authority
) -> None:
    await finished(issuer, party_of(issuer, certificates, client_secret="s/1"))
    assert "authorization: basic y29uc29sztpzjtjgmq==" in issuer.heads[issuer.asked.index("/token")].lower()
    assert "client" not in issuer.bodies[issuer.asked.index("/token")]
    issuer.asked.clear()
    issuer.bodies.clear()
    configuration = issuer.configuration | {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    issuer.answers["/.well-known/openid-configuration"] = dumped(configuration)
    await finished(issuer, party_of(issuer, certificates, client_secret="s/1"))
    assert "client_secret=s%2F1" in issuer.bodies[issuer.asked.index("/token")]


async def test_another_state_is_not_even_asked_about(issuer: ScriptedIssuer, certificates: Authority) -> None:
    party = party_of(issuer, certificates)
    begun = await party.begin()
    for state in ("", "x", begun.pending.state + "x", "\ud800"):
        with pytest.raises(NotBelieved):
            await party.finish(begun.pending, "code", state, issuer.url)
    assert "/token" not in issuer.asked


@pytest.mark.parametrize("iss", ["https://evil.example", "", None])
async def test_another_issuers_answer(issuer: ScriptedIssuer, certificates: Authority, iss: str | None) -> None:
    party = party_of(issuer, certificates)
    begun = await party.begin()
    with pytest.raises(NotBelieved):
        await party.finish(begun.pending, "code", begun.pending.state, iss)
    assert "/token" not in issuer.asked


async def test_an_issuer_that_never_says_its_name(issuer: ScriptedIssuer, certificates: Authority) -> None:
    configuration = {name: text for name, text in issuer.configuration.items() if not name.startswith("authorization_response")}
    issuer.answers["/.well-known/openid-configuration"] = dumped(configuration)
    party = party_of(issuer, certificates)
    begun = await party.begin()
    issuer.nonce = begun.pending.nonce
    assert (await party.finish(begun.pending, "code", begun.pending.state, None)).id_claims["sub"] == "olivia"


async def test_an_error_is_told(issuer: ScriptedIssuer, certificates: Authority) -> None:
    party = party_of(issuer, certificates)
    begun = await party.begin()
    with pytest.raises(Declined) as caught:
        await party.finish(begun.pending, None, begun.pending.state, issuer.url, "access_denied")
    assert caught.value.error == "access_denied"


async def test_an_id_token_of_another_sign_in(issuer: ScriptedIssuer, certificates: Authority) -> None:
    party = party_of(issuer, certificates)
    first, second = await party.begin(), await party.begin()
    issuer.nonce = first.pending.nonce
    with pytest.raises(NotBelieved):
        await party.finish(second.pending, "code", second.pending.state, issuer.url)


@pytest.mark.parametrize(
    "changed",
    [
        {"id_token": None},
        {"id_token": 7},
        {"id_token": "x.y.z"},
        {"access_token": ["x"]},
        {"access_token": "x\r\ny"},
        {"access_token": "x" * 16_385},
        {"token_type": "mac"},
        {"token_type": {"a": []}},
    ],
    ids=str,
)
async def test_what_its_token_endpoint_may_not_give(
    issuer: ScriptedIssuer, certificates: Authority, changed: dict[str, Any]
) -> None:
    party = party_of(issuer, certificates)
    begun = await party.begin()
    issuer.nonce = begun.pending.nonce
    issuer.answers["/token"] = dumped(issuer.granted(**changed))
    with pytest.raises((Misconfigured, NotBelieved)):
        await party.finish(begun.pending, "code", begun.pending.state, issuer.url)


@pytest.mark.parametrize("lives", ["60", -1, 1e300, None, True, [1]], ids=str)
async def test_a_life_that_is_no_time_is_left_out(issuer: ScriptedIssuer, certificates: Authority, lives: object) -> None:
    party = party_of(issuer, certificates)
    begun = await party.begin()
    issuer.nonce = begun.pending.nonce
    issuer.answers["/token"] = dumped(issuer.granted(expires_in=lives))
    assert (await party.finish(begun.pending, "code", begun.pending.state, issuer.url)).expires_in is None


async def test_an_access_token_that_the_id_token_does_not_come_with(issuer: ScriptedIssuer, certificates: Authority) -> None:
    party = party_of(issuer, certificates)
    begun = await party.begin()
    issuer.nonce = begun.pending.nonce
    issuer.answers["/token"] = dumped(
        issuer.granted(id_token=issuer.id_token(at_hash="ImXaughy_DrvFp0Hk2XlkPDLyO1GwqeYTIpkKAPP2Ww"))
    )
    with pytest.raises(NotBelieved):
        await party.finish(begun.pending, "code", begun.pending.state, issuer.url)


WRONG = [
    said(b"", "302 Found", "location: https://localhost:1/\r\n"),
    said(b"no json"),
    said(b"[" * 100_000),
    said(b"{}", "500 Internal Server Error"),
    said(b" " * (MAX_BYTES + 1)),
    said(gzip.compress(b" " * 10_000_000), more="content-encoding: gzip\r\n"),
    b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
]


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
@pytest.mark.parametrize("number", range(len(WRONG)))
async def test_what_is_no_answer(issuer: ScriptedIssuer, certificates: Authority, path: str, number: int) -> None:
    issuer.answers[path] = WRONG[number]
    with pytest.raises(SignInFailed):
        await finished(issuer, party_of(issuer, certificates))
    assert issuer.asked[-1] == path


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
async def test_a_silent_issuer_is_not_waited_for(
    issuer: ScriptedIssuer, certificates: Authority, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc.https, "SECONDS", 0.3)
    issuer.answers[path] = None
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unreachable):
            await finished(issuer, party_of(issuer, certificates))


async def test_one_that_answers_by_the_byte_is_not_waited_for(
    issuer: ScriptedIssuer, certificates: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc.https, "SECONDS", 0.5)
    issuer.dripping = True
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unreachable):
            await party_of(issuer, certificates).begin()


async def test_an_issuer_whose_certificate_is_another_authoritys(
    issuer: ScriptedIssuer, tmp_path: Path, certificates: Authority
) -> None:
    with pytest.raises(Unreachable):
        await party_of(issuer, Authority(tmp_path)).begin()
    assert issuer.asked == []


async def test_an_issuer_that_is_down_is_asked_once_in_a_while(issuer: ScriptedIssuer, certificates: Authority) -> None:
    issuer.answers["/.well-known/openid-configuration"] = said(b"", "503 Service Unavailable")
    party = party_of(issuer, certificates)
    results = await asyncio.gather(*(party.begin() for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {Unreachable}
    assert len(issuer.asked) == 1


async def test_one_that_is_back_serves_again(
    issuer: ScriptedIssuer, certificates: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc.document, "PAUSE_SECONDS", 0.0)
    issuer.answers["/.well-known/openid-configuration"] = said(b"", "503 Service Unavailable")
    party = party_of(issuer, certificates)
    with pytest.raises(Unreachable):
        await party.begin()
    del issuer.answers["/.well-known/openid-configuration"]
    assert (await finished(issuer, party)).id_claims["sub"] == "olivia"


# what is kept between


def test_a_pending_sign_in_over_json() -> None:
    pending = Pending("state-1", "nonce-1", "verifier-1")
    assert Pending.from_json(pending.to_json()) == pending
    assert "-1" not in repr(pending)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"state": "s", "nonce": "n", "verifier": 1}), "\ud800"])
def test_what_is_no_pending_sign_in(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any is said of what only we can have made
        Pending.from_json(text)
