"""provider/commands/identity.py and provider/rest/issuer.py: `eva-provider issuer`, `token`, `roles`."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from lab.certificates import Authority
from oidc.key_set import Algorithm, read_key_set
from provider.rest.bearer import BadBearer, Fault, parse, verify
from provider.settings import read
from tests.rest_parts import RestCloud


@pytest.fixture
def cloud(tmp_path: Path, certificates: Authority) -> Iterator[RestCloud]:
    cloud = RestCloud(tmp_path, certificates)
    yield cloud
    cloud.close()


def believed(cloud: RestCloud, token: str, now: int, audience: str | None = None) -> object:
    rest = read(cloud.place.config).rest
    assert rest is not None
    issuer = rest.identity.issuers[0]
    found = parse(token, {issuer.name: issuer})
    keys = read_key_set((cloud.place.directory / "jwks.json").read_bytes())
    return verify(found, keys[found.kid, Algorithm.EDDSA], (audience or cloud.tenant_url,), now)


def claims(token: str) -> dict[str, int]:
    return jwt.decode(token, options={"verify_signature": False})


def test_a_token_is_its_bearers(cloud: RestCloud):
    ran = cloud.run("token", "--principal", "alice", "--group", "a", "--group", "b", "--name", "Alice", "--minutes", "5")
    token = ran.out.strip()
    caller = believed(cloud, token, claims(token)["iat"])
    assert (caller.id, caller.name, caller.groups) == ("alice", "Alice", {"a", "b"})  # type: ignore[attr-defined]
    assert claims(token)["exp"] - claims(token)["iat"] == 300


def test_an_operators_token_is_for_the_operators(cloud: RestCloud):
    token = cloud.token("alice", "admin")
    assert believed(cloud, token, claims(token)["iat"], cloud.admin_url)
    with pytest.raises(BadBearer) as caught:
        believed(cloud, token, claims(token)["iat"])
    assert caught.value.fault is Fault.AUDIENCE


def test_the_key_is_its_owners_only(cloud: RestCloud):
    assert stat.S_IMODE((cloud.place.directory / "issuer.pem").stat().st_mode) == 0o600


def test_a_key_is_not_replaced(cloud: RestCloud):
    before = (cloud.place.directory / "jwks.json").read_bytes()
    ran = cloud.run("issuer", "init")
    assert (ran.code, "never overwritten" in ran.err) == (78, True)
    assert (cloud.place.directory / "jwks.json").read_bytes() == before


def test_a_key_that_others_can_read_signs_nothing(cloud: RestCloud):
    (cloud.place.directory / "issuer.pem").chmod(0o644)
    ran = cloud.run("token", "--principal", "alice")
    assert (ran.code, ran.out) == (78, "")


@pytest.mark.parametrize("minutes", ["0", "1441", "x"])
def test_a_token_is_not_for_ever(cloud: RestCloud, minutes: str):
    assert cloud.run("token", "--principal", "alice", "--minutes", minutes).code == 2


@pytest.mark.parametrize("who", ["group:ops", "a b", "https://x#y", ""])
def test_nobody_can_be_a_group(cloud: RestCloud, who: str):
    assert cloud.run("token", "--principal", who).code == 2


def test_without_an_issuer_of_our_own_nothing_is_signed(cloud: RestCloud):
    text = cloud.place.config.read_text()
    cloud.place.config.write_text(text.replace(f",\n       signing_key: {cloud.place.directory}/issuer.pem", ""))
    for words in (("issuer", "init"), ("token", "--principal", "alice")):
        ran = cloud.run(*words)
        assert (ran.code, "signing_key" in ran.err) == (78, True)


# roles


SUBSCRIPTION = "/subscriptions/7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"


def listed(cloud: RestCloud) -> list[dict[str, str]]:
    return json.loads(cloud.run("roles", "list", "--json").out)


def test_a_role_is_assigned_listed_and_taken_back(cloud: RestCloud):
    words = ("--principal", "alice", "--role", "owner", "--scope", SUBSCRIPTION)
    assert cloud.run("roles", "add", *words).out == f"alice is Owner at {SUBSCRIPTION}\n"
    assert "was already" in cloud.run("roles", "add", *words).out
    assert listed(cloud) == [{"principal": "alice", "role": "Owner", "scope": SUBSCRIPTION}]
    assert "no longer" in cloud.run("roles", "remove", *words).out
    assert (cloud.run("roles", "remove", *words).code, listed(cloud)) == (1, [])


WRONG = [
    ("--principal", "alice", "--role", "root"),
    ("--principal", "alice", "--role", "owner", "--scope", SUBSCRIPTION + "/"),
    ("--principal", "alice", "--role", "EVA Cloud Administrator", "--scope", SUBSCRIPTION),
    ("--principal", "a b", "--role", "owner"),
    ("--principal", "x#alice", "--role", "owner"),
    ("--role", "owner"),
]


@pytest.mark.parametrize("words", WRONG)
def test_what_is_no_assignment(cloud: RestCloud, words: tuple[str, ...]):
    assert (cloud.run("roles", "add", *words).code, listed(cloud)) == (2, [])
