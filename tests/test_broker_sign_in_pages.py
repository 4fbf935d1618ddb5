"""Operators sign in over an OpenID Connect server that others wrote, at a node's real port; and others try to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

import oidc.document
import oidc.https
from broker.attempts import BY_ADDRESS
from broker.control_channel import LAPSED
from broker.settings import Oidc
from broker.sign_in import BEGUN_COOKIE, BEGUN_SECONDS, FAILED_COOKIE, PASS_COOKIE, PASS_SECONDS
from broker.sign_in_pages import BEGIN, CALLBACK, WAYS
from eva.consent import Kind
from eva.control import Method, Refusal
from eva.instant import NS
from lab.certificates import Authority
from lab.ports import free_port
from oidc.settings import Client, Registration
from tests.broker_parts import PATIENCE, vm_id
from tests.oidc_parts import WEBSITE, OidcServer, private_jwk
from tests.operator_port import PASSWORD, Port, accounts, ask, port, refusal, unhurried
from tests.sign_in_browser import Browser

SECRET = "secret-of-the-consoles"
HOURS = 2
PEOPLE = {
    "olivia": {"preferred_username": "olivia", "groups": ["corp-ops", "staff"]},
    "sam": {"preferred_username": "sam", "groups": ["staff"]},
    "nobody": {"preferred_username": "no body", "groups": ["corp-ops"]},
    "alice": {"preferred_username": "Alice", "groups": ["corp-ops"]},  # as the users file has her, but for a letter
}
REFUSED = {
    "sam": "sam has none of the groups",
    "nobody": "preferred_username is no account's name",
    "alice": "Alice is an account of this node's own",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OidcServer, int]]:
    """The issuer, and the node's port that it is told of."""
    number = free_port()
    server = OidcServer(
        tmp_path_factory.mktemp("openid") / "server",
        "https://api.example",
        f"https://127.0.0.1:{number}{CALLBACK}",
        SECRET,
        PEOPLE,
    )
    server.start(private_jwk("key-1"))
    yield server, number
    server.stop()


def settings(server: OidcServer, number: int, directory: Path) -> Oidc:
    secret = directory / "client-secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    client = Client(server.url, WEBSITE, None, ("openid",), server.ca)
    url = f"https://127.0.0.1:{number}"
    return Oidc("Corp", url, Registration(client, secret), "preferred_username", "groups", {"corp-ops": "cloudadmin"}, HOURS)


@pytest.fixture
def server(place: tuple[OidcServer, int]) -> OidcServer:
    return place[0]


@pytest.fixture
async def door(
    tmp_path: Path, certificates: Authority, place: tuple[OidcServer, int], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Port]:
    unhurried(monkeypatch)
    monkeypatch.setattr(oidc.https, "SECONDS", PATIENCE)
    server, number = place
    async with port(tmp_path, certificates, number=number, oidc=lambda at: settings(server, at, tmp_path)) as one:
        yield one


def a_browser(door: Port, server: OidcServer) -> Browser:
    return Browser(f"https://127.0.0.1:{door.number}", door.tls_ca, server)


@pytest.fixture
def browser(door: Port, server: OidcServer) -> Browser:
    return a_browser(door, server)


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.headers["location"]


# -- an operator ---------------------------------------------------------------------------------------------------------


async def test_which_ways_there_are(browser: Browser) -> None:
    assert await browser.ways() == {"password": True, "certificate": True, "oidc": "Corp", "signed_in": False, "failed": None}


async def test_an_operator_signs_in_and_opens_a_console(door: Port, browser: Browser) -> None:
    assert told(await browser.signs_in()) == (303, "/")
    assert (await browser.ways())["signed_in"]
    door.node.grant()
    async with door.control(additional_headers=browser.header) as client:
        result = await ask(client, Method.SIGN_IN)
        assert (result["account"], result["groups"], result["granted"]) == ("olivia", ["cloudadmin"], False)
        await ask(client, Method.WORKSTATION_GRANT)
        opened = await ask(client, Method.SESSION_OPEN, resource_id=str(vm_id()), kind=str(Kind.SERIAL))
        (live,) = door.node.sessions.roster.lives.values()
        assert (opened["session"], live.session.operator.way) == (live.session.id, "oidc")


