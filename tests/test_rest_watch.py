"""The tenants' page, from the link to the watch token and the end of the consent; its OpenID Connect server others wrote."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from eva.token import Typ, verify
from eva.watch import Watch
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from provider.keys import read_private
from provider.rest.caller import Caller
from provider.watch.seal import Purpose, seal
from provider.watch.session import Session
from tests.provider_parts import SUBSCRIPTION, jti, now
from tests.rest_parts import VM_VERSION, error, vm_path
from tests.tenant_page import (
    CLIENT_SECRET,
    GIVER,
    JSON,
    KEY,
    NEIGHBOUR,
    ORIGIN,
    READER,
    SOCKET,
    Browser,
    WatchCloud,
    browser_of,
    watch_cloud,
)

SESSION = "__Secure-eva-watch"
SIGN_IN = "__Host-eva-watch-sign-in"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[WatchCloud]:
    with watch_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        yield cloud


@pytest.fixture
def browser(cloud: WatchCloud) -> Iterator[Browser]:
    with browser_of(cloud) as browser:
        yield browser


@pytest.fixture
def other(cloud: WatchCloud) -> Iterator[Browser]:
    """Somebody else's."""
    with browser_of(cloud) as browser:
        yield browser


def consented(cloud: WatchCloud, person: str = GIVER, **ways: Any) -> str:
    """A consent that stands at a node which has done its part."""

    async def consent() -> str:
        async with cloud.watched(**ways):
            return await cloud.consent(person)

    return asyncio.run(consent())


@pytest.fixture
def cid(cloud: WatchCloud) -> str:
    return consented(cloud)


def set_cookies(answer: httpx.Response) -> dict[str, str]:
    """What each cookie is set to, with all its attributes, by its name."""
    return {one.partition("=")[0]: one for one in answer.headers.get_list("set-cookie")}


def cookie(browser: Browser, name: str) -> str:
    return next(one.value or "" for one in browser.client.cookies.jar if one.name == name)


def put(browser: Browser, name: str, value: str) -> dict[str, str]:
    """The headers of the page's own request with this cookie put beside."""
    return {"origin": browser.cloud.tenant_url, "sec-fetch-site": "same-origin", "cookie": f"{name}={value}"} | JSON


# the page


def policy(answer: httpx.Response) -> dict[str, str]:
    said = [one.strip().partition(" ") for one in answer.headers["content-security-policy"].split(";")]
    return {name: sources for name, _, sources in said}


def test_the_page_may_reach_the_node_of_its_consent(browser: Browser, cid: str):
    answer = browser.get(f"/watch/{cid}")
    assert (answer.status_code, policy(answer)["connect-src"]) == (200, f"'self' {SOCKET}")
    assert (answer.headers["cache-control"], answer.headers["x-frame-options"]) == ("no-store", "DENY")


def test_it_is_the_same_for_everybody(browser: Browser, cid: str):
    mine, nobodys = browser.get(f"/watch/{cid}"), browser.get(f"/watch/{jti()}")
    assert (nobodys.status_code, nobodys.content) == (200, mine.content)
    assert policy(nobodys)["connect-src"] == "'self'"


def test_its_query_means_nothing(browser: Browser, cid: str):
    assert browser.get(f"/watch/{cid}?connect=wss://evil.example&cid={jti()}").content == browser.get(f"/watch/{cid}").content


def test_its_policy_lets_nothing_else_in(browser: Browser, cid: str):
    found = policy(browser.get(f"/watch/{cid}"))
    assert found["default-src"] == "'none'"
    assert (found["script-src"], found["frame-ancestors"], found["base-uri"]) == ("'self'", "'none'", "'none'")


def test_its_files_are_there(browser: Browser, cid: str):
    named = re.findall(r'(?:src|href)="([^"]+)"', browser.get(f"/watch/{cid}").text)
    vendored = "/watch/files/vendor/novnc/core/rfb.js"
    assert named
    for path in (*named, vendored):
        assert path.startswith("/watch/files/")
    answer = browser.get(vendored)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert (answer.headers["content-encoding"], "class RFB" in answer.text) == ("gzip", True)


