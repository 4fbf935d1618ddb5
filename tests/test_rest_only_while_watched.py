"""The REST of watching: the link, the watch token for a client of one's own, and consents that stand only while one watches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from eva.consent import Consent
from eva.token import Typ, verify
from eva.watch import Watch
from lab.certificates import Authority
from provider.store.books import Books
from provider.store.key_sets import KeySets
from provider.store.store import Store
from tests.provider_parts import SUBSCRIPTION, Node, jti, now
from tests.rest_parts import NEIGHBOUR, OWNER, READER, RestCloud, error, rest_cloud, vm_path
from tests.tenant_page import ORIGIN, SOCKET, WatchCloud, watch_cloud

_numbers = itertools.count(1)
COLLEAGUE = "Colin"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[WatchCloud]:
    with watch_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        cloud.cast()
        cloud.assign(COLLEAGUE, "Owner", f"/subscriptions/{SUBSCRIPTION}")
        yield cloud


@pytest.fixture
def vm() -> str:
    """Give the resource ID of a machine of the test's own."""
    return vm_path(f"watched-{next(_numbers)}")


async def enable(cloud: RestCloud, vm: str, who: str = OWNER, **wish: Any) -> dict[str, Any]:
    answer = await cloud.ask("POST", f"{vm}/enableVmAccess", who, json=wish)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def about(node: Node, vm: str) -> list[Consent]:
    """What the node was offered for it: another test's consents may move here once their node has been silent for long."""
    return [one for one in node.consents if str(one.resource_id) == vm]


# the link


async def test_a_link_that_holds_no_secret(cloud: WatchCloud, vm: str):
    async with cloud.watched():
        enabled = await enable(cloud, vm)
        again = await enable(cloud, vm)
        shown = (await cloud.ask("GET", f"{vm}/vmAccess", READER)).json()
    link = f"{cloud.tenant_url}/watch/{enabled['consentId']}"
    assert (enabled["watchLink"], again["watchLink"], shown["watchLink"]) == (link, link, link)
    assert (enabled["onlyWhileWatched"], shown["onlyWhileWatched"], shown["consent"]["onlyWhileWatched"]) == (False, False, False)


async def test_no_link_where_nobody_can_watch(cloud: WatchCloud, vm: str):
    async with cloud.watched(watch=None):
        enabled = await enable(cloud, vm)
        shown = (await cloud.ask("GET", f"{vm}/vmAccess")).json()
    assert "watchLink" not in enabled
    assert "watchLink" not in shown


async def test_no_link_once_it_is_over(cloud: WatchCloud, vm: str):
    async with cloud.watched():
        await enable(cloud, vm)
        await cloud.ask("POST", f"{vm}/disableVmAccess")
        shown = (await cloud.ask("GET", f"{vm}/vmAccess")).json()
    assert shown.keys() & {"watchLink", "onlyWhileWatched"} == set()


# the token


async def test_the_giver_is_given_a_token(cloud: WatchCloud, vm: str):
    async with cloud.watched() as node:
        enabled = await enable(cloud, vm)
        answer = await cloud.ask("POST", f"{vm}/watchVmAccess")
        found = answer.json()
        watch = Watch.from_claims(verify(found["watchToken"], Typ.WATCH, node.keys, cloud.pen.name))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert (watch.cid, watch.giver, str(watch.resource_id)) == (enabled["consentId"], OWNER, vm)
    assert found["watchUrl"] == f"{SOCKET}/v1/watch"


@pytest.mark.parametrize("who", [COLLEAGUE, READER, NEIGHBOUR, "Sam"])
async def test_nobody_else_is(cloud: WatchCloud, vm: str, who: str):
    async with cloud.watched():
        await enable(cloud, vm)
        assert error(await cloud.ask("POST", f"{vm}/watchVmAccess", who)) == (403, "AuthorizationFailed")


async def test_each_giver_for_what_he_gave(cloud: WatchCloud, vm: str):
    async with cloud.watched() as node:
        await enable(cloud, vm, COLLEAGUE)
        assert error(await cloud.ask("POST", f"{vm}/watchVmAccess", OWNER)) == (403, "AuthorizationFailed")
        assert (await cloud.ask("POST", f"{vm}/watchVmAccess", COLLEAGUE)).status_code == 200
        await enable(cloud, vm, OWNER, renew=True)
        assert error(await cloud.ask("POST", f"{vm}/watchVmAccess", COLLEAGUE)) == (403, "AuthorizationFailed")
        assert (await cloud.ask("POST", f"{vm}/watchVmAccess", OWNER)).status_code == 200
        assert len(about(node, vm)) == 2


async def test_no_token_without_a_consent(cloud: WatchCloud, vm: str):
    assert error(await cloud.ask("POST", f"{vm}/watchVmAccess")) == (404, "ConsentNotFound")
    async with cloud.watched():
        await enable(cloud, vm)
        await cloud.ask("POST", f"{vm}/disableVmAccess")
        assert error(await cloud.ask("POST", f"{vm}/watchVmAccess")) == (404, "ConsentNotFound")


async def test_no_token_for_a_node_without_a_listener(cloud: WatchCloud, vm: str):
    async with cloud.watched(watch=None):
        await enable(cloud, vm)
        assert error(await cloud.ask("POST", f"{vm}/watchVmAccess")) == (409, "WatchingNotPossible")


