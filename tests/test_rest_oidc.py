"""Callers whom a certified OpenID Connect server vouches for, and that server's keys over its rotations and its absence."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import httpx
import pytest

from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from tests.oidc_parts import ELSEWHERE, PAUSE, PERSON, PROGRAM, OidcCloud, oidc_cloud, private_jwk
from tests.provider_parts import SUBSCRIPTION
from tests.rest_parts import OTHER_SUBSCRIPTION, error, vm_path

_numbers = itertools.count(1)
KEYS = [private_jwk(f"key-{number}") for number in range(4)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[OidcCloud]:
    with oidc_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: OidcCloud) -> Iterator[OidcCloud]:
    """With the server up, which signs with the first key."""
    running.openid.start(KEYS[0])
    yield running
    running.openid.stop()


async def ask(cloud: OidcCloud, token: str, path: str = f"{vm_path('vm1')}/vmAccess", method: str = "GET") -> httpx.Response:
    return await cloud.ask(method, path, None, headers={"authorization": f"Bearer {token}"})


async def believed(cloud: OidcCloud, token: str) -> None:
    """Returns once the token is taken, which it need not be before the pause between two fetches is over."""
    async with asyncio.timeout(PATIENCE_S):
        while (await ask(cloud, token)).status_code != 200:
            await asyncio.sleep(0.1)


async def rotated(cloud: OidcCloud, *keys: int) -> str:
    """A token of the server, started anew with these keys."""
    cloud.openid.stop()
    cloud.openid.start(*(KEYS[key] for key in keys))
    return await asyncio.to_thread(cloud.openid.programs_token)


# signed in


async def test_a_program_consents(cloud: OidcCloud):
    token = await asyncio.to_thread(cloud.openid.programs_token)
    await believed(cloud, token)
    async with cloud.serving() as node:
        answer = await ask(cloud, token, f"{vm_path(f'vm-{next(_numbers)}')}/enableVmAccess", "POST")
    assert (answer.status_code, answer.json()["ERCSName"]) == (200, cloud.pen.name)
    assert node.consents[0].giver == f"{cloud.openid.url}#{PROGRAM}"


async def test_a_person_consents_and_withdraws(cloud: OidcCloud):
    token, _ = await asyncio.to_thread(cloud.openid.persons_token)
    await believed(cloud, token)
    vm = vm_path(f"vm-{next(_numbers)}")
    async with cloud.serving() as node:
        enabled = await ask(cloud, token, f"{vm}/enableVmAccess", "POST")
        disabled = await ask(cloud, token, f"{vm}/disableVmAccess", "POST")
    assert (enabled.status_code, disabled.status_code) == (200, 200), enabled.text
    assert (node.consents[0].giver, len(node.revocations)) == (f"{cloud.openid.url}#{PERSON}", 1)


async def test_it_reaches_as_far_as_its_role(cloud: OidcCloud):
    token = await asyncio.to_thread(cloud.openid.programs_token)
    await believed(cloud, token)
    for path in (
        vm_path("vm1", OTHER_SUBSCRIPTION),
        vm_path("vm1").replace("/rg1/", "/rg10/"),
        vm_path("vm1").replace("rg1", "rg"),
    ):
        assert error(await ask(cloud, token, f"{path}/enableVmAccess", "POST")) == (403, "AuthorizationFailed")


async def test_who_somebody_is_elsewhere_says_nothing(cloud: OidcCloud):
    """The home issuer's person of the same name is another one."""
    cloud.assign(PERSON, "Owner", f"/subscriptions/{OTHER_SUBSCRIPTION}")
    token, _ = await asyncio.to_thread(cloud.openid.persons_token)
    await believed(cloud, token)
    answer = await ask(cloud, token, f"{vm_path('vm1', OTHER_SUBSCRIPTION)}/vmAccess")
    home = await cloud.ask("GET", f"{vm_path('vm1', OTHER_SUBSCRIPTION)}/vmAccess", PERSON)
    assert (error(answer), home.status_code) == ((403, "AuthorizationFailed"), 200)


async def test_a_token_for_another_resource(cloud: OidcCloud):
    await believed(cloud, await asyncio.to_thread(cloud.openid.programs_token))
    token = await asyncio.to_thread(cloud.openid.programs_token, ELSEWHERE)
    assert error(await ask(cloud, token)) == (401, "InvalidAuthenticationTokenAudience")


async def test_an_id_token_is_no_access_token(cloud: OidcCloud):
    _, token = await asyncio.to_thread(cloud.openid.persons_token)
    await believed(cloud, await asyncio.to_thread(cloud.openid.programs_token))
    assert error(await ask(cloud, token)) == (401, "InvalidAuthenticationTokenAudience")


async def test_the_operators_door_stays_shut(cloud: OidcCloud):
    token = await asyncio.to_thread(cloud.openid.programs_token)
    answer = await cloud.ask(
        "GET", f"/subscriptions/{SUBSCRIPTION}", None, admin=True, headers={"authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 401


# keys


async def test_a_new_key_is_followed(cloud: OidcCloud):
    old = await asyncio.to_thread(cloud.openid.programs_token)
    await believed(cloud, old)
    new = await rotated(cloud, 1, 0)
    await believed(cloud, new)
    assert (await ask(cloud, old)).status_code == 200  # the set still has its key


async def test_a_key_taken_out_counts_no_more(cloud: OidcCloud):
    old = await asyncio.to_thread(cloud.openid.programs_token)
    await believed(cloud, old)
    new = await rotated(cloud, 2)
    await believed(cloud, new)
    assert error(await ask(cloud, old)) == (401, "InvalidAuthenticationToken")


async def test_unknown_keys_do_not_make_it_ask_without_end(cloud: OidcCloud):
    known = await asyncio.to_thread(cloud.openid.programs_token)
    await believed(cloud, known)
    unknown = await rotated(cloud, 3)
    await rotated(cloud, 0)
    before = cloud.openid.times_asked()
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers = await asyncio.gather(*(ask(cloud, token) for token in [unknown, known] * 20))
    pauses = (loop.time() - began) / PAUSE
    assert [answer.status_code for answer in answers] == [401, 200] * 20
    assert cloud.openid.times_asked() - before <= pauses + 1


async def test_while_the_server_is_down_what_is_known_counts_on(cloud: OidcCloud):
    known = await asyncio.to_thread(cloud.openid.programs_token)
    await believed(cloud, known)
    unknown = await rotated(cloud, 3, 0)
    cloud.openid.stop()
    mark = len(cloud.log)
    async with asyncio.timeout(PATIENCE_S):
        while "could not be read" not in cloud.log[mark:]:
            assert error(await ask(cloud, unknown)) == (401, "InvalidAuthenticationToken")
            await asyncio.sleep(0.1)
    assert (await ask(cloud, known)).status_code == 200
    assert f"the keys of {cloud.openid.url} could not be read" in cloud.log[mark:]
    cloud.openid.start(KEYS[3])
    await believed(cloud, unknown)


async def test_the_log_has_no_token(cloud: OidcCloud):
    token = await asyncio.to_thread(cloud.openid.programs_token)
    await believed(cloud, token)
    assert not any(part in cloud.log for part in token.split(".")[1:])
