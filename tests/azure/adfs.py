"""An OpenID Connect server that others wrote, as Azure's command line takes it for AD FS, and a person at its pages."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Self

import httpx

from lab.certificates import Authority
from lab.ports import free_port
from lab.process import Program
from lab.rest import DIRECTORY, Issuer
from lab.transcript import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = ROOT / ".lab/oidc/node_modules"
# by its own place: the npm of Debian makes no link to it
NODE = next(MODULES.glob("node-linux-*/bin/node"), MODULES / "node")
LIBRARY = MODULES / "oidc-provider/lib/index.js"
MOST_PAGES = 6  # code, sign-in, consent


class Adfs:
    """`programs`: secrets by client id. `resources`: whom its tokens may be for."""

    def __init__(self, directory: Path, programs: Mapping[str, str], resources: Sequence[str]) -> None:
        directory.mkdir()
        self.authority = Authority(directory / "tls", "login CA")
        port = free_port()
        self.url = f"https://localhost:{port}/adfs"
        pair = self.authority.server("login")
        settings = {"directory": DIRECTORY, "resources": list(resources), "programs": dict(programs)}
        words = [str(NODE), str(ROOT / "tests/azure/adfs.mjs"), str(LIBRARY), str(port), str(pair.certificate), str(pair.key)]
        self._program = Program([*words, json.dumps(settings)], directory / "log")

    def __enter__(self) -> Self:
        self._program.start()
        self._program.transcript.wait_for("ready\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()

    @property
    def issuer(self) -> Issuer:
        return Issuer(self.url, f"{self.url}/jwks", self.authority.ca, principal_claim="sub")

    def sign_in(self, page: str, code: str, person: str) -> None:
        """Do at the pages what a person does in a browser."""
        trust = ssl.create_default_context(cafile=self.authority.ca)
        with httpx.Client(verify=trust, follow_redirects=True, timeout=PATIENCE_S) as browser:
            answer = browser.get(page)
            for _ in range(MOST_PAGES):
                form = re.search(r'<form[^>]* action="([^"]*)"[^>]*>(.*?)</form>', answer.text, re.DOTALL)
                if form is None:
                    break
                fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form[2]))
                typed = {"user_code": code, "login": person, "password": "any"}
                fields |= {name: text for name, text in typed.items() if f'name="{name}"' in form[2]}
                answer = browser.post(httpx.URL(str(answer.url)).join(unescape(form[1])), data=fields)
                answer.raise_for_status()
        assert "Sign-in Success" in answer.text, answer.text
