"""The real daemon and an OpenID Connect server that others wrote: an operator signs in, works, and outlives a SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from broker.sign_in import PASS_COOKIE
from broker.sign_in_pages import CALLBACK
from eva.audit import Event as Audited
from eva.control import CONTROL_PATH, SUBPROTOCOL, Method, Refusal, Refused
from lab.browser import Browser as Chromium
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from lab.ports import free_port
from tests.oidc_parts import WEBSITE, OidcServer, private_jwk
from tests.operator_window import SLOW_MS
from tests.sign_in_browser import Browser
from tests.system_operator import NODE, PATIENCE, Operator, trusting
from tests.system_parts import audit_of, consented, until, well
from tests.web_parts import Network, at_prompt, shows, type_line

PEOPLE = {
    "olivia": {"preferred_username": "olivia", "groups": ["corp-ops"]},
    "otto": {"preferred_username": "otto", "groups": ["corp-ops"]},
    "sam": {"preferred_username": "sam", "groups": ["staff"]},
}


def at(cloud: Cloud) -> str:
    """The node by its address: so it is another site than the issuer, which is at localhost."""
    return f"https://127.0.0.1:{cloud.nodes[NODE].port}"


@pytest.fixture(scope="module")
def place(libvirt_host: LibvirtHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, OidcServer]]:
    """A cloud whose node knows the issuer."""
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        node = cloud.nodes[NODE]
        url = at(cloud)
        home = tmp_path_factory.mktemp("openid") / "server"
        server = OidcServer(home, "https://api.example", f"{url}{CALLBACK}", people=PEOPLE)
        server.start(private_jwk("key-1"))
        oidc = (
            f"operators:\n  oidc:\n    name: Corp\n    url: {url}\n    issuer: {server.url}\n    client_id: {WEBSITE}\n"
            f"    ca: {server.ca}\n    groups: {{corp-ops: cloudadmin}}\n"
        )
        node.settings.write_text(node.settings.read_text().replace("operators:\n", oidc, 1))
        node.program.stop()
        node.start()
        try:
            yield cloud, server
        finally:
            server.stop()


@asynccontextmanager
async def connected(cloud: Cloud, browser: Browser) -> AsyncIterator[Operator]:
    """A control connection with the browser's cookies."""
    port = cloud.nodes[NODE].port
    websocket = await connect(
        f"wss://localhost:{port}{CONTROL_PATH}",
        ssl=trusting(cloud),
        host="127.0.0.1",
        additional_headers=browser.header,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        open_timeout=PATIENCE,
    )
    operator = Operator(cloud, port, websocket)
    try:
        yield operator
    finally:
        await operator.close()


async def over_the_issuer(page: Page, person: str) -> None:
    """Clicks, and signs in at the issuer's own pages."""
    await page.get_by_role("button", name="Sign in with Corp").click()
    await page.locator("input[name=login]").fill(person)
    await page.locator("input[name=password]").fill("any")
    await page.locator("button[type=submit]").click()
    await page.get_by_role("button", name="Continue").click()


async def test_a_browser_goes_to_the_issuer_and_comes_back_signed_in(place: tuple[Cloud, OidcServer]) -> None:
    cloud, server = place
    async with Chromium(cloud.authority.ca, server.ca) as chromium:
        page = await chromium.window()
        await page.goto(at(cloud))
        await over_the_issuer(page, "olivia")
        await expect(page.get_by_role("button", name="Account olivia")).to_be_visible()
        assert page.url == f"{at(cloud)}/"
        assert [cookie["name"] for cookie in await page.context.cookies(at(cloud))] == [PASS_COOKIE]  # and that is used
        await page.reload()
        await expect(page.get_by_role("button", name="Sign in with Corp")).to_be_visible()
        chromium.taken("request")  # the issuer's pages ask for a font of another host


async def test_who_is_not_admitted_is_told_so_once(place: tuple[Cloud, OidcServer]) -> None:
    cloud, server = place
    async with Chromium(cloud.authority.ca, server.ca) as chromium:
        page = await chromium.window()
        await page.goto(at(cloud))
        await over_the_issuer(page, "sam")
        await expect(page.get_by_role("alert")).to_contain_text("your account may not use this node")
        await page.reload()
        await expect(page.get_by_role("button", name="Sign in with Corp")).to_be_visible()
        await expect(page.get_by_role("alert")).to_have_count(0)
        chromium.taken("request")


