"""provider/rest/listener.py: certificates read again, and what of uvicorn it leans on that is not documented."""

from __future__ import annotations

import inspect
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from uvicorn import Server
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from lab.certificates import Authority
from provider.rest.listener import PatientProtocol
from tests.provider_parts import until
from tests.rest_parts import ARM_VERSION, OWNER, RestCloud, rest_cloud


@pytest.fixture
def cloud(tmp_path: Path, certificates: Authority) -> Iterator[RestCloud]:
    with rest_cloud(tmp_path, certificates) as cloud:
        yield cloud


def serial(cloud: RestCloud, port: int) -> int:
    """The certificate that a new connection is shown."""
    with (
        socket.create_connection(("localhost", port)) as plain,
        cloud.trust().wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        raw = tls.getpeercert(binary_form=True)
    assert raw is not None
    return x509.load_der_x509_certificate(raw).serial_number


def test_a_new_certificate_is_read_on_sighup(cloud: RestCloud):
    ports = (cloud.tenant_port, cloud.admin_port)
    before = {serial(cloud, port) for port in ports}
    cloud.authority.server("rest")  # over the old one's files
    cloud.daemon.signal(signal.SIGHUP)
    until(lambda: not before & {serial(cloud, port) for port in ports})


@pytest.mark.parametrize("other", [None, "rest.pem", "rest.key"])
async def test_a_pair_that_is_none_leaves_the_old_certificate(cloud: RestCloud, tmp_path: Path, other: str | None):
    """No certificate at all, or half of another pair."""
    before = serial(cloud, cloud.tenant_port)
    log = cloud.place.directory / "provider.log"
    Authority(tmp_path / "other").server("rest")
    text = (tmp_path / "other" / other).read_text() if other else "no certificate"
    (cloud.authority.directory / (other or "rest.pem")).write_text(text)
    cloud.daemon.signal(signal.SIGHUP)
    until(lambda: "the old certificate stays" in log.read_text())
    assert serial(cloud, cloud.tenant_port) == before
    assert (await cloud.ask("GET", "/subscriptions", OWNER, params=ARM_VERSION)).status_code == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_tls_is_refused(cloud: RestCloud):
    context = cloud.trust()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("localhost", cloud.tenant_port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


# what of uvicorn is leaned on


def test_uvicorns_protocol_has_what_is_overridden():
    for name in ("connection_made", "data_received", "on_response_complete", "connection_lost", "send_400_response"):
        assert getattr(PatientProtocol, name) is not getattr(H11Protocol, name)
    source = inspect.getsource(H11Protocol)
    leaned_on = ("timeout_keep_alive_task", "conn = h11.Connection", "loop", "connections = server_state.connections", "cycle")
    assert all(f"self.{name}" in source for name in leaned_on)
    cycle = inspect.getsource(RequestResponseCycle)
    assert all(f"self.{name}" in cycle for name in ("response_complete = True", "disconnected", "message_event"))


def test_uvicorns_server_starts_as_ours_does():
    source = inspect.getsource(Server.startup)
    for name in ("config.http_protocol_class(", "server_state=self.server_state", "self.servers", "self.started = True"):
        assert name in source
    assert list(inspect.signature(H11Protocol.__init__).parameters) == ["self", "config", "server_state", "app_state", "_loop"]
