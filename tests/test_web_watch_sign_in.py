"""The watch link: who gets in at the tenant's page, who is told why not, and what an address or a storage could give away."""

from __future__ import annotations

from playwright.async_api import expect

from lab.libvirt_host import Guest
from tests.watch_parts import STRANGER, WatchedCloud, live, sign_in, watching


async def test_the_giver_signs_in_and_is_live(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm, reason="locked out after a firewall change")
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await expect(page.get_by_role("heading", level=1)).to_have_text(vm.name)
        await expect(page.get_by_text("locked out after a firewall change")).to_be_visible()
        await expect(page.get_by_role("timer")).to_contain_text("7 h 5")
        await expect(page.get_by_text("No operator is connected.")).to_be_visible()
        assert vm.name in await page.title()


async def test_before_signing_in_it_says_what_it_is_and_nothing_of_the_vm(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm, reason="locked out")
    async with watched.browser() as browser:
        page = await browser.window()
        await page.goto(consented.link)
        await expect(page.get_by_role("link", name="Sign in to watch")).to_be_visible()
        text = await page.inner_text("body")
        assert vm.name not in text
        assert "locked out" not in text


async def test_a_reload_needs_no_second_sign_in(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await page.reload()
        await live(page)


async def test_another_tenant_is_refused_in_words(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await browser.window()
        await sign_in(browser, page, consented.link, STRANGER)
        await expect(page.get_by_role("heading", name="This is not yours to watch")).to_be_visible()
        await expect(page.get_by_text(f"Only who gave this consent may watch, and {STRANGER} did not.")).to_be_visible()
        assert vm.name not in await page.inner_text("body")


async def test_who_signs_in_to_a_consent_that_is_over_is_told_so(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    watched.withdraw(vm)
    async with watched.browser() as browser:
        page = await browser.window()
        await sign_in(browser, page, consented.link)
        await expect(page.get_by_role("heading", name="This access is over")).to_be_visible()


async def test_a_link_to_no_consent_tells_nothing_more(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    no_consent = consented.link[: -len(consented.cid)] + "AAAAAAAAAAAAAAAAAAAAAA"
    async with watched.browser() as browser:
        page = await browser.window()
        await sign_in(browser, page, no_consent)
        await expect(page.get_by_role("heading", name="This is not yours to watch")).to_be_visible()


async def test_no_query_and_no_fragment_is_obeyed(watched: WatchedCloud, vm: Guest):
    """Neither another consent's id, nor a token, nor markup that stands there."""
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        crafted = "cid=AAAAAAAAAAAAAAAAAAAAAA&watchUrl=wss://elsewhere.example/&paused=true&stop=1&<img src=x onerror=alert(1)>"
        await page.goto(f"{consented.link}#{crafted}")
        await page.reload()
        await live(page)
        await expect(page.get_by_role("button", name="Pause input")).to_be_visible()
        await page.goto(f"{consented.link}?{crafted}")
        assert all("elsewhere.example" not in url.partition("?")[0].partition("#")[0] for url in browser.asked)
        assert not browser.taken("dialog")


async def test_no_secret_is_in_an_address_in_storage_or_on_the_page(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await browser.window()
        offered: list[str] = []
        page.on("response", lambda response: offered.append(response.url))
        await sign_in(browser, page, consented.link)
        await live(page)
        token = await page.evaluate(
            """async () => (await (await fetch(`${location.pathname}/token`,
               {method: 'POST', headers: {'content-type': 'application/json'}, body: '{}'})).json()).watchToken"""
        )
        assert token.count(".") == 2
        kept = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, history.state])")
        assert kept == '[{},{},"",null]'
        assert await page.evaluate("indexedDB.databases().then((all) => all.length)") == 0
        at_ours = [url for url in browser.asked if not url.startswith(watched.openid.url)]
        assert all(len(part) < 40 for url in at_ours if "/callback" not in url for part in url.split("/"))
        assert "eyJ" not in await page.content()


async def test_the_page_cannot_be_framed(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        answer = await page.reload()
        assert answer is not None
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
