"""Bearer tokens that are nobody's, sent to the running provider: all refused with a 401, nothing changed, no key fetched.

What is wrong with each is told of at the unit's level in tests/test_provider_bearer.py; here it meets the whole door.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eva.token import SigningKey, Typ
from lab.certificates import Authority
from provider.keys import read_private
from tests.bearer_parts import segment
from tests.raw_http import answered, held, request
from tests.rest_parts import OPERATOR, OWNER, READER, RestCloud, error, rest_cloud, vm_path

VM = vm_path("vm1")
ISSUER = "https://login.example/eva"


@dataclass
class Mint:
    """The provider's own issuer, which can be made to sign anything; and others who can sign as they like."""

    key: SigningKey
    audience: str
    stranger: SigningKey = field(default_factory=lambda: SigningKey(ed25519.Ed25519PrivateKey.generate()))
    rsa: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        mine = {"iss": ISSUER, "aud": self.audience, "iat": now, "nbf": now, "exp": now + 600, "sub": OWNER, "oid": OWNER}
        return {name: value for name, value in (mine | changed).items() if value is not None}

    def header(self, **changed: Any) -> dict[str, Any]:
        mine = {"alg": "EdDSA", "typ": "JWT", "kid": self.key.kid}
        return {name: value for name, value in (mine | changed).items() if value is not None}

    def signed(self, header: object, claims: object, sign: Callable[[bytes], bytes] | None = None) -> str:
        """`header` and `claims`: JSON, or the very bytes."""
        text = f"{segment(header)}.{segment(claims)}"
        return f"{text}.{segment((sign or self.key.private.sign)(text.encode()))}"

    def token(self, **claims: Any) -> str:
        return self.signed(self.header(), self.claims(**claims))

    def headed(self, **header: Any) -> str:
        return self.signed(self.header(**header), self.claims())

    def raw(self, addition: str) -> str:
        """With these bytes at the end of the claims' JSON."""
        return self.signed(self.header(), json.dumps(self.claims())[:-1].encode() + addition.encode() + b"}")

    def hmac(self, secret: bytes, algorithm: str = "HS256") -> str:
        return self.signed(self.header(alg=algorithm), self.claims(), lambda text: hmac.digest(secret, text, "sha256"))

    @property
    def public(self) -> dict[str, bytes]:
        """The issuer's public key as bytes that a verifier may take for a shared secret."""
        key = self.key.private.public_key()
        return {
            "raw": key.public_bytes(Encoding.Raw, PublicFormat.Raw),
            "PEM": key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "DER": key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "base64": base64.urlsafe_b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).rstrip(b"="),
        }


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[RestCloud]:
    with rest_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def mint(running: RestCloud) -> Mint:
    return Mint(read_private(running.place.directory / "issuer.pem"), running.tenant_url)


@pytest_asyncio.fixture
async def cloud(running: RestCloud) -> AsyncIterator[RestCloud]:
    """Holds that nothing got through, and that no token is in the log."""
    async with running.serving() as node:
        before = held(running)
        yield running
        assert held(running) == before
        assert (node.consents, node.revocations) == ([], [])


async def refused(cloud: RestCloud, token: str, code: str | None = None) -> None:
    """At every operation, in ARM's words, with where to sign in; and nothing of the token is told."""
    for method, action in (("POST", "enableVmAccess"), ("POST", "disableVmAccess"), ("GET", "vmAccess")):
        answer = await answered(cloud, request(f"{VM}/{action}", token, method))
        assert (answer.status, answer.error["code"]) == (401, code or answer.error["code"]), answer
        assert answer.headers["www-authenticate"].startswith('Bearer authorization_uri="https://login.example/')
        log = (cloud.place.directory / "provider.log").read_text()
        parts = [part for part in token.split(".") if len(part) > 60]
        assert not any(part in log or part.encode() in answer.content for part in parts[1:])
        assert "Traceback" not in log


async def test_the_mint_is_the_issuer(cloud: RestCloud, mint: Mint):
    """So that below it is what was changed that is refused."""
    answer = await answered(cloud, request(f"{VM}/vmAccess", mint.token(), "GET"))
    assert answer.status == 200


