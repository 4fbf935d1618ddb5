"""The tests' browser itself: it believes only the lab's authority, and tells of what no page of ours may do."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Error

from lab.browser import Browser, Complaint, Misbehaved
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from tests.other_site import OtherSite

POLICY = "default-src 'none'; script-src 'self'; connect-src *; require-trusted-types-for 'script'"
SCRIPTS = {
    "/quiet.js": "document.title = 'quiet'",
    "/fetches.js": "fetch('https://example.com/').catch(() => { document.title = 'done' })",
    "/connects.js": "new WebSocket('wss://example.com/').onclose = () => { document.title = 'done' }",
    "/throws.js": "setTimeout(() => { document.title = 'done'; throw new Error('nobody catches this') })",
    "/writes.js": "try { document.body.innerHTML = '<p>' } catch { document.title = 'done' }",
    "/asks.js": "setTimeout(() => { confirm('sure?'); document.title = 'done' })",
}


@pytest_asyncio.fixture
async def site(certificates: Authority) -> AsyncIterator[OtherSite]:
    """A page for each of SCRIPTS that loads it."""
    pages = {
        path.removesuffix(".js"): f"<!doctype html><title>none</title><body><script src='{path}'></script>" for path in SCRIPTS
    }
    async with OtherSite(SCRIPTS | pages, policy=POLICY).serving(certificates) as site:
        yield site


async def test_a_page_that_does_nothing_wrong_is_no_complaint(site: OtherSite, certificates: Authority) -> None:
    async with Browser(certificates.ca) as browser:
        page = await browser.window()
        await page.goto(f"{site.url}/quiet")
        assert await page.title() == "quiet"
    assert set(site.shown) == {None}
    assert browser.asked == [f"{site.url}/quiet", f"{site.url}/quiet.js"]


@pytest.mark.parametrize(
    ("page_of", "complaint"),
    [
        ("fetches", Complaint("request", "https://example.com/")),
        ("connects", Complaint("request", "wss://example.com/")),
        ("throws", Complaint("error", "nobody catches this")),
        ("asks", Complaint("dialog", "confirm: sure?")),
    ],
)
async def test_what_no_page_of_ours_may_do_is_raised_at_the_end(
    site: OtherSite, certificates: Authority, page_of: str, complaint: Complaint
) -> None:
    browser = await Browser(certificates.ca).__aenter__()
    page = await browser.window()
    await page.goto(f"{site.url}/{page_of}")
    await page.wait_for_function("document.title === 'done'")
    with pytest.raises(Misbehaved) as raised:
        await browser.__aexit__(None)
    assert raised.value.complaints == (complaint,)


async def test_a_breach_of_the_policy_is_told_and_can_be_taken(site: OtherSite, certificates: Authority) -> None:
    async with Browser(certificates.ca) as browser:
        page = await browser.window()
        await page.goto(f"{site.url}/writes")
        await page.wait_for_function("document.title === 'done'")
        async with asyncio.timeout(PATIENCE_S):
            while not (found := browser.taken("policy")):  # the event comes after the exception
                await asyncio.sleep(0.01)
        (taken,) = found
        assert taken.text.startswith("require-trusted-types-for")


async def test_another_authority_s_site_is_not_believed(site: OtherSite, tmp_path: Path) -> None:
    async with Browser(Authority(tmp_path / "another").ca) as browser:
        page = await browser.window()
        with pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
            await page.goto(site.url)


async def test_a_client_certificate_is_shown_to_whoever_asks_for_one(site: OtherSite, certificates: Authority) -> None:
    async with Browser(certificates.ca, certificate=certificates.client("alice")) as browser:
        page = await browser.window()
        await page.goto(f"{site.url}/quiet")
    assert set(site.shown) == {"alice"}