async def test_it_takes_no_wishes(cloud: WatchCloud, vm: str):
    async with cloud.watched():
        await enable(cloud, vm)
        answer = await cloud.ask("POST", f"{vm}/watchVmAccess", json={"consentId": jti()})
        assert error(answer) == (400, "InvalidRequestContent")


# only while one watches


async def test_the_wish_reaches_the_node(cloud: WatchCloud, vm: str):
    async with cloud.watched() as node:
        enabled = await enable(cloud, vm, ONLYWHILEWATCHED=True)
        shown = (await cloud.ask("GET", f"{vm}/vmAccess")).json()
    assert [one.watched for one in about(node, vm)] == [True]
    assert (enabled["onlyWhileWatched"], shown["onlyWhileWatched"], shown["consent"]["onlyWhileWatched"]) == (True, True, True)


async def test_what_is_left_out_stays(cloud: WatchCloud, vm: str):
    async with cloud.watched() as node:
        await enable(cloud, vm, onlyWhileWatched=True)
        assert (await enable(cloud, vm))["outcome"] == "repeated"
        assert (await enable(cloud, vm, renew=True, onlyWhileWatched=None))["onlyWhileWatched"]
        assert [one.watched for one in about(node, vm)] == [True, True]


async def test_another_wish_needs_a_renewal(cloud: WatchCloud, vm: str):
    async with cloud.watched() as node:
        await enable(cloud, vm)
        answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json={"onlyWhileWatched": True})
        assert error(answer) == (409, "Conflict")
        assert (await enable(cloud, vm, renew=True, onlyWhileWatched=True))["onlyWhileWatched"]
        answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json={"onlyWhileWatched": False})
        assert error(answer) == (409, "Conflict")
        assert "only while its giver watches" in answer.text
        assert [one.watched for one in about(node, vm)] == [False, True]


@pytest.mark.parametrize("wish", ["yes", 1, [], {}])
async def test_what_is_no_wish(cloud: WatchCloud, vm: str, wish: Any):
    answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json={"onlyWhileWatched": wish})
    assert (error(answer), answer.json()["error"]["target"]) == ((400, "InvalidParameter"), "onlyWhileWatched")


def alone(cloud: RestCloud, *nodes: Node) -> None:
    """No other test's node counts as alive, or has a consent that might move to these."""
    mine = {node.pen.name for node in nodes}
    store = Store(cloud.place.store)
    with store.write() as connection:
        for one in Books(connection).nodes():
            if one.name not in mine:
                Books(connection).update_node(one.name, asked_ms=0)
        newest = KeySets(connection).newest()
        assert newest is not None
        KeySets(connection).end_under(newest.signing_kid, now() * 1000)
    store.close()


async def test_nobody_locks_himself_out(cloud: WatchCloud, vm: str):
    """The node would take it, and nothing would ever open."""
    async with cloud.watched(watch=None) as node:
        alone(cloud, node)
        answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json={"onlyWhileWatched": True})
        assert error(answer) == (409, "WatchingNotPossible")
        assert cloud.pen.name in answer.text
        assert (await node.has_revocation(1)).consent == about(node, vm)[0].jti
        shown = (await cloud.ask("GET", f"{vm}/vmAccess")).json()
        assert shown["state"] == "none"
        assert not (await enable(cloud, vm))["onlyWhileWatched"]


async def test_nor_by_a_renewal(cloud: WatchCloud, vm: str):
    async with cloud.watched(watch=None) as node:
        first = await enable(cloud, vm)
        answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json={"onlyWhileWatched": True, "renew": True})
        assert error(answer) == (409, "WatchingNotPossible")
        assert (await enable(cloud, vm))["consentId"] == first["consentId"]
        assert (len(about(node, vm)), node.revocations) == (1, [])


async def test_it_goes_to_the_node_where_one_can(cloud: WatchCloud, vm: str):
    """Of two with nothing to do the first by name is asked first, and cannot."""
    async with cloud.watched(watch=None) as blind, cloud.watched() as seeing:
        alone(cloud, blind, seeing)
        enabled = await enable(cloud, vm, onlyWhileWatched=True)
        assert enabled["ERCSName"] == seeing.pen.name
        assert (await blind.has_revocation(1)).consent == about(blind, vm)[0].jti


# without a page


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[RestCloud]:
    with rest_cloud(tmp_path_factory.mktemp("plain"), certificates) as cloud:
        yield cloud


async def test_without_a_page_there_is_no_link(plain: RestCloud, vm: str):
    async with plain.serving(watch=ORIGIN):
        enabled = await enable(plain, vm)
        assert "watchLink" not in enabled
        for path in (f"/watch/{enabled['consentId']}", "/watch/files/shared/json_rpc.js", "/watch/callback"):
            assert error(await plain.ask("GET", path, None)) == (404, "NotFound")
        # a client of his own may watch all the same
        assert (await plain.ask("POST", f"{vm}/watchVmAccess")).status_code == 200


async def test_without_a_page_nobody_binds_himself_to_it(plain: RestCloud, vm: str):
    async with plain.serving(watch=ORIGIN) as node:
        answer = await plain.ask("POST", f"{vm}/enableVmAccess", json={"onlyWhileWatched": True})
        assert (error(answer), answer.json()["error"]["target"]) == ((409, "WatchingNotPossible"), "onlyWhileWatched")
        assert about(node, vm) == []
