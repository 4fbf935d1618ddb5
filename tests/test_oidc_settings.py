"""A client's registration as settings spell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva.strict_yaml import BadSettings, load
from oidc.settings import Registration, registration

LEAST = "issuer: https://id.example\nclient_id: console\n"


def read(text: str) -> Registration:
    section = load(text, "broker.yaml")
    found = registration(section)
    section.nothing_else()
    return found


def test_the_least() -> None:
    client = read(LEAST).load()
    assert (client.issuer, client.client_id, client.client_secret, client.scopes) == (
        "https://id.example",
        "console",
        None,
        ("openid",),
    )


def test_all_of_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("s3cret\n")
    found = read(
        f"{LEAST}client_secret_file: {secret}\nscopes: [profile, openid]\nca: /ca.pem\nparameters: {{resource: 'https://api.example'}}\n"
    )
    client = found.load()
    assert (client.client_secret, client.scopes, client.ca) == ("s3cret", ("openid", "profile"), Path("/ca.pem"))
    assert dict(client.extra) == {"resource": "https://api.example"}
    assert "s3cret" not in repr(client)


@pytest.mark.parametrize(
    "issuer",
    [
        "http://id.example",
        "https://id.example?x=1",
        "https://id.example#x",
        "https://ID.example",
        "https://u@id.example",
        "https://",
        "id.example",
        "https://id.example/\u00e9",
    ],
)
def test_what_is_no_issuer(issuer: str) -> None:
    with pytest.raises(BadSettings):
        read(f"issuer: '{issuer}'\nclient_id: console\n")


@pytest.mark.parametrize("name", ["state", "redirect_uri", "response_mode", "request_uri", "client_secret", "Resource", "scope"])
def test_a_parameter_that_the_flow_itself_sets(name: str) -> None:
    with pytest.raises(BadSettings):
        read(f"{LEAST}parameters: {{{name}: x}}\n")


def test_a_scope_of_several_words() -> None:
    with pytest.raises(BadSettings):
        read(f"{LEAST}scopes: ['openid profile']\n")


def test_nine_parameters() -> None:
    with pytest.raises(BadSettings):
        read(f"{LEAST}parameters: {{{', '.join(f'p{n}: x' for n in range(9))}}}\n")


@pytest.mark.parametrize("content", ["", "\n", "a\nb", "\u00e9", "x" * 1025])
def test_a_file_that_holds_no_secret(tmp_path: Path, content: str) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(content)
    with pytest.raises(BadSettings, match="no secret"):
        read(f"{LEAST}client_secret_file: {secret}\n").load()


def test_a_secret_that_everybody_may_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    with pytest.raises(BadSettings, match="everybody"):
        read(f"{LEAST}client_secret_file: {secret}\n").load()


def test_a_secret_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="secret"):
        read(f"{LEAST}client_secret_file: {tmp_path}/secret\n").load()