async def test_a_sign_in_runs_out(door: Port, browser: Browser) -> None:
    await browser.signs_in()
    door.node.clock.run(PASS_SECONDS - 1)  # it counts from the issuer's word, not from the pass's use
    async with door.control(additional_headers=browser.header) as client:
        await ask(client, Method.SIGN_IN)
        door.desk.tick(door.node.clock.run(HOURS * 3600 - PASS_SECONDS))
        await ask(client, Method.WORKSTATION_GRANT)
        door.desk.tick(door.node.clock.run(1))
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1008, LAPSED)


async def test_signing_in_again_makes_it_no_longer(door: Port, browser: Browser) -> None:
    await browser.signs_in()
    async with door.control(additional_headers=browser.header) as first:
        again = (await ask(first, Method.SIGN_IN))["again"]
        door.desk.tick(door.node.clock.run(HOURS * 3600 - 1))
        async with door.control() as second:
            another = (await ask(second, Method.SIGN_IN, again=again))["again"]
            door.desk.tick(door.node.clock.run(1))
            await second.wait_closed()
            assert second.close_reason == LAPSED
            async with door.control() as third:
                assert await refusal(third, Method.SIGN_IN, again=another) is Refusal.WRONG_CREDENTIALS


async def test_a_sign_in_by_password_does_not_run_out(door: Port) -> None:
    async with door.control() as client:
        await ask(client, Method.SIGN_IN, account="bob", password=PASSWORD)
        door.desk.tick(door.node.clock.run(HOURS * 3600))
        await ask(client, Method.WORKSTATION_GRANT)


async def test_its_sessions_run_out_with_it(door: Port, browser: Browser) -> None:
    door.node.grant()
    await browser.signs_in()
    async with door.control(additional_headers=browser.header) as client:
        await ask(client, Method.SIGN_IN)
        await ask(client, Method.WORKSTATION_GRANT)
        await ask(client, Method.SESSION_OPEN, resource_id=str(vm_id()), kind=str(Kind.SERIAL))
        (live,) = door.node.sessions.roster.lives.values()
        assert live.session.operator.lapses == door.node.clock.now().boot + HOURS * 3600 * NS


async def test_the_pass_works_once(door: Port, browser: Browser) -> None:
    await browser.signs_in()
    async with door.control(additional_headers=browser.header) as client:
        await ask(client, Method.SIGN_IN)
    assert not (await browser.ways())["signed_in"]
    async with door.control(additional_headers=browser.header) as client:
        assert await refusal(client, Method.SIGN_IN) is Refusal.WRONG_CREDENTIALS


async def test_the_pass_lapses(door: Port, browser: Browser) -> None:
    await browser.signs_in()
    door.node.clock.run(PASS_SECONDS)
    assert not (await browser.ways())["signed_in"]
    async with door.control(additional_headers=browser.header) as client:
        assert await refusal(client, Method.SIGN_IN) is Refusal.WRONG_CREDENTIALS


async def test_the_pass_is_for_its_address(door: Port, browser: Browser) -> None:
    await browser.signs_in()
    async with door.control(additional_headers=browser.header, source="127.0.0.2") as client:
        assert await refusal(client, Method.SIGN_IN) is Refusal.WRONG_CREDENTIALS


async def test_without_a_pass_nobody_is_signed_in(door: Port) -> None:
    async with door.control() as client:
        assert await refusal(client, Method.SIGN_IN) is Refusal.WRONG_CREDENTIALS


async def test_a_password_still_does(door: Port, browser: Browser) -> None:
    await browser.signs_in()
    async with door.control(additional_headers=browser.header) as client:
        assert (await ask(client, Method.SIGN_IN, account="bob", password=PASSWORD))["account"] == "bob"
    assert (await browser.ways())["signed_in"]  # the pass was not asked for


async def test_a_name_that_is_in_the_users_file_by_now(door: Port, browser: Browser) -> None:
    await browser.signs_in()
    door.desk.accounts = accounts("alice", "olivia")
    async with door.control(additional_headers=browser.header) as client:
        assert await refusal(client, Method.SIGN_IN) is Refusal.WRONG_CREDENTIALS


async def test_cookies_are_of_the_strict_sort(browser: Browser) -> None:
    begun = (await browser.get(BEGIN)).headers["set-cookie"]
    assert begun.startswith(f"{BEGUN_COOKIE}=")
    assert begun.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    finished = (await browser.signs_in()).headers.get_list("set-cookie")
    assert finished[0].startswith(f"{PASS_COOKIE}=")
    assert finished[0].endswith("; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Strict")
    assert finished[1].startswith(f"{BEGUN_COOKIE}=; Max-Age=0;")