# who signed


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "eddsa", "EdDSA ", "Ed25519", "RS256", "ES256", "HS256"])
async def test_another_word_for_the_algorithm(cloud: RestCloud, mint: Mint, name: str):
    await refused(cloud, mint.headed(alg=name), "InvalidAuthenticationToken")


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0"])
@pytest.mark.parametrize("name", ["none", "EdDSA"])
async def test_no_signature(cloud: RestCloud, mint: Mint, name: str, signature: bytes):
    await refused(cloud, mint.signed(mint.header(alg=name), mint.claims(), lambda _: signature))


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA"])
@pytest.mark.parametrize("spelling", ["raw", "PEM", "DER", "base64"])
async def test_the_public_key_is_no_secret(cloud: RestCloud, mint: Mint, spelling: str, algorithm: str):
    await refused(cloud, mint.hmac(mint.public[spelling], algorithm))


async def test_no_algorithm_at_all(cloud: RestCloud, mint: Mint):
    await refused(cloud, mint.headed(alg=None))


async def test_another_key_under_this_name(cloud: RestCloud, mint: Mint):
    await refused(cloud, mint.signed(mint.header(), mint.claims(), mint.stranger.private.sign))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_good_signature_of_a_kind_that_the_issuer_does_not_use(cloud: RestCloud, mint: Mint, algorithm: str):
    private: Any = mint.rsa if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
    await refused(cloud, jwt.encode(mint.claims(), private, algorithm=algorithm, headers={"kid": mint.key.kid}))


async def test_a_signature_of_other_claims(cloud: RestCloud, mint: Mint):
    head, _, signature = mint.token(oid=READER).split(".")
    await refused(cloud, f"{head}.{segment(mint.claims())}.{signature}")


async def test_a_signature_with_a_bit_changed(cloud: RestCloud, mint: Mint):
    head, body, signature = mint.token().split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[0] ^= 1
    await refused(cloud, f"{head}.{body}.{segment(bytes(raw))}")


async def test_what_the_provider_signs_for_nodes_is_no_bearer(cloud: RestCloud, mint: Mint):
    """Another key, and another type; and under the issuer's own key the type alone is enough."""
    (path,) = (cloud.place.directory / "keys").glob("signing-*.pem")
    await refused(cloud, read_private(path).sign(Typ.CONSENT, mint.claims()))
    await refused(cloud, mint.headed(typ=str(Typ.CONSENT)))


# keys that a token brings, or points to


def _public_jwk(key: SigningKey) -> dict[str, Any]:
    raw = key.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": segment(raw), "kid": key.kid}


@pytest.mark.parametrize("name", ["jku", "x5u"])
@pytest.mark.parametrize("keyed", [True, False])
async def test_a_url_in_a_token_is_never_asked(cloud: RestCloud, mint: Mint, name: str, keyed: bool):
    asked = 0

    def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/jwks"
        key = mint.key if keyed else mint.stranger
        header = mint.header(kid=key.kid, **{name: url})
        await refused(cloud, mint.signed(header, mint.claims(), key.private.sign))
        await refused(cloud, mint.signed(mint.header(kid=url), mint.claims(), key.private.sign))
    assert asked == 0


async def test_a_key_in_a_token_is_none(cloud: RestCloud, mint: Mint):
    jwk = _public_jwk(mint.stranger)
    for header in ({"jwk": jwk}, {"jwk": jwk, "kid": mint.stranger.kid}, {"jwk": _public_jwk(mint.key)}, {"x5c": ["AA=="]}):
        await refused(cloud, mint.signed(mint.header(**header), mint.claims(), mint.stranger.private.sign))
    await refused(cloud, mint.headed(jwk=jwk))


KIDS: list[Any] = [
    "../../issuer.pem",
    "/dev/null",
    "/etc/passwd",
    "' OR '1'='1",
    "key\x00",
    "",
    "k" * 300,
    "\u212a",
    "..",
    "%2e%2e",
]
KIDS += [["x"], {}, 0, True, None]


@pytest.mark.parametrize("kid", KIDS)
async def test_a_name_of_no_key(cloud: RestCloud, mint: Mint, kid: Any):
    """A name is looked up in the set that was read, and leads nowhere else."""
    await refused(cloud, mint.headed(kid=kid))