async def test_an_operator_of_the_issuers_works_and_outlives_a_reload(place: tuple[Cloud, OidcServer], vm: Guest) -> None:
    cloud, server = place
    node = cloud.nodes[NODE]
    await consented(cloud, vm)
    browser = Browser(at(cloud), Path(cloud.authority.ca), server)
    assert (await browser.signs_in()).headers["location"] == "/"
    async with connected(cloud, browser) as olivia:
        result = await olivia.ask(Method.SIGN_IN)
        assert result.text("account") == "olivia"
        await olivia.ask(Method.WORKSTATION_GRANT)
        console = await olivia.console(vm.resource_id)
        assert await console.ask("echo $((40+2))") == b"42\n"
        start = [record for record in audit_of(node).records if record.event is Audited.SESSION_START][-1]
        assert (start.facts["account"], start.facts["way"]) == ("olivia", "oidc")

        mark = node.program.transcript.size()
        node.program.signal(signal.SIGHUP)
        await node.program.transcript.seen("users re-read", after=mark)
        assert await console.ask("echo $((40+3))") == b"43\n"
        assert not olivia.over

        # from now on the name is somebody else's: who has it over the issuer is not that one
        users = node.directory / "users.yaml"
        before = users.read_text()
        users.write_text(before + "  - name: olivia\n    certificates: ['cn:olivia']\n")
        node.program.signal(signal.SIGHUP)
        assert await console.ended() == 4000
        await until(lambda: olivia.over, "the control connection's end")
    await browser.signs_in()
    assert (await browser.ways())["failed"] == "not-admitted"
    async with connected(cloud, browser) as olivia:
        with pytest.raises(Refused) as caught:
            await olivia.ask(Method.SIGN_IN)
        assert caught.value.refusal is Refusal.WRONG_CREDENTIALS
    users.write_text(before)
    mark = node.program.transcript.size()
    node.program.signal(signal.SIGHUP)
    await node.program.transcript.seen("users re-read", after=mark)


@pytest.fixture
async def way(place: tuple[Cloud, OidcServer]) -> AsyncIterator[tuple[str, Network]]:
    """The node behind a network that may fail: its URL, at which the issuer knows it too, and the network."""
    cloud, server = place
    node, port, redirect = cloud.nodes[NODE], free_port(), server.redirect
    whole, url = node.settings.read_text(), f"https://127.0.0.1:{port}"
    network = Network(node.port)
    await network.open(port)
    server.stop()
    server.redirect = f"{url}{CALLBACK}"
    server.start(private_jwk("key-1"))
    node.program.stop()
    node.settings.write_text(whole.replace(f"    url: {at(cloud)}\n", f"    url: {url}\n"))
    node.start()
    try:
        yield url, network
    finally:
        await network.close()
        node.program.stop()
        node.settings.write_text(whole)
        node.start()
        server.stop()
        server.redirect = redirect
        server.start(private_jwk("key-1"))


async def test_one_whose_connection_dropped_goes_on_without_the_issuer(
    place: tuple[Cloud, OidcServer], way: tuple[str, Network], vm: Guest
) -> None:
    cloud, server = place
    url, network = way
    await well(cloud)
    await consented(cloud, vm)
    async with Chromium(cloud.authority.ca, server.ca) as chromium:
        page = await chromium.window()
        await page.goto(url)
        await over_the_issuer(page, "otto")
        chromium.taken("request")
        await page.get_by_role("button", name="Add this workstation").click()
        pane = await at_prompt(page, vm.name)
        server.stop()
        for word in ("once", "twice"):  # what signs in again is good for one time, and leaves another
            network.fail()
            await expect(pane.get_by_text("Connection lost, trying again")).to_be_visible()
            network.mend()
            await expect(pane.get_by_text("Connected", exact=True)).to_be_visible(timeout=SLOW_MS)
            await type_line(pane, f"echo {word}''-more")
            await shows(pane, f"{word}-more")
        await page.goto("about:blank")


def test_a_node_whose_issuers_secret_is_not_there_does_not_start(place: tuple[Cloud, OidcServer]) -> None:
    cloud, _ = place
    node = cloud.nodes[NODE]
    whole = node.settings.read_text()
    node.program.stop()
    try:
        node.settings.write_text(whole.replace("    issuer:", "    client_secret_file: /nowhere\n    issuer:", 1))
        mark = node.program.transcript.size()
        node.program.start()
        node.program.transcript.wait_for("/nowhere", after=mark)
        assert "does not start" in node.program.transcript.text(mark)
    finally:
        node.settings.write_text(whole)
        node.program.stop()
        node.start()
