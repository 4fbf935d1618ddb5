"""provider/commands/keys.py: what a person types, with the root key here and elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from eva.token import Typ
from lab.certificates import Authority
from provider.command import cli
from provider.keys import signing_path
from tests.provider_parts import Cloud, running_cloud, signing_key


def listed(cloud: Cloud) -> list[dict[str, Any]]:
    return json.loads(cloud.run("keys", "list", "--json").out)


def done(cloud: Cloud, *words: str) -> str:
    ran = cloud.run("keys", *words)
    assert ran.code == 0, ran.err
    return ran.out


def keys_of(cloud: Cloud) -> Path:
    return cloud.place.directory / "keys"


def away(cloud: Cloud) -> Path:
    """Takes the root key off the host, to a directory of its own."""
    elsewhere = cloud.place.directory / "elsewhere"
    elsewhere.mkdir()
    return (keys_of(cloud) / "root.pem").rename(elsewhere / "root.pem")


def sign(root: Path, request: Path, out: Path, *more: str, answer: str = "") -> tuple[int, str]:
    """`keys sign` where there are no settings at all."""
    words = ["--config", "/nonexistent.yaml", "keys", "sign", str(request), "--root", str(root), "--out", str(out), *more]
    found = CliRunner().invoke(cli, words, input=answer)
    return found.exit_code, found.output


def test_the_first_key_signs(still_provider: Cloud):
    (row,) = listed(still_provider)
    assert (row["state"], row["consents"], row["here"], row["until_ms"], row["withdrawn_ms"]) == ("signs", 0, True, None, None)


def test_rotate_makes_a_key_that_signs_from_then_on(still_provider: Cloud):
    (first,) = listed(still_provider)
    out = done(still_provider, "rotate")
    old, new = listed(still_provider)
    assert (old["kid"], old["state"], new["state"]) == (first["kid"], "stands", "signs")
    assert old["until_ms"] == new["since_ms"]
    assert new["kid"] in out
    assert signing_path(keys_of(still_provider), new["kid"]).stat().st_mode & 0o777 == 0o600
    assert still_provider.run("check-config").out.strip().endswith(f"key set 2 (signing key {new['kid']}) are good")


def test_withdraw_takes_the_old_key_out(still_provider: Cloud):
    done(still_provider, "rotate")
    old, new = listed(still_provider)
    assert f"0 consents end with {old['kid']}" in done(still_provider, "withdraw", old["kid"])
    gone, stays = listed(still_provider)
    assert (gone["state"], gone["withdrawn_ms"] is not None, stays["state"]) == ("withdrawn", True, "signs")
    text = done(still_provider, "list")
    assert f"{old['kid']}\twithdrawn" in text
    assert f"{new['kid']}\tsigns" in text


@pytest.mark.parametrize("rotated", [False, True])
def test_the_key_that_signs_is_not_withdrawn(still_provider: Cloud, rotated: bool):
    if rotated:
        done(still_provider, "rotate")
    ran = still_provider.run("keys", "withdraw", listed(still_provider)[-1]["kid"])
    assert (ran.code, "rotate first" in ran.err) == (1, True)
    assert still_provider.run("check-config").code == 0


def test_a_key_that_nobody_knows_is_not_withdrawn(still_provider: Cloud):
    ran = still_provider.run("keys", "withdraw", signing_key().kid)
    assert (ran.code, "has no key" in ran.err) == (1, True)


def test_without_the_root_key_the_other_way_is_told_and_nothing_made(still_provider: Cloud):
    away(still_provider)
    before = sorted(keys_of(still_provider).iterdir())
    for words in (("rotate",), ("withdraw", listed(still_provider)[0]["kid"])):
        ran = still_provider.run("keys", *words)
        assert (ran.code, "keys request" in ran.err) == (1, True)
    assert sorted(keys_of(still_provider).iterdir()) == before


def test_a_root_key_elsewhere_signs_a_rotation(still_provider: Cloud):
    root = away(still_provider)
    request, signed = still_provider.place.directory / "request", root.parent / "signed"
    asked = done(still_provider, "request", str(request))
    (pem,) = [path for path in keys_of(still_provider).glob("signing-*.pem") if path.name in asked]
    kid = pem.stem.removeprefix("signing-")
    code, said = sign(root, request, signed, answer="y\n")
    assert code == 0, said
    # what is to be compared is said alike on both sides
    assert next(line for line in asked.splitlines() if kid in line and "signs" in line) in said
    assert listed(still_provider)[-1]["kid"] != kid
    assert f"key set 2: {kid} signs" in done(still_provider, "install", str(signed))
    assert listed(still_provider)[-1]["kid"] == kid


def test_a_root_key_elsewhere_signs_a_withdrawal(still_provider: Cloud):
    done(still_provider, "rotate")
    old = listed(still_provider)[0]["kid"]
    root = away(still_provider)
    request, signed = still_provider.place.directory / "request", root.parent / "signed"
    assert f"{old}  WITHDRAWN" in done(still_provider, "request", str(request), "--withdraw", old)
    assert sign(root, request, signed, "--yes")[0] == 0
    assert f"0 consents end with {old}" in done(still_provider, "install", str(signed))
    assert listed(still_provider)[0]["state"] == "withdrawn"


def test_a_no_signs_nothing(still_provider: Cloud):
    root = away(still_provider)
    request, signed = still_provider.place.directory / "request", root.parent / "signed"
    done(still_provider, "request", str(request))
    assert sign(root, request, signed, answer="n\n")[0] == 1
    assert not signed.exists()


def test_a_signed_set_is_installed_once_and_in_its_turn(still_provider: Cloud):
    root = away(still_provider)
    signed = []
    for name in ("a", "b"):
        request = still_provider.place.directory / name
        done(still_provider, "request", str(request))
        signed.append(root.parent / name)
        assert sign(root, request, signed[-1], "--yes")[0] == 0
    done(still_provider, "install", str(signed[0]))
    for path in signed:
        ran = still_provider.run("keys", "install", str(path))
        assert (ran.code, "the newest is 2" in ran.err) == (1, True)


def test_a_set_signed_by_another_root_is_not_installed(still_provider: Cloud):
    request = still_provider.place.directory / "request"
    done(still_provider, "request", str(request))
    body = json.loads(request.read_text())
    forged = still_provider.place.directory / "forged"
    forged.write_text(json.dumps({"keys": signing_key().sign(Typ.KEYS, body["next"]), "signing": body["signing"]}))
    ran = still_provider.run("keys", "install", str(forged))
    assert (ran.code, "not signed by the root key" in ran.err) == (1, True)
    assert len(listed(still_provider)) == 1


def test_a_set_whose_signing_key_is_not_here_is_not_installed(still_provider: Cloud):
    root = away(still_provider)
    request, signed = still_provider.place.directory / "request", root.parent / "signed"
    done(still_provider, "request", str(request))
    sign(root, request, signed, "--yes")
    (pem,) = [
        path
        for path in keys_of(still_provider).glob("signing-*.pem")
        if path.name.removeprefix("signing-")[:22] != listed(still_provider)[0]["kid"]
    ]
    pem.unlink()
    ran = still_provider.run("keys", "install", str(signed))
    assert (ran.code, str(pem) in ran.err) == (78, True)


def test_a_request_is_not_written_over(still_provider: Cloud):
    path = still_provider.place.directory / "request"
    path.write_text("mine")
    before = sorted(keys_of(still_provider).iterdir())
    assert still_provider.run("keys", "request", str(path)).code == 1
    assert (path.read_text(), sorted(keys_of(still_provider).iterdir())) == ("mine", before)


def test_an_open_root_key_is_refused(still_provider: Cloud):
    (keys_of(still_provider) / "root.pem").chmod(0o644)
    ran = still_provider.run("keys", "rotate")
    assert (ran.code, "0644" in ran.err) == (78, True)


async def test_a_running_daemon_signs_with_the_new_key_at_once_and_tells_its_nodes(tmp_path: Path, certificates: Authority):
    with running_cloud(tmp_path, certificates) as cloud:
        async with cloud.node() as node:
            await node.ask()
            first = await cloud.granted()
            assert set(node.keys) == {listed(cloud)[0]["kid"]}
            assert (await cloud.eva_provider("keys", "rotate")).code == 0
            old, new = listed(cloud)
            assert (old["consents"], new["consents"]) == (1, 0)
            await node.ask(node.pen.request(keys_version=1))
            assert set(node.keys) == {old["kid"], new["kid"]}
            cloud.vm += "-other"
            second = await cloud.granted()
            assert [consent.kid for consent in node.consents] == [old["kid"], new["kid"]]
            # withdrawn, it is out of the set that the very next lease brings, and its consent is over
            ran = await cloud.eva_provider("keys", "withdraw", old["kid"])
            assert (ran.code, f"1 consents end with {old['kid']}" in ran.out) == (0, True)
            await node.ask(node.pen.request(keys_version=2))
            assert set(node.keys) == {new["kid"]}
            assert sorted(cloud.states()) == ["ended", "granted"]
            assert first["consent_id"] != second["consent_id"]
