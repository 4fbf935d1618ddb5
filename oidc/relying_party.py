"""The relying party of OpenID Connect's code flow with PKCE (Core 1.0, 3.1; RFC 7636; RFC 9207).

`begin` says where to send the browser and what to keep until it comes back; whoever keeps it must bind it to that browser, for
that is what holds off a sign-in forged onto another one. `finish` makes of what came back, together with what was kept, the ID
token's claims. Authlib makes the requests; they are sent, and what comes is read, here, since its own clients read whatever
they are sent. Errors: SignInFailed and what is below it (oidc.failure).
"""

from __future__ import annotations

import hmac
import json
import secrets
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final
from urllib.parse import quote_plus

from authlib.oauth2 import OAuth2Client
from authlib.oauth2.rfc6749.parameters import prepare_token_request

from eva.members import BadMember, Members, strict_json
from eva.token import b64
from oidc import id_token
from oidc.document import Document
from oidc.failure import Declined, Misconfigured, NotBelieved, Unreachable
from oidc.https import request
from oidc.key_set import KeySet, PublicKey, read_key_set
from oidc.metadata import Metadata, discovery_url
from oidc.settings import Client

MAX_CODE: Final = 4096
MAX_ACCESS_TOKEN: Final = 16_384
MAX_EXPIRES_IN: Final = 366 * 86_400

_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in that was begun: a secret of the browser that began it. 256 random bits each, base64url."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Pending:
        """Raises ValueError."""
        members = Members(strict_json(text.encode()))
        try:
            found = cls(*(members.text(name, 43) for name in ("state", "nonce", "verifier")))
            members.nothing_else()
        except BadMember as error:
            raise ValueError(error.why) from None
        return found


@dataclass(frozen=True, slots=True)
class Begun:
    """`url`: the issuer's, for the browser to go to."""

    url: str = field(repr=False)
    pending: Pending


@dataclass(frozen=True, slots=True)
class Tokens:
    """`id_claims` are verified; `access_token` is for whoever it is for, and only carried here. `expires_in`: seconds."""

    id_claims: Mapping[str, object] = field(repr=False)
    access_token: str = field(repr=False)
    expires_in: int | None


class RelyingParty:
    """One client at one issuer."""

    def __init__(
        self,
        client: Client,
        redirect_uri: str,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is fetched before the first sign-in. Raises OSError, ssl.SSLError where `client.ca` cannot be taken."""
        self._client = client
        self._redirect_uri = redirect_uri
        self._randomness = randomness
        self._wall = wall
        self._tls = ssl.create_default_context(cafile=str(client.ca) if client.ca is not None else None)
        self._configuration = Document(self._fetch_configuration)
        self._keys = Document(self._fetch_keys)

    async def begin(self) -> Begun:
        """Raises SignInFailed."""
        metadata = await self._configuration.get()
        pending = Pending(*(b64(self._randomness(32)) for _ in range(3)))
        flow = OAuth2Client(
            None,
            client_id=self._client.client_id,
            scope=" ".join(self._client.scopes),
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
        )
        url, _ = flow.create_authorization_url(
            metadata.authorization_endpoint,
            state=pending.state,
            nonce=pending.nonce,
            code_verifier=pending.verifier,
            **self._client.extra,
        )
        return Begun(url, pending)

    async def finish(self, pending: Pending, code: str | None, state: str, iss: str | None, error: str | None = None) -> Tokens:
        """`code`, `state`, `iss` and `error`: the callback's (oidc.answer). Raises SignInFailed."""
        if not hmac.compare_digest(state.encode("utf-8", "surrogatepass"), pending.state.encode()):
            raise NotBelieved("it answers another sign-in")
        metadata = await self._configuration.get()
        # RFC 9207 2.4: another issuer's answer must not get its code sent to this one
        if iss != self._client.issuer if iss is not None else metadata.says_issuer:
            raise NotBelieved("it is the answer of another issuer")
        if error is not None:
            raise Declined(error)
        if code is None or not 0 < len(code) <= MAX_CODE:
            raise NotBelieved("it has no code")
        granted = await self._exchange(metadata, code, pending.verifier)
        token = id_token.parse(_text(granted, "id_token", id_token.MAX_TOKEN))
        key = await self._key(token)
        claims = id_token.verify(token, key, self._client.issuer, self._client.client_id, pending.nonce, int(self._wall()))
        access_token = _text(granted, "access_token", MAX_ACCESS_TOKEN)
        id_token.check_access_token(claims, token.algorithm, access_token)
        lives = granted.get("expires_in")
        if isinstance(lives, bool) or not isinstance(lives, int) or not 0 < lives <= MAX_EXPIRES_IN:
            lives = None  # RFC 6749 5.1: recommended only, and some send it as text
        return Tokens(claims, access_token, lives)

    async def _exchange(self, metadata: Metadata, code: str, verifier: str) -> dict[str, object]:
        """What the token endpoint gives for the code (RFC 6749 4.1.3, 4.1.4)."""
        client, headers, ours = self._client, dict(_FORM), {"client_id": self._client.client_id}
        if client.client_secret is not None and metadata.basic:
            # each of the two is form-encoded before (RFC 6749 2.3.1)
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
            ours = {}
        elif client.client_secret is not None:
            ours["client_secret"] = client.client_secret
        form = prepare_token_request(
            "authorization_code", code=code, redirect_uri=self._redirect_uri, code_verifier=verifier, **ours, **client.extra
        )
        status, raw = await request(self._tls, "POST", metadata.token_endpoint, headers, form)
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Misconfigured(f"its token endpoint answers with status {status} and no JSON object")
        if status != 200:
            error = found.get("error")
            raise Declined(
                error[:64] if isinstance(error, str) and error.isascii() and error.isprintable() else f"status {status}"
            )
        if str(found.get("token_type")).lower() != "bearer":
            raise Misconfigured("its token endpoint gives tokens of another type")
        return found

    async def _key(self, token: id_token.Unverified) -> PublicKey:
        name = token.kid, token.algorithm
        keys = await self._keys.get()
        if name not in keys:
            keys = await self._keys.get(anew=True)  # it may be a new one
        if name not in keys:
            raise NotBelieved("the ID token names a key that the issuer has not")
        return keys[name]

    async def _fetch_configuration(self) -> Metadata:
        status, raw = await request(self._tls, "GET", discovery_url(self._client.issuer))
        if status != 200:
            raise Unreachable(f"its configuration is not to be had: status {status}")
        return Metadata.parse(raw, self._client.issuer)

    async def _fetch_keys(self) -> KeySet:
        status, raw = await request(self._tls, "GET", (await self._configuration.get()).jwks_uri)
        if status != 200:
            raise Unreachable(f"its keys are not to be had: status {status}")
        try:
            return read_key_set(raw)
        except ValueError as error:
            raise Misconfigured(f"its keys cannot be read: {error}") from None


def _text(granted: Mapping[str, object], name: str, longest: int) -> str:
    found = granted.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= longest or not found.isascii() or not found.isprintable():
        raise Misconfigured(f"its token endpoint gives no {name} that can be taken")
    return found