async def test_nothing_of_it_is_kept_by_a_browser(browser: Browser) -> None:
    answer = await browser.get(BEGIN)
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")


async def test_another_name_of_ours_leads_to_the_right_one(door: Port, browser: Browser) -> None:
    answer = await browser.get(BEGIN, headers={"host": f"localhost:{door.number}"})
    assert told(answer) == (303, f"https://127.0.0.1:{door.number}{BEGIN}")
    assert "set-cookie" not in answer.headers


# -- who is not let in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["sam", "nobody", "alice"])
async def test_who_is_not_admitted(door: Port, browser: Browser, person: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert told(await browser.signs_in(person)) == (303, "/")
    assert browser.cookie(PASS_COOKIE) is None
    ways = await browser.ways()
    assert (ways["failed"], ways["signed_in"]) == ("not-admitted", False)
    assert door.refusals() == {"wrong-credentials": 1}
    assert (await browser.ways())["failed"] is None  # it is told once
    assert len(door.desk.passes) == 0
    assert REFUSED[person] in caplog.text


async def test_another_state(door: Port, browser: Browser) -> None:
    back = httpx.URL(await browser.to_the_callback()).copy_set_param("state", "x" * 43)
    assert told(await browser.get(str(back))) == (303, "/")
    assert (await browser.ways())["failed"] == "broken"
    assert len(door.desk.passes) == 0


async def test_what_others_send_a_browser_to_does_not_end_what_it_has_begun(browser: Browser) -> None:
    back = await browser.to_the_callback()
    await browser.get(f"{CALLBACK}?code=x&state=y")
    await browser.get(f"{CALLBACK}?error=access_denied&state=y")
    assert told(await browser.get(back)) == (303, "/")
    assert (await browser.ways())["signed_in"]


async def test_another_browsers_callback(door: Port, server: OidcServer, browser: Browser) -> None:
    """Who is sent to the end of somebody else's sign-in is not signed in as somebody else."""
    back = await browser.to_the_callback()
    victim = a_browser(door, server)
    assert told(await victim.get(back)) == (303, "/")
    assert victim.cookie(PASS_COOKIE) is None
    await victim.get(BEGIN)  # with one of its own begun, too
    await victim.get(back)
    assert (victim.cookie(PASS_COOKIE), (await victim.ways())["failed"]) == (None, "broken")


async def test_a_callback_works_once(door: Port, browser: Browser) -> None:
    back = await browser.to_the_callback()
    sealed = browser.cookie(BEGUN_COOKIE)
    assert sealed is not None
    assert (await browser.get(back)).headers.get_list("set-cookie")[0].startswith(f"{PASS_COOKIE}=")
    browser.carry(BEGUN_COOKIE, sealed)
    answer = await browser.get(back)
    assert not any(text.startswith(f"{PASS_COOKIE}=") for text in answer.headers.get_list("set-cookie"))
    assert len(door.desk.passes) == 1


async def test_of_two_at_once_one_gets_in(door: Port, browser: Browser) -> None:
    back = await browser.to_the_callback()
    header = {"cookie": f"{BEGUN_COOKIE}={browser.cookie(BEGUN_COOKIE)}"}
    async with httpx.AsyncClient(verify=door.tls, timeout=PATIENCE) as client:
        answers = await asyncio.gather(*(client.get(back, headers=header) for _ in range(5)))
    passes = [text for answer in answers for text in answer.headers.get_list("set-cookie") if text.startswith(f"{PASS_COOKIE}=")]
    assert len(passes) == 1


async def test_a_callback_that_is_late(door: Port, browser: Browser) -> None:
    back = await browser.to_the_callback()
    door.node.clock.run(BEGUN_SECONDS + 1)
    await browser.get(back)
    assert ((await browser.ways())["failed"], len(door.desk.passes)) == ("broken", 0)


async def test_the_issuers_no(door: Port, browser: Browser, server: OidcServer) -> None:
    back = httpx.URL(await browser.to_the_callback())
    asked = {"error": "access_denied", "error_description": "<b>no</b>", "state": back.params["state"], "iss": server.url}
    answer = await browser.get(str(back.copy_with(params=asked)))
    assert told(answer) == (303, "/")
    assert (await browser.ways())["failed"] == "declined"


async def test_a_code_that_is_none(browser: Browser) -> None:
    back = httpx.URL(await browser.to_the_callback()).copy_set_param("code", "made-up")
    await browser.get(str(back))
    assert (await browser.ways())["failed"] == "declined"


async def test_another_issuers_answer(door: Port, browser: Browser) -> None:
    back = httpx.URL(await browser.to_the_callback()).copy_set_param("iss", "https://evil.example")
    await browser.get(str(back))
    assert ((await browser.ways())["failed"], len(door.desk.passes)) == ("broken", 0)


async def test_an_issuer_that_is_down(browser: Browser, server: OidcServer, door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc.document, "PAUSE_SECONDS", 0.0)
    server.stop()
    try:
        assert told(await browser.get(BEGIN)) == (303, "/")
        assert (await browser.ways())["failed"] == "unreachable"
        assert door.refusals() == {"issuer": 1}
        async with door.signed_in():  # who needs no issuer is not kept out
            pass
    finally:
        server.start(private_jwk("key-1"))
    assert told(await browser.signs_in()) == (303, "/")
    assert (await browser.ways())["signed_in"]


async def test_codes_are_not_guessed_for_ever(browser: Browser, server: OidcServer) -> None:
    words = []
    for _ in range(BY_ADDRESS.burst + 1):
        state = httpx.URL((await browser.get(BEGIN)).headers["location"]).params["state"]
        await browser.get(f"{CALLBACK}?code=guess&state={state}&iss={server.url}")
        words.append((await browser.ways())["failed"])
    assert words == ["declined"] * BY_ADDRESS.burst + ["rate-limited"]


async def test_a_word_that_is_none_of_ours_is_not_repeated(browser: Browser) -> None:
    browser.carry(FAILED_COOKIE, "<script>")
    assert (await browser.ways())["failed"] is None


# -- where it may lead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        f"{BEGIN}?next=https://evil.example",
        f"{BEGIN}?",
        f"{BEGIN}/",
        f"{BEGIN}//evil.example",
        f"{BEGIN}/https://evil.example",
        f"{WAYS}?x",
        "/sign-in",
        "/sign-in/",
        "/sign-in/../sign-in/oidc",
        f"{CALLBACK}/",
        f"{CALLBACK}/..?code=x&state=y",
        "/sign-in/oidc/Callback?code=x&state=y",
        "//evil.example/sign-in/oidc",
    ],
)
async def test_no_other_spelling_is_served(door: Port, target: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{door.number}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        assert b"404" in await reader.readline()
    writer.transport.abort()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=x",
        "code=x&state=y&redirect_uri=https://evil.example",
        "code=x&state=y&next=//evil.example&iss=https://evil.example",
        "state=%0d%0alocation:https://evil.example&code=x",
        "code=x&state=y" + "z" * 9000,
        "%ff",
    ],
    ids=lambda query: query[:30],
)
async def test_no_callback_leads_elsewhere(browser: Browser, query: str) -> None:
    answer = await browser.get(f"{CALLBACK}?{query}")
    assert told(answer) == (303, "/")
    assert "evil" not in str(answer.headers)


