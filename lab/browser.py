"""Debian's Chromium, driven by Playwright, for the tests of the pages and the pictures of them.

    async with Browser(cloud.authority.ca) as browser:
        page = await browser.window()                   a Playwright Page; each has cookies and storage of its own,
        theirs = await browser.window(dark=True)        as if it were another person's browser
        await page.goto(f"https://localhost:{port}/")
        ...
        assert browser.taken() == [...]                 what a test provoked on purpose: told, and forgotten
    Browser(ca, certificate=pair)                       one that has a client certificate, and shows it to whoever asks for one

It believes the given authorities and no others: no certificate error is ignored. What no page of ours may do is a complaint: a
request that leaves loopback, a breach of the Content Security Policy, an error that no script caught, a dialog. Leaving the
`async with` raises Misbehaved if there is any that was not taken.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from playwright.async_api import Browser as Chromium
from playwright.async_api import (
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    Page,
    Playwright,
    Request,
    WebError,
    WebSocket,
    async_playwright,
)

from lab.certificates import KeyPair

PROGRAM = Path("/usr/bin/chromium")
PATIENCE_MS = 60_000
LEAVING_MS = 30_000
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
INSIDE = frozenset({"data", "blob", "about", "chrome-error"})  # schemes that no packet goes out for

# Root has no sandbox. Whatever Chromium looks for on its own account, or a page asks of another host, is not found.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE [::1]",
)

# Before any script of the page, in every frame; the binding is not the page's to call, but it may: it can only complain.
_LISTEN = """
document.addEventListener('securitypolicyviolation', (event) => {
    globalThis.__labViolation(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});
"""


@dataclass(frozen=True)
class Complaint:
    """`kind`: request, policy, error or dialog."""

    kind: str
    text: str


class Misbehaved(Exception):
    """A page did what no page of ours may."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        self.complaints = tuple(complaints)
        super().__init__("\n".join(f"{complaint.kind}: {complaint.text}" for complaint in complaints))


class Browser:
    """One Chromium without a window on any screen, its home a new directory that goes with it."""

    def __init__(self, *authorities: Path, certificate: KeyPair | None = None) -> None:
        self.asked: list[str] = []  # every URL that a page asked for, websockets too
        self.said: list[str] = []  # every line on a page's console
        self._authorities = authorities
        self._certificate = certificate
        self._complaints: list[Complaint] = []
        self._stack = contextlib.AsyncExitStack()
        self._chromium: Chromium | None = None

    async def __aenter__(self) -> Self:
        async with self._stack:
            home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="eva-browser-", ignore_cleanup_errors=True)))
            await asyncio.to_thread(_trust, home, self._authorities, self._certificate)
            playwright = await self._stack.enter_async_context(async_playwright())
            self._chromium = await self._start(playwright, home)
            self._stack.push_async_callback(self._chromium.close)
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        async with self._stack:
            await self._leave()
        # what went wrong first is not hidden by what it led to
        if kind is None and self._complaints:
            raise Misbehaved(self._complaints)

    async def window(
        self,
        *,
        dark: bool = False,
        width: int = 1280,
        height: int = 800,
        permissions: Sequence[str] = (),
    ) -> Page:
        """Open an empty page as a person of its own."""
        assert self._chromium is not None  # noqa: S101 - inside the `async with`
        context = await self._chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            locale="en-GB",
            permissions=list(permissions),
            accept_downloads=True,
        )
        context.set_default_timeout(PATIENCE_MS)  # of every page in it
        await self._watch(context)
        return await context.new_page()

    def taken(self, kind: str | None = None) -> list[Complaint]:
        """Give the complaints (of this kind) and forget them."""
        found = [complaint for complaint in self._complaints if kind in {None, complaint.kind}]
        self._complaints = [complaint for complaint in self._complaints if complaint not in found]
        return found

    async def _leave(self) -> None:
        """Let every page go first, as when a person closes a window: a session that nobody left would wait for its return."""
        assert self._chromium is not None  # noqa: S101 - inside the `async with`
        for context in self._chromium.contexts:
            for page in context.pages:
                with contextlib.suppress(Error):  # it may be at its end already
                    await page.goto("about:blank", timeout=LEAVING_MS)

    async def _start(self, playwright: Playwright, home: Path) -> Chromium:
        # Chromium finds NSS's database of authorities by HOME
        environment: dict[str, str | float | bool] = {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        return await playwright.chromium.launch(
            executable_path=PROGRAM if self._certificate is None else _with_policy(home),
            args=list(FLAGS),
            env=environment,
            headless=True,
            timeout=PATIENCE_MS,
            downloads_path=home,
            # the test run's own signals are its own
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )

    async def _watch(self, context: BrowserContext) -> None:
        context.on("request", self._requested)
        context.on("weberror", self._erred)
        context.on("console", self._heard)
        context.on("dialog", self._asked_person)
        context.on("page", lambda page: page.on("websocket", self._connected))
        await context.expose_binding("__labViolation", self._violated)
        await context.add_init_script(_LISTEN)

    def _requested(self, request: Request) -> None:
        self._went_to(request.url)

    def _connected(self, socket: WebSocket) -> None:
        self._went_to(socket.url)

    def _went_to(self, url: str) -> None:
        self.asked.append(url)
        parts = urlsplit(url)
        if parts.scheme not in INSIDE and parts.hostname not in LOOPBACK:
            self._complain("request", url)

    def _erred(self, error: WebError) -> None:
        self._complain("error", str(error.error))

    def _heard(self, message: ConsoleMessage) -> None:
        self.said.append(message.text)

    async def _asked_person(self, dialog: Dialog) -> None:
        self._complain("dialog", f"{dialog.type}: {dialog.message}")
        # nobody would ever answer it
        with contextlib.suppress(Error):  # the page may be gone with it
            await dialog.dismiss()

    def _violated(self, _source: Any, text: str) -> None:  # Playwright's source is a plain dictionary
        self._complain("policy", text)

    def _complain(self, kind: str, text: str) -> None:
        self._complaints.append(Complaint(kind, text))


def _trust(home: Path, authorities: Sequence[Path], own: KeyPair | None) -> None:
    """Make NSS's database where Chromium looks for it: whom it believes, and what it can show. Raises CalledProcessError."""
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    where = ("-d", f"sql:{database}")
    _run("certutil", *where, "-N", "--empty-password")
    for number, authority in enumerate(authorities):
        _run("certutil", *where, "-A", "-n", f"lab-{number}", "-t", "C,,", "-i", str(authority))
    if own is not None:
        certificate = x509.load_pem_x509_certificate(own.certificate.read_bytes())
        key = serialization.load_pem_private_key(own.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - the lab's authority makes no other
        bundle = home / "own.p12"
        bundle.write_bytes(
            serialize_key_and_certificates(b"own", key, certificate, None, serialization.BestAvailableEncryption(b"lab"))
        )
        _run("pk12util", *where, "-i", str(bundle), "-W", "lab", "-K", "")


def _with_policy(home: Path) -> Path:
    """Give a program that starts Chromium with a policy for it alone: whoever asks for a certificate is shown it.

    Chromium has no other way to choose one without its dialog, and reads policies in /etc only: it gets a view of its own.
    """
    policies = home / "etc" / "policies" / "managed"
    policies.mkdir(parents=True)
    always = {"AutoSelectCertificateForUrls": [json.dumps({"pattern": "*", "filter": {}})]}
    (policies / "lab.json").write_text(json.dumps(always))
    program = home / "chromium"
    root = "" if os.geteuid() == 0 else " --map-root-user"
    program.write_text(
        f"#!/bin/sh\n"
        f"exec unshare --mount{root} -- /bin/sh -c "
        f"""'mount --bind "$0" /etc/chromium && exec "$@"' {home}/etc {PROGRAM} "$@"\n"""
    )
    program.chmod(0o700)
    return program


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL)
