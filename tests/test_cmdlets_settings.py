"""cmdlets/settings.py: the nearest layer decides, and every refusal says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmdlets.settings import (
    BadSetting,
    ClientCertificate,
    Layer,
    NodeAddress,
    environment_layer,
    node_url,
    parse_client_file,
    read_password,
    read_settings,
    settle,
)
from eva.strict_yaml import BadSettings

FILE = Path("/etc/eva/client.yaml")
ERCS01 = NodeAddress("AzS-ERCS01", "wss://10.0.0.1:8443", Path("/etc/eva/ca.pem"))
FULL = """
ercs: AzS-ERCS01
certificate: operator.pem
key: operator.key
nodes:
  AzS-ERCS01: {url: "wss://10.0.0.1:8443", ca: ca.pem}
  AzS-ERCS02: {url: "wss://10.0.0.2"}
"""


def test_a_file_reads_whole():
    pair = ClientCertificate(Path("/etc/eva/operator.pem"), Path("/etc/eva/operator.key"))
    second = NodeAddress("AzS-ERCS02", "wss://10.0.0.2:8443")
    nodes = {"azs-ercs01": ERCS01, "azs-ercs02": second}
    assert parse_client_file(FULL, FILE) == Layer(str(FILE), ercs="AzS-ERCS01", certificate=pair, nodes=nodes)


def test_the_shipped_example_is_one():
    file = Path(__file__).parent.parent / "config" / "client.yaml"
    assert settle([parse_client_file(file.read_text(), file)]).node.name == "AzS-ERCS01"


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("ercs: A\npasswort: x\n", 2, "not a key"),
        ("password: x\n", 1, "not a key"),
        ("nodes:\n  A: {url: 'ws://h:1'}\n", 2, "wss://host:port"),
        ("nodes:\n  A: {url: 'wss://h:1', insecure: true}\n", 2, "not a key"),
        ("account: ruth\ncertificate: c.pem\n", 1, "keep one"),
        ("key: k.pem\n", 1, "no certificate"),
    ],
)
def test_a_wrong_file_says_the_line(text: str, line: int, why: str):
    with pytest.raises(BadSettings, match=why) as caught:
        parse_client_file(text, FILE)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "url"),
    [("wss://h", "wss://h:8443"), ("wss://h:9/", "wss://h:9"), ("wss://[::1]:9", "wss://[::1]:9")],
)
def test_an_address_is_made_full(text: str, url: str):
    assert node_url(text) == url


@pytest.mark.parametrize("text", ["ws://h", "https://h", "wss://", "wss://h/x", "wss://u:p@h", "wss://h?x=1", "wss://h:99999"])
def test_what_is_no_encrypted_bare_address_is_refused(text: str):
    with pytest.raises(ValueError, match=r"wss://|Port"):
        node_url(text)


def test_without_a_word_it_is_the_node_on_this_host():
    assert settle([Layer("a")]).node == NodeAddress("localhost", "wss://localhost:8443")


def test_the_nearest_ercs_counts_and_its_name_is_looked_up_in_any_layer_and_case():
    layers = [Layer("--ercs", ercs="azs-ercs01"), Layer("file", ercs="AzS-ERCS02", nodes={"azs-ercs01": ERCS01})]
    assert settle(layers).node == ERCS01


def test_a_name_that_no_file_knows_is_a_host():
    assert settle([Layer("a", ercs="AzS-ERCS03")]).node.url == "wss://AzS-ERCS03:8443"


def test_a_ca_on_the_command_line_replaces_the_nodes():
    layers = [Layer("a", ercs="AzS-ERCS01", ca=Path("/x")), Layer("b", nodes={"azs-ercs01": ERCS01})]
    assert settle(layers).node.ca == Path("/x")


def test_a_nearer_account_replaces_a_certificate():
    pair = ClientCertificate(Path("c"), None)
    found = settle([Layer("a", account="ruth"), Layer("b", certificate=pair)])
    assert (found.account, found.certificate) == ("ruth", None)


def test_a_nearer_certificate_replaces_an_account():
    pair = ClientCertificate(Path("c"), None)
    found = settle([Layer("a", certificate=pair), Layer("b", account="ruth")])
    assert (found.account, found.certificate) == (None, pair)


def test_a_name_that_is_none_says_where_it_stands():
    with pytest.raises(BadSetting, match=r"EVA_ERCS: 'a b' is neither"):
        settle([environment_layer({"EVA_ERCS": "a b"})])


def test_the_environment_is_read():
    found = environment_layer({"EVA_ERCS": "A", "EVA_ACCOUNT": "ruth", "EVA_PASSWORD_FILE": "/p", "EVA_PASSWORD": "x"})
    assert (found.ercs, found.account, found.password_file) == ("A", "ruth", Path("/p"))


def test_the_users_own_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config/eva").mkdir(parents=True)
    (tmp_path / ".config/eva/client.yaml").write_text("ercs: wss://one:1\n")
    assert read_settings(Layer("--ercs"), {}).node.url == "wss://one:1"
    assert read_settings(Layer("--ercs"), {"EVA_ERCS": "wss://two:2"}).node.url == "wss://two:2"
    assert read_settings(Layer("--ercs", ercs="wss://three:3"), {"EVA_ERCS": "wss://two:2"}).node.url == "wss://three:3"


def test_a_password_is_the_first_line(tmp_path: Path):
    file = tmp_path / "p"
    file.write_text("s3 cret \nmore\n")
    file.chmod(0o600)
    assert read_password(file) == "s3 cret "


@pytest.mark.parametrize("mode", [0o604, 0o602])
def test_a_password_file_open_to_all_is_refused(tmp_path: Path, mode: int):
    file = tmp_path / "p"
    file.write_text("s3cret\n")
    file.chmod(mode)
    with pytest.raises(BadSetting, match="chmod 600") as caught:
        read_password(file)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 1025, b"s3cret\xff\n"])
def test_a_password_file_without_one_is_refused_and_not_quoted(tmp_path: Path, content: bytes):
    file = tmp_path / "p"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(BadSetting) as caught:
        read_password(file)
    assert "cret" not in str(caught.value)