@pytest.mark.parametrize("target", [WAYS, BEGIN, f"{CALLBACK}?code=x&state=y"])
@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
async def test_they_are_only_got(door: Port, target: str, method: str) -> None:
    async with httpx.AsyncClient(verify=door.tls, base_url=f"https://127.0.0.1:{door.number}", timeout=PATIENCE) as client:
        answer = await client.request(method, target)
    assert (answer.status_code, "set-cookie" in answer.headers) == (405, False)


@pytest.mark.parametrize("fields", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}])
@pytest.mark.parametrize("target", [WAYS, BEGIN, f"{CALLBACK}?code=x&state=y"])
async def test_a_rebound_name_or_a_foreign_page(browser: Browser, target: str, fields: dict[str, str]) -> None:
    answer = await browser.get(target, headers=fields)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


async def test_without_an_issuer_there_is_no_way_over_one(tmp_path: Path, certificates: Authority) -> None:
    async with port(tmp_path, certificates) as door, httpx.AsyncClient(verify=door.tls, timeout=PATIENCE) as client:
        url = f"https://127.0.0.1:{door.number}"
        assert (await client.get(f"{url}{WAYS}")).json()["oidc"] is None
        assert [(await client.get(f"{url}{target}")).status_code for target in (BEGIN, CALLBACK)] == [404, 404]