def test_a_file_that_is_known_is_not_sent_again(browser: Browser):
    path = "/watch/files/vendor/novnc/core/rfb.js"
    etag = browser.get(path).headers["etag"]
    again = browser.get(path, headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


def test_without_gzip_it_is_as_it_stands(browser: Browser):
    path = "/watch/files/vendor/novnc/core/rfb.js"
    plain = browser.get(path, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == browser.get(path).content


NO_FILES = [
    "/watch/files/operator/page.js",
    "/watch/files/watch/index.html",
    "/watch/files/package.json",
    "/watch/files/shared/../assets.py",
    "/watch/files/shared/%2e%2e/assets.py",
    "/watch/files/shared%2fjson_rpc.js",
    "/watch/files//shared/json_rpc.js",
    "/watch/files/",
    "/watch/",
    "/watch/x",
    "/Watch/files/shared/json_rpc.js",
]


@pytest.mark.parametrize("path", NO_FILES)
async def test_nothing_else_is(cloud: WatchCloud, path: str):
    answer = await cloud.ask("GET", path, None)
    assert answer.status_code in (400, 404), answer.text
    assert "error" in answer.json()


@pytest.mark.parametrize("action", ["session", "token", "withdraw"])
def test_what_is_asked_for_is_not_to_be_got(browser: Browser, cid: str, action: str):
    assert error(browser.get(f"/watch/{cid}/{action}")) == (405, "MethodNotAllowed")


# signed in


def test_to_the_issuer(browser: Browser, cid: str):
    begun = browser.begin(cid)
    asked = httpx.URL(begun.headers["location"]).params
    assert (begun.status_code, asked["redirect_uri"]) == (303, f"{browser.cloud.tenant_url}/watch/callback")
    assert (asked["response_type"], asked["code_challenge_method"], asked["resource"]) == (
        "code",
        "S256",
        browser.cloud.tenant_url,
    )
    kept = set_cookies(begun)[SIGN_IN]
    assert kept.endswith("; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax")
    assert not any(asked[name] in kept for name in ("state", "nonce"))


def test_and_back(browser: Browser, cid: str):
    answer = browser.sign_in(cid)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/watch/{cid}")
    kept = set_cookies(answer)
    found = re.search(rf"; Path=/watch/{re.escape(cid)}; Max-Age=(\d+); Secure; HttpOnly; SameSite=Strict$", kept[SESSION])
    assert found is not None
    assert 28_700 < int(found[1]) <= 28_800
    assert kept[SIGN_IN].startswith(f"{SIGN_IN}=; Path=/; Max-Age=0;")


def test_it_lasts_no_longer_than_the_consent(cloud: WatchCloud, browser: Browser):
    async def consent() -> str:
        async with cloud.watched():
            return await cloud.consent(GIVER, "--minutes", "5")

    kept = set_cookies(browser.sign_in(asyncio.run(consent())))[SESSION]
    assert 0 < int(kept.partition("Max-Age=")[2].partition(";")[0]) <= 300


def test_who_is_signed_in(cloud: WatchCloud, browser: Browser, cid: str):
    browser.sign_in(cid)
    answer = browser.post(cid, "session")
    found = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert found.pop("expiresAt").endswith("Z")
    assert found == {
        "resourceId": cloud.resource_id,
        "giver": cloud.principal(GIVER),
        "node": cloud.pen.name,
        "connect": [SOCKET],
    }


def test_a_token_for_the_node(cloud: WatchCloud, browser: Browser):
    async def consent() -> tuple[str, Any]:
        async with cloud.watched() as node:
            return await cloud.consent(), node.keys

    cid, keys = asyncio.run(consent())
    browser.sign_in(cid)
    answers = [browser.post(cid, "token").json() for _ in range(2)]
    watches = [Watch.from_claims(verify(one["watchToken"], Typ.WATCH, keys, cloud.pen.name)) for one in answers]
    assert {one["watchUrl"] for one in answers} == {f"{SOCKET}/v1/watch"}
    assert watches[0].jti != watches[1].jti
    watch = watches[0]
    assert (watch.cid, str(watch.resource_id), watch.giver) == (cid, cloud.resource_id, cloud.principal(GIVER))
    assert watch.expires_at - watch.issued_at == 60
    assert abs(watch.issued_at - now()) < 30


async def test_withdrawn(cloud: WatchCloud, browser: Browser):
    async with cloud.watched() as node:
        cid = await cloud.consent()
        await asyncio.to_thread(browser.sign_in, cid)
        answer = await asyncio.to_thread(browser.post, cid, "withdraw")
        found = answer.json()
        assert (answer.status_code, found["state"]) == (200, "revoked")
        assert [(one["ERCSName"], one["notConfirmed"], one["cutMilliseconds"]) for one in found["cuts"]] == [
            (cloud.pen.name, False, 37.4)
        ]
        assert [one.consent for one in node.revocations] == [cid]
        for action in ("session", "token", "withdraw"):
            over = await asyncio.to_thread(browser.post, cid, action)
            assert error(over) == (410, "ConsentEnded")
            assert "consent-revoked" in over.text


async def test_withdrawing_ends_no_other_consent(cloud: WatchCloud, browser: Browser):
    async with cloud.watched():
        mine, beside = await cloud.consent(), await cloud.consent(READER)
        await asyncio.to_thread(browser.sign_in, mine)
        assert (await asyncio.to_thread(browser.post, mine, "withdraw")).status_code == 200
    assert sorted(cloud.states()) == ["granted", "revoked"]
    assert browser.get(f"/watch/{beside}").headers["content-security-policy"].count(SOCKET) == 1


async def test_a_person_who_consented_by_rest_watches(cloud: WatchCloud, browser: Browser):
    token, _ = await asyncio.to_thread(cloud.openid.persons_token)
    vm = vm_path(f"by-rest-{jti()[:6].replace('_', '-')}x")
    headers = {"authorization": f"Bearer {token}"}
    async with cloud.watched():
        enabled = await cloud.ask("POST", f"{vm}/enableVmAccess", None, headers=headers)
        assert enabled.status_code == 200, enabled.text
        link = httpx.URL(enabled.json()["watchLink"])
        assert str(link) == f"{cloud.tenant_url}/watch/{enabled.json()['consentId']}"
        cid = link.path.rpartition("/")[2]
        await asyncio.to_thread(browser.sign_in, cid)
        assert (await asyncio.to_thread(browser.post, cid, "session")).json()["resourceId"] == vm
        straight = await cloud.ask("POST", f"{vm}/watchVmAccess", None, headers=headers)
    assert straight.json().keys() == {"watchToken", "watchUrl", "expiresAt"}


# somebody else


def refused(browser: Browser, cid: str, answer: httpx.Response) -> tuple[int, str]:
    """What the page is told after a sign-in that opened nothing: once, and then as if nobody had tried."""
    assert (answer.status_code, answer.headers["location"]) == (303, f"/watch/{cid}")
    told = error(browser.post(cid, "session"))
    assert error(browser.post(cid, "session")) == (401, "AuthenticationFailed")
    return told


@pytest.mark.parametrize("person", [NEIGHBOUR, READER, "sam"])
def test_who_did_not_give_the_consent(browser: Browser, cid: str, person: str):
    assert refused(browser, cid, browser.sign_in(cid, person)) == (403, "AuthorizationFailed")


def test_a_consent_that_is_none_is_told_of_no_otherwise(browser: Browser):
    cid = jti()
    assert refused(browser, cid, browser.sign_in(cid)) == (403, "AuthorizationFailed")


def test_a_giver_without_a_role(cloud: WatchCloud, browser: Browser):
    cid = consented(cloud, "sam")
    assert refused(browser, cid, browser.sign_in(cid, "sam")) == (403, "AuthorizationFailed")


def test_a_role_that_is_taken_away_counts_no_more(cloud: WatchCloud, browser: Browser):
    cloud.fresh()
    who, scope = cloud.principal("tom"), f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1"
    cloud.assign(who, "Owner", scope)
    cid = consented(cloud, "tom")
    browser.sign_in(cid, "tom")
    assert browser.post(cid, "session").status_code == 200
    assert cloud.run("roles", "remove", "--principal", who, "--role", "Owner", "--scope", scope).code == 0
    for action in ("session", "token", "withdraw"):
        assert error(browser.post(cid, action)) == (403, "AuthorizationFailed")


def test_a_giver_who_only_reads_by_now_may_look_and_stop(cloud: WatchCloud, browser: Browser):
    cid = consented(cloud, READER)
    browser.sign_in(cid, READER)
    assert [browser.post(cid, action).status_code for action in ("session", "token")] == [200, 200]


def test_a_consent_that_another_renewed_is_the_others(cloud: WatchCloud, browser: Browser):
    token, _ = cloud.openid.persons_token()
    vm = vm_path(f"renewed-{jti()[:6].replace('_', '-')}x")

    async def enabled() -> str:
        async with cloud.watched():
            first = await cloud.ask("POST", f"{vm}/enableVmAccess", None, headers={"authorization": f"Bearer {token}"})
            return str(first.json()["consentId"])

    async def renewed() -> httpx.Response:
        async with cloud.serving(watch=ORIGIN):
            return await cloud.ask("POST", f"{vm}/enableVmAccess", "alice", json={"renew": True})

    cloud.assign("alice", "Owner", f"/subscriptions/{SUBSCRIPTION}")
    cid = asyncio.run(enabled())
    browser.sign_in(cid)
    assert browser.post(cid, "session").status_code == 200
    assert asyncio.run(renewed()).json()["consentId"] == cid
    assert error(browser.post(cid, "token")) == (403, "AuthorizationFailed")


def test_signed_in_after_the_end(cloud: WatchCloud, browser: Browser):
    async def over() -> str:
        async with cloud.watched():
            cid = await cloud.consent()
            assert (await cloud.eva_provider("consent", "revoke", "--consent-id", cid)).code == 0
            return cid

    cid = asyncio.run(over())
    assert refused(browser, cid, browser.sign_in(cid)) == (410, "ConsentEnded")


# the way there and back, gone astray


def test_another_state(browser: Browser, cid: str):
    back = browser.at_issuer(browser.begin(cid))
    wrong = browser.client.get(back.copy_set_param("state", "x" * 43))
    assert (wrong.status_code, set_cookies(wrong)) == (400, {})
    assert browser.client.get(back).status_code == 303  # the one that is under way is as it was
    assert browser.post(cid, "session").status_code == 200


def test_a_callback_in_another_browser(browser: Browser, other: Browser, cid: str):
    """Somebody is made to open the address at which an attacker's own sign-in would end."""
    back = browser.at_issuer(browser.begin(cid))
    assert other.client.get(back).status_code == 400
    other.begin(cid)  # nor while he signs in himself
    assert other.client.get(back).status_code == 400
    assert error(other.post(cid, "session")) == (401, "AuthenticationFailed")


def test_a_code_of_another_session(browser: Browser, other: Browser, cid: str):
    """A code that was stolen is brought to the thief's own sign-in: the issuer holds it against the verifier."""
    stolen = browser.at_issuer(browser.begin(cid)).params["code"]
    begun = other.begin(cid)
    state = httpx.URL(begun.headers["location"]).params["state"]
    answer = other.get("/watch/callback", params={"code": stolen, "state": state, "iss": other.cloud.openid.url})
    assert refused(other, cid, answer) == (401, "SignInFailed")


def test_a_callback_twice(browser: Browser, cid: str):
    begun = browser.begin(cid)
    kept = cookie(browser, SIGN_IN)
    back = browser.at_issuer(begun)
    assert browser.client.get(back).status_code == 303
    assert browser.client.get(back).status_code == 400
    # with the cookie of then, as from a copy of the browser's disk
    again = browser.client.get(back, headers={"cookie": f"{SIGN_IN}={kept}"})
    assert refused(browser, cid, again) == (401, "SignInFailed")


def test_another_issuers_answer(browser: Browser, cid: str):
    back = browser.at_issuer(browser.begin(cid))
    answer = browser.client.get(back.copy_set_param("iss", "https://elsewhere.example"))
    assert refused(browser, cid, answer) == (401, "SignInFailed")


def test_the_issuer_says_no(browser: Browser, cid: str):
    state = httpx.URL(browser.begin(cid).headers["location"]).params["state"]
    said = {"error": "access_denied", "state": state, "iss": browser.cloud.openid.url}
    assert refused(browser, cid, browser.get("/watch/callback", params=said)) == (401, "SignInFailed")


NO_CALLBACKS = ["", "code=x", "state=x", "code=x&state=y&state=z", "code=x&error=y&state=z", "code=%ff&state=x", "x" * 8000]


@pytest.mark.parametrize("query", NO_CALLBACKS)
def test_what_is_no_callback(browser: Browser, cid: str, query: str):
    browser.begin(cid)
    answer = browser.get(f"/watch/callback?{query}")
    assert (answer.status_code, set_cookies(answer)) == (400, {})


def test_nowhere_else_is_anybody_sent(browser: Browser, cid: str):
    back = browser.at_issuer(browser.begin(cid))
    answer = browser.client.get(f"{back}&redirect_uri=https://evil.example&return=//evil.example&cid={jti()}")
    assert answer.headers["location"] == f"/watch/{cid}"


def test_the_issuer_is_down(browser: Browser, cid: str):
    begun = browser.begin(cid)
    back = browser.at_issuer(begun)
    browser.cloud.openid.stop()
    try:
        assert refused(browser, cid, browser.client.get(back)) == (503, "ServiceUnavailable")
    finally:
        browser.cloud.openid.start(KEY)


# cookies that are not this browser's, or not of this consent


def test_the_cookie_of_another_consent(browser: Browser, cloud: WatchCloud, cid: str):
    """Of the same giver, even."""
    other_cid = consented(cloud)
    browser.sign_in(cid)
    assert error(browser.post(other_cid, "session")) == (401, "AuthenticationFailed")
    moved = browser.client.post(
        f"/watch/{other_cid}/session", headers=put(browser, SESSION, cookie(browser, SESSION)), content=b"{}"
    )
    assert error(moved) == (401, "AuthenticationFailed")


def test_one_kind_of_cookie_is_not_the_other(browser: Browser, cid: str):
    browser.begin(cid)
    as_session = browser.client.post(
        f"/watch/{cid}/session", headers=put(browser, SESSION, cookie(browser, SIGN_IN)), content=b"{}"
    )
    assert error(as_session) == (401, "AuthenticationFailed")


def test_a_cookie_that_was_changed(browser: Browser, cid: str):
    browser.sign_in(cid)
    kept = cookie(browser, SESSION)
    changed = kept[:60] + ("A" if kept[60] != "A" else "B") + kept[61:]
    for one in (changed, kept[:-4], "", "gAAAAA", "ä", kept + "A" * 5000):
        answer = browser.client.post(
            f"/watch/{cid}/session",
            headers=[(name.encode(), value.encode("latin-1")) for name, value in put(browser, SESSION, one).items()],
            content=b"{}",
        )
        assert error(answer) == (401, "AuthenticationFailed")


def test_a_cookie_that_a_neighbour_put_beside_it(browser: Browser, cid: str):
    browser.sign_in(cid)
    both = put(browser, SESSION, f"of-a-neighbour; {SESSION}={cookie(browser, SESSION)}")
    assert browser.client.post(f"/watch/{cid}/session", headers=both, content=b"{}").status_code == 200


# from elsewhere

ELSEWHERE: dict[str, dict[str, str]] = {
    "another site": {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    "a neighbour's port": {"origin": "https://localhost:1", "sec-fetch-site": "same-site"},
    "a neighbour whose browser is old": {"origin": "https://localhost:1"},
    "a frame without an origin": {"origin": "null", "sec-fetch-site": "cross-site"},
    "by hand": {"sec-fetch-site": "none"},
    "nothing said": {},
    "an origin that is ours, from elsewhere": {"origin": "OURS", "sec-fetch-site": "cross-site"},
    "another's, from here": {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
}


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_request_from_elsewhere(browser: Browser, cid: str, headers: dict[str, str]):
    browser.sign_in(cid)
    sent = {name: browser.cloud.tenant_url if value == "OURS" else value for name, value in headers.items()}
    for action in ("session", "token", "withdraw"):
        assert error(browser.post(cid, action, sent | JSON)) == (403, "AuthorizationFailed")
    assert browser.post(cid, "session").status_code == 200


def unfinished(cloud: WatchCloud, path: str) -> int:
    """The status for a request of the page's own whose content does not come."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\norigin: {cloud.tenant_url}\r\ncontent-type: application/json\r\n"
    address = httpx.URL(cloud.tenant_url)
    with (
        socket.create_connection(("127.0.0.1", address.port or 443), timeout=PATIENCE_S) as plain,
        cloud.trust().wrap_socket(plain, server_hostname=address.host) as peer,
    ):
        peer.sendall(f"{head}content-length: 2\r\n\r\n".encode())
        return int(peer.recv(64).split(b" ")[1])


def test_nobodys_content_is_waited_for_before_it_is_known_whose_it_is(cloud: WatchCloud, cid: str):
    """Or strangers could hold all the places of the page, 5 s for each request."""
    assert unfinished(cloud, f"/watch/{cid}/session") == 401


@pytest.mark.parametrize(("issuer", "status"), [({}, 200), ({"issuer": "https://gone.example"}, 401), ({"home": True}, 401)])
def test_a_session_counts_while_the_settings_have_its_issuer(
    cloud: WatchCloud, browser: Browser, issuer: dict[str, Any], status: int
):
    who = replace(Caller(cloud.openid.url, GIVER, "", frozenset(), home=False), **issuer)
    cloud.assign(who.principal, "Contributor", f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1")

    async def consent() -> str:
        async with cloud.watched():
            return str((await cloud.granted("--giver", who.principal))["consent_id"])

    cid = asyncio.run(consent())
    key = next(read_private(path) for path in (cloud.place.directory / "keys").glob("signing-*.pem"))
    sealed = seal(key, Purpose.SESSION, Session(cid, who, now() + 600).to_json(), now())
    assert browser.post(cid, "session", headers=put(browser, SESSION, sealed)).status_code == status


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_could_send(browser: Browser, cid: str, kind: str):
    browser.sign_in(cid)
    ours = {"origin": browser.cloud.tenant_url, "sec-fetch-site": "same-origin", "content-type": kind}
    assert error(browser.post(cid, "withdraw", ours)) == (415, "UnsupportedMediaType")


def test_an_origin_is_enough_where_the_browser_says_no_more(browser: Browser, cid: str):
    browser.sign_in(cid)
    assert browser.post(cid, "session", {"origin": browser.cloud.tenant_url} | JSON).status_code == 200


def test_no_origin_is_let_in_by_cors(browser: Browser, cid: str):
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = browser.client.options(f"/watch/{cid}/session", headers=headers)
    assert answer.status_code == 405
    assert not any(name.startswith("access-control-") for name in answer.headers)


# nodes


def test_a_node_without_a_listener(cloud: WatchCloud, browser: Browser):
    cid = consented(cloud, watch=None)
    browser.sign_in(cid)
    assert policy(browser.get(f"/watch/{cid}"))["connect-src"] == "'self'"
    assert error(browser.post(cid, "session")) == (409, "WatchingNotPossible")
    assert error(browser.post(cid, "token")) == (409, "WatchingNotPossible")


@pytest.mark.parametrize("origin", ["http://ercs01.example", "https://ercs01.example/x", "https://a.example;script-src *", "x"])
def test_what_is_no_origin_gets_into_no_policy(cloud: WatchCloud, browser: Browser, origin: str):
    cid = consented(cloud, watch=origin)
    assert policy(browser.get(f"/watch/{cid}"))["connect-src"] == "'self'"


async def test_a_renewal_keeps_its_page(cloud: WatchCloud, browser: Browser):
    token, _ = await asyncio.to_thread(cloud.openid.persons_token)
    vm = vm_path(f"again-{jti()[:6].replace('_', '-')}x")
    headers = {"authorization": f"Bearer {token}"}
    async with cloud.watched():
        first = (await cloud.ask("POST", f"{vm}/enableVmAccess", None, headers=headers, json={"durationInSeconds": 60})).json()
        await asyncio.to_thread(browser.sign_in, first["consentId"])
        second = (await cloud.ask("POST", f"{vm}/enableVmAccess", None, headers=headers, json={"renew": True})).json()
        shown = (await cloud.ask("GET", f"{vm}/vmAccess", None, headers=headers)).json()
        found = (await asyncio.to_thread(browser.post, first["consentId"], "session")).json()
    assert second["watchLink"] == first["watchLink"] == shown["watchLink"]
    assert found["expiresAt"][:19] == second["expiresOn"][:19]


# what is told, and to whom


def test_no_secret_in_the_log(cloud: WatchCloud, browser: Browser, cid: str):
    begun = browser.begin(cid)
    back = browser.at_issuer(begun)
    browser.client.get(back)
    token = browser.post(cid, "token").json()["watchToken"]
    asked = httpx.URL(begun.headers["location"]).params
    secrets = [
        asked["state"],
        asked["nonce"],
        back.params["code"],
        cookie(browser, SESSION),
        CLIENT_SECRET,
        token.rpartition(".")[2],
    ]
    cloud.daemon.transcript.wait_for(f"POST /watch/{cid}/token 200 ")
    log = cloud.log
    assert [one for one in secrets if one in log] == []
    assert "Traceback" not in log


def test_the_rest_is_not_the_pages(cloud: WatchCloud, browser: Browser, cid: str):
    """A session opens nothing but its page."""
    browser.sign_in(cid)
    headers = put(browser, SESSION, cookie(browser, SESSION))
    answer = browser.client.get(f"{cloud.resource_id}/vmAccess", params=VM_VERSION, headers=headers)
    assert error(answer) == (401, "AuthenticationFailed")
