"""A certified OpenID Connect server that others wrote, its programs and its people; and a provider that believes it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from eva.token import b64
from lab.certificates import Authority
from lab.ports import free_port
from lab.process import Program
from lab.transcript import PATIENCE_S
from tests import provider_parts
from tests.azure.adfs import LIBRARY, NODE
from tests.provider_parts import SUBSCRIPTION
from tests.rest_parts import RestCloud

SERVER = Path(__file__).parent / "oidc" / "server.mjs"
PROGRAM, SECRET = "automation", "secret-of-an-automation"
WEBSITE, REDIRECT = "portal", "https://portal.example/signed-in"
PERSON = "olivia"
SCOPE = "consoles"
ELSEWHERE = "https://elsewhere.example"
MOST_PAGES = 4  # sign-in and consent, and where they lead

# How long it takes until a set of keys may be fetched anew: shorter than in earnest, so that a test can outwait it
PAUSE = 3.0
DAEMON = f"import provider.rest.jwks\nprovider.rest.jwks.REFRESH_SECONDS = {PAUSE}\n{provider_parts.DAEMON}"


def private_jwk(kid: str) -> dict[str, Any]:
    """A key of the server's own."""
    made: str = jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048))
    members = json.loads(made)
    del members["key_ops"]
    return {**members, "kid": kid, "use": "sig", "alg": "RS256"}


class OidcServer:
    """On one port over all its runs. `resource`: whom its tokens are for; `people`: the claims that their ID tokens have."""

    def __init__(
        self,
        directory: Path,
        resource: str,
        redirect: str = REDIRECT,
        secret: str | None = None,
        people: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        directory.mkdir()
        self.redirect, self.secret, self.people = redirect, secret, dict(people or {})
        authority = Authority(directory / "tls", "OpenID CA")
        self.ca = authority.ca
        self.resource = resource
        self._port = free_port()
        self._pair = authority.server("openid")
        self._log = directory / "log"
        self._program: Program | None = None
        self.trust = ssl.create_default_context(cafile=self.ca)

    @property
    def url(self) -> str:
        return f"https://localhost:{self._port}"

    def start(self, *keys: Mapping[str, Any]) -> None:
        """The first of `keys` is the one that signs."""
        settings = {
            "resource": self.resource,
            "keys": keys,
            "programs": {PROGRAM: SECRET},
            "website": {"id": WEBSITE, "redirect": self.redirect, "secret": self.secret},
            "people": self.people,
        }
        files = [LIBRARY, str(self._port), self._pair.certificate, self._pair.key]
        self._program = Program([str(NODE), str(SERVER), *map(str, files), json.dumps(settings)], self._log)
        mark = self._program.transcript.size()
        self._program.start()
        self._program.transcript.wait_for("ready\n", after=mark)

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
            self._program = None

    def times_asked(self) -> int:
        """How often its key set was fetched."""
        return self._log.read_text().count("keys asked for\n")

    def client(self) -> httpx.Client:
        return httpx.Client(verify=self.trust, base_url=self.url, timeout=PATIENCE_S)

    def programs_token(self, resource: str | None = None) -> str:
        """By client_credentials (RFC 6749 4.4) with a resource indicator (RFC 8707)."""
        form = {"grant_type": "client_credentials", "scope": SCOPE, "resource": resource or self.resource}
        with self.client() as client:
            answer = client.post("/token", data=form, auth=(PROGRAM, SECRET))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def persons_token(self, person: str = PERSON) -> tuple[str, str]:
        """By an authorization code with PKCE (RFC 7636), signed in at the server's pages: the access token, and the ID token."""
        verifier = secrets.token_urlsafe(48)
        asked = {
            "client_id": WEBSITE,
            "response_type": "code",
            "redirect_uri": self.redirect,
            "scope": f"openid {SCOPE}",
            "resource": self.resource,
            "state": "s",
            "code_challenge": b64(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        with self.client() as browser:
            code = str(self.signed_in(browser, browser.get("/auth", params=asked), person).params["code"])
            form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect}
            form |= {"code_verifier": verifier, "resource": self.resource}
            if self.secret is None:
                answer = browser.post("/token", data=form | {"client_id": WEBSITE})
            else:
                answer = browser.post("/token", data=form, auth=(WEBSITE, self.secret))
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"], answer.json()["id_token"]

    def signed_in(self, browser: httpx.Client, answer: httpx.Response, person: str = PERSON) -> httpx.URL:
        """Does at the pages what a person does in a browser; gives where they send it in the end."""
        for _ in range(4 * MOST_PAGES):
            if answer.has_redirect_location:
                location = httpx.URL(str(answer.url)).join(answer.headers["location"])
                if str(location).startswith(self.redirect):
                    return location
                answer = browser.get(location)
                continue
            form = re.search(r'<form[^>]* action="([^"]*)"[^>]*>(.*?)</form>', answer.text, re.DOTALL)
            assert form is not None, answer.text
            fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form[2]))
            typed = {"login": person, "password": "any"}
            fields |= {name: text for name, text in typed.items() if f'name="{name}"' in form[2]}
            answer = browser.post(httpx.URL(str(answer.url)).join(unescape(form[1])), data=fields)
        raise AssertionError("the pages lead nowhere")


class OidcCloud(RestCloud):
    """A provider with its own issuer as the home, and the OpenID Connect server beside it."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        super().__init__(directory, authority)
        self.argv = [sys.executable, "-c", DAEMON, "--config", str(self.place.config)]
        self.daemon = Program(self.argv, directory / "provider.log", notify=True)

    def _rest_settings(self) -> str:
        self.openid = OidcServer(self.place.directory / "openid", self.tenant_url)
        ours = super()._rest_settings().replace("/issuer.pem}", "/issuer.pem, home: true}")
        return (
            f"{ours}    - {{issuer: '{self.openid.url}', jwks_url: '{self.openid.url}/jwks', jwks_ca: {self.openid.ca},"
            " algorithms: [RS256], principal_claim: sub}\n"
        )

    @property
    def log(self) -> str:
        return (self.place.directory / "provider.log").read_text()


@contextmanager
def oidc_cloud(directory: Path, authority: Authority) -> Iterator[OidcCloud]:
    """The provider runs; its OpenID Connect server does not yet."""
    cloud = OidcCloud(directory, authority)
    try:
        for who in (PROGRAM, PERSON):
            cloud.assign(f"{cloud.openid.url}#{who}", "Contributor", f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1")
        cloud.start()
        yield cloud
    finally:
        cloud.close()
        cloud.openid.stop()
