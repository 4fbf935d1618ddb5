"""A cloud whose tenants sign in at an OpenID Connect server of others, and watch: all parts are real, Chromium too."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Locator, Page, expect

from lab.browser import Browser
from lab.cloud import SUBSCRIPTION, Cloud
from lab.libvirt_host import Guest, LibvirtHost
from lab.rest import TENANT_AUDIENCE, Issuer, WatchClient
from tests.oidc_parts import PERSON, WEBSITE, OidcServer, private_jwk

STRANGER = "sam"  # a tenant of the same group who gave nothing
PATIENCE_MS = 60_000
CUT_MS = 1000.0  # the promise, from the node's hearing of it
TRIES = 5
# Of a page that waits for the node's word on Stop (NODE_PATIENCE_MS).
PATIENT = "() => { const set = setTimeout; globalThis.setTimeout = (then, ms) => set(then, ms === 1500 ? 60_000 : ms) }"


@dataclass(frozen=True)
class Consented:
    """`link`: the page at which its giver watches."""

    cid: str
    link: str


class WatchedCloud:
    """`cloud` with `openid` beside it."""

    def __init__(self, cloud: Cloud, openid: OidcServer) -> None:
        self.cloud = cloud
        self.openid = openid
        self._trust = ssl.create_default_context(cafile=cloud.authority.ca)
        self._tokens: dict[str, str] = {}
        self._consented: list[Guest] = []

    def browser(self) -> Browser:
        return Browser(self.cloud.authority.ca, self.openid.ca)

    def ask(self, guest: Guest, action: str, method: str = "POST", person: str = PERSON, **body: Any) -> httpx.Response:
        """A request of a tenant's by REST."""
        if person not in self._tokens:
            self._tokens[person] = self.openid.persons_token(person)[0]
        headers = {"authorization": f"Bearer {self._tokens[person]}"}
        url = self.cloud.endpoints.machine(str(guest.resource_id), action)
        with httpx.Client(verify=self._trust, timeout=60) as client:
            return client.request(method, url, headers=headers, json=body if method == "POST" else None)

    async def consent(self, guest: Guest, **wish: Any) -> Consented:
        """The tenant consents, and has the link from the answer; once the node has heard of the VM."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while (answer := self.ask(guest, "enableVmAccess", **wish)).status_code == HTTPStatus.NOT_FOUND:
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.05)
        assert answer.status_code == HTTPStatus.OK, answer.text
        self._consented.append(guest)
        found = answer.json()
        return Consented(found["consentId"], found["watchLink"])

    def withdraw(self, guest: Guest) -> None:
        """The tenant withdraws; the node has confirmed when this returns."""
        answer = self.ask(guest, "disableVmAccess")
        assert answer.status_code == HTTPStatus.OK, answer.text

    def tidy(self) -> None:
        """Withdraw whatever a test left, so that the next one consents anew."""
        for guest in self._consented:
            answer = self.ask(guest, "disableVmAccess")
            assert answer.status_code in (HTTPStatus.OK, HTTPStatus.NOT_FOUND), answer.text
        self._consented.clear()


@contextlib.contextmanager
def watched_cloud(directory: Path, host: LibvirtHost, **more: Any) -> Iterator[WatchedCloud]:
    """`more`: what else Cloud takes."""
    openid = OidcServer(directory / "openid", TENANT_AUDIENCE)
    issuer = Issuer(openid.url, f"{openid.url}/jwks", openid.ca, principal_claim="sub")
    client = WatchClient(openid.url, WEBSITE, openid.ca)
    cloud = Cloud({"host1": host.uri}, issuers=[issuer], watch=client, **more)
    try:
        openid.redirect = f"{cloud.endpoints.tenant}/watch/callback"
        openid.start(private_jwk("key1"))
        cloud.start()
        for person in (PERSON, STRANGER):
            cloud.assign(f"{openid.url}#{person}", "Contributor", f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1")
        yield WatchedCloud(cloud, openid)
    finally:
        cloud.close()
        openid.stop()


# --- the page


async def sign_in(browser: Browser, page: Page, link: str, person: str = PERSON) -> None:
    """Open the link and sign in at the issuer's own pages; returns when the provider's page is back."""
    await page.goto(link)
    await page.get_by_role("link", name="Sign in to watch").click()
    await page.locator("input[name=login]").fill(person)
    await page.locator("input[name=password]").fill("any")
    await page.get_by_role("button", name="Sign-in").click()
    await page.get_by_role("button", name="Continue").click()
    await page.wait_for_url(link)
    # the issuer's pages are another's, and ask for a font of another's still
    assert all("fonts.g" in complaint.text for complaint in browser.taken()), "complaints that are not of the issuer's pages"


async def watching(browser: Browser, link: str, person: str = PERSON, **window: Any) -> Page:
    """A window in which the giver watches."""
    page = await browser.window(**window)
    page.set_default_timeout(PATIENCE_MS)
    await sign_in(browser, page, link, person)
    await live(page)
    return page


async def live(page: Page) -> None:
    """Returns once the page has the node's word."""
    await page.locator('.live[data-phase="open"]').wait_for()


def serial(page: Page) -> Locator:
    """The rows of the terminal, as they are drawn."""
    return page.locator(".pane.serial .xterm-rows")


def screen(page: Page) -> Locator:
    """What noVNC paints on."""
    return page.locator(".pane.graphics canvas")


def typed(page: Page) -> Locator:
    """What the page says that operators typed."""
    return page.locator(".typed")


def rows(page: Page) -> Locator:
    """What the page says that operators typed, line by line."""
    return page.locator(".typed .line")


async def shows(locator: Locator, text: str) -> None:
    """Returns once it has this text. Raises AssertionError."""
    await expect(locator).to_contain_text(text, timeout=PATIENCE_MS)


async def shows_typed(page: Page, line: str, type_line: Callable[[], Awaitable[None]]) -> None:
    """Types it, and returns once the page shows it: what a starved guest echoes too late is hidden, and typed again here."""
    wanted = rows(page).filter(has_text=re.compile(f"^{re.escape(line)}Enter$"))
    before = await wanted.count()
    await type_line()
    for _ in range(TRIES):
        with contextlib.suppress(AssertionError):
            await expect(wanted.nth(before)).to_be_attached(timeout=PATIENCE_MS / TRIES)
            return
        await type_line()
    raise AssertionError(f"{line!r} is not shown as it was typed")


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name).click()


async def stop(page: Page) -> str:
    """Stop, and give what the page says of the cut. A node that is only busy has time for it: no page asks the provider then."""
    await page.evaluate(PATIENT)
    await press(page, "Stop access")
    await press(page, "Stop now")
    await page.get_by_role("heading", name="You stopped the access").wait_for()
    return await page.locator(".end .lead").inner_text()


def milliseconds(sentence: str) -> tuple[float, float]:
    """How long the cut took by the page's sentence: since the node heard of it, and since the button was pressed."""
    found = re.search(r"Cut ([\d.]+) ms after your Stop reached the node, and within ([\d.]+) ms of your pressing it", sentence)
    assert found is not None, sentence
    return float(found[1]), float(found[2])