HEADERS: list[dict[str, Any]] = [
    {"crit": ["exp"]},
    {"crit": ["b64"], "b64": False},
    {"crit": []},
    {"typ": ["JWT"]},
    {"typ": "JWE"},
]
HEADERS += [{"typ": "dpop+jwt"}, {"typ": "logout+jwt"}, {"typ": "secevent+jwt"}]


@pytest.mark.parametrize("header", HEADERS)
async def test_a_header_that_says_more(cloud: RestCloud, mint: Mint, header: dict[str, Any]):
    await refused(cloud, mint.headed(**header))


# for whom, from whom, when

ISSUERS: list[Any] = [
    ISSUER + "/",
    ISSUER.upper(),
    "http://login.example/eva",
    "https://login.example/eva#",
    "https://evil.example",
]
ISSUERS += ["https://login.example/ev\u0430", [ISSUER], None, "", {"x": ISSUER}]


@pytest.mark.parametrize("issuer", ISSUERS)
async def test_another_issuer(cloud: RestCloud, mint: Mint, issuer: Any):
    await refused(cloud, mint.token(iss=issuer))


AUDIENCES: list[Callable[[RestCloud], Any]] = [
    lambda cloud: cloud.admin_url,
    lambda cloud: cloud.tenant_url + "/",
    lambda cloud: cloud.tenant_url.upper(),
    lambda cloud: f"{cloud.admin_url} {cloud.tenant_url}",
    lambda cloud: f"{cloud.admin_url},{cloud.tenant_url}",
    lambda cloud: [],
    lambda cloud: [[cloud.tenant_url]],
    lambda cloud: {cloud.tenant_url: True},
    lambda cloud: "",
    lambda cloud: "*",
    lambda cloud: True,
    lambda cloud: None,
]


@pytest.mark.parametrize("audience", AUDIENCES)
async def test_another_audience(cloud: RestCloud, mint: Mint, audience: Callable[[RestCloud], Any]):
    await refused(cloud, mint.token(aud=audience(cloud)), "InvalidAuthenticationTokenAudience")


async def test_each_door_takes_its_own_tokens(cloud: RestCloud, mint: Mint):
    """The owner's at the operators', the operator's at the tenants': both good, and both for the other door."""
    owner = await cloud.ask("GET", "/subscriptions", None, admin=True, headers={"authorization": f"Bearer {mint.token()}"})
    operator = mint.token(oid=OPERATOR, aud=cloud.admin_url)
    assert error(owner) == (401, "InvalidAuthenticationTokenAudience")
    await refused(cloud, operator, "InvalidAuthenticationTokenAudience")


NOW = int(time.time())
TIMES: dict[str, dict[str, Any]] = {
    "ended": {"exp": NOW - 61},
    "ended long ago": {"exp": 1},
    "ended in 1970": {"exp": 0},
    "ended before": {"exp": -1},
    "no end": {"exp": None},
    "an end as text": {"exp": str(NOW + 600)},
    "an end in words": {"exp": "never"},
    "an end with a fraction": {"exp": NOW + 600.5},
    "an end in a list": {"exp": [NOW + 600]},
    "an end that is true": {"exp": True},
    "an end beyond all time": {"exp": 1 << 64},
    "an end beyond all numbers": {"exp": 10**400},
    "not yet": {"nbf": NOW + 3600},
    "not yet, as text": {"nbf": str(NOW)},
    "made tomorrow": {"iat": NOW + 86_400},
    "made in words": {"iat": "now"},
}


@pytest.mark.parametrize("claims", TIMES.values(), ids=TIMES)
async def test_another_time(cloud: RestCloud, mint: Mint, claims: dict[str, Any]):
    await refused(cloud, mint.token(**claims))


PEOPLE: list[Any] = ["", " ", "Olivia ", "group:cloudadmins", f"{ISSUER}#Olivia", ["Olivia"], {"oid": "Olivia"}, 7, True, None]
PEOPLE += ["Olivia\x00", "Olivia\n", "Ol\u0456via", "x" * 129, "Olivia,Oscar", "*", "'; DROP TABLE role_assignments; --"]


@pytest.mark.parametrize("who", PEOPLE)
async def test_nobody(cloud: RestCloud, mint: Mint, who: Any):
    await refused(cloud, mint.token(oid=who))


@pytest.mark.parametrize("who", ["olivia", "OLIVIA", "Olivia.", "/", "Oscar", "Owner"])
@pytest.mark.parametrize(
    "groups", [[], ["Olivia"], ["group:Olivia"], [f"{ISSUER}#Olivia"], "Olivia", {"Olivia": 1}, [["Olivia"]], ["*"]]
)
async def test_somebody_else(cloud: RestCloud, mint: Mint, who: str, groups: Any):
    """Well known to the issuer, and without a role here, whatever his groups are called."""
    answer = await answered(cloud, request(f"{VM}/enableVmAccess", mint.token(oid=who, groups=groups)))
    assert (answer.status, answer.error["code"]) == (403, "AuthorizationFailed")


# what is no token


TWICE = ['"oid": "Olivia"', '"aud": "x"', '"exp": 9999999999', '"x": {"y": 1, "y": 2}', '"\\u006fid": "Olivia"']
ODD = ['"x": NaN', '"x": Infinity', '"x": ' + "[" * 3_000 + "]" * 3_000, '"x": "\\ud800", "oid": "\\ud800"', '"x": 1}{"y": 2']


@pytest.mark.parametrize("addition", TWICE + ODD)
async def test_claims_that_two_readers_would_read_otherwise(cloud: RestCloud, mint: Mint, addition: str):
    await refused(cloud, mint.raw(", " + addition))


async def test_a_header_with_an_algorithm_twice(cloud: RestCloud, mint: Mint):
    header = json.dumps(mint.header())[:-1].encode() + b', "alg": "none"}'
    await refused(cloud, mint.signed(header, mint.claims()))


SHAPES: dict[str, Callable[[str], str]] = {
    "padded": lambda token: token + "==",
    "the other alphabet": lambda token: token.replace(token[:1], "+", 1),
    "two parts": lambda token: token.rpartition(".")[0],
    "two parts and a full stop": lambda token: token.rpartition(".")[0] + ".",
    "four parts": lambda token: token + ".x",
    "five parts": lambda token: token + ".x.y",
    "a full stop before": lambda token: "." + token,
    "encoded": lambda token: base64.urlsafe_b64encode(token.encode()).decode(),
    "in quotation marks": lambda token: f'"{token}"',
    "a comma and another": lambda token: f"{token},{token}",
    "another letter at the end of the head": lambda token: token.replace(".", "A.", 1),
    "of 17,000": lambda token: token + "A" * 17_000,
    "a digest of it": lambda token: hashlib.sha256(token.encode()).hexdigest(),
    "nothing": lambda token: "",
    "as JSON": lambda token: json.dumps(
        dict(zip(("protected", "payload", "signature"), token.split("."), strict=True)), separators=(",", ":")
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_another_shape(cloud: RestCloud, mint: Mint, shape: Callable[[str], str]):
    await refused(cloud, shape(mint.token()))


@pytest.mark.parametrize("scheme", ["Basic", "Digest", "DPoP", "Bearer:", "Token", "Bearer Bearer", "Negotiate"])
async def test_another_scheme(cloud: RestCloud, mint: Mint, scheme: str):
    answer = await answered(cloud, request(f"{VM}/vmAccess", None, "GET", [f"authorization: {scheme} {mint.token()}"]))
    assert (answer.status, answer.error["code"]) == (401, "AuthenticationFailed")


async def test_two_tokens_in_either_order(cloud: RestCloud, mint: Mint):
    good, bad = mint.token(), mint.token(oid=READER)
    for first, second in ((good, bad), (bad, good), (good, good)):
        lines = [f"Authorization: Bearer {first}", f"AUTHORIZATION: Bearer {second}"]
        answer = await answered(cloud, request(f"{VM}/vmAccess", None, "GET", lines))
        assert (answer.status, answer.error["code"]) == (401, "AuthenticationFailed")


@pytest.mark.parametrize("place", ["?access_token={}", "?api-version=2020-06-01&access_token={}", "?token={}", "?code={}"])
async def test_a_token_elsewhere_is_none(cloud: RestCloud, mint: Mint, place: str):
    target = f"{VM}/vmAccess{place.format(mint.token())}"
    answer = await answered(
        cloud, request(target, None, "GET", [f"cookie: token={mint.token()}", f"x-authorization: Bearer {mint.token()}"])
    )
    assert answer.status in (400, 401)
    assert mint.token().split(".")[1][:60] not in (cloud.place.directory / "provider.log").read_text()
