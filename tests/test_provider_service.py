"""provider/service.py: leases over HTTPS from the real daemon, its numbers, its socket's file."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest

from eva.endpoint import MetricsListener
from eva.resource_id import ResourceId
from eva.token import Typ, thumbprint, verify
from eva.whereabouts import WHEREABOUTS_PATH, Query, Whereabouts
from eva.wire import CONTENT_TYPE, LEASE_PATH, MAX_ENVELOPE, NODES, Envelope, KeySet, Lease
from lab.ports import free_port
from lab.transcript import PATIENCE_S
from provider.keys import read_public
from provider.service import tcp_socket
from tests.provider_parts import Cloud, Pen, jti, now


def post(provider: Cloud, body: bytes, content_type: str = CONTENT_TYPE) -> httpx.Response:
    context = ssl.create_default_context(cafile=str(provider.place.ca))
    url = f"https://127.0.0.1:{provider.place.lease_port}{LEASE_PATH}"
    return httpx.post(url, content=body, headers={"content-type": content_type}, verify=context, timeout=PATIENCE_S)


async def test_a_lease_over_https_is_the_same_envelope(provider: Cloud):
    nonce = jti()
    answer = post(provider, Envelope(provider.pen.request(nonce)).encode())
    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
    envelope = Envelope.decode(answer.content)
    root = read_public(provider.place.root_public)
    assert envelope.keys is not None
    keys = KeySet.from_claims(verify(envelope.keys, Typ.KEYS, {thumbprint(root): root}, NODES)).keys
    lease = Lease.from_claims(verify(envelope.token, Typ.LEASE, keys, provider.pen.name))
    assert lease.nonce == nonce


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_no_answer_waits_for_the_acknowledgement_of_its_head(address: str):
    """Each connection has TCP_NODELAY from the socket that listens."""
    with tcp_socket(MetricsListener(address, free_port())) as listening, socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_one_nonce_over_both_ways_is_answered_twice(provider: Cloud):
    token = provider.pen.request(jti())
    async with provider.node() as node:
        await node.ask(token)
    assert post(provider, Envelope(token).encode()).status_code == 200


async def test_a_stranger_learns_nothing(provider: Cloud):
    for body in (Envelope(Pen(provider.pen.name).request()).encode(), b"{", Envelope(provider.pen.request(aud="else")).encode()):
        answer = post(provider, body)
        assert (answer.status_code, answer.content) == (403, b"")


async def test_a_body_over_the_cap_is_refused(provider: Cloud):
    assert post(provider, b"x" * (MAX_ENVELOPE + 1)).status_code == 413


async def test_a_body_without_a_length_is_capped_while_it_is_read(provider: Cloud):
    context = ssl.create_default_context(cafile=str(provider.place.ca))
    head = f"POST {LEASE_PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n"
    raw = socket.create_connection(("127.0.0.1", provider.place.lease_port), PATIENCE_S)
    with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
        tls.sendall(head.encode())
        for size in (MAX_ENVELOPE, 1):  # the answer comes when all is read: nothing is on its way when the server hangs up
            tls.sendall(f"{size:x}\r\n".encode() + b"x" * size + b"\r\n")
        # no last chunk: the answer must not wait for it
        assert tls.recv(64).startswith(b"HTTP/1.1 413")


async def test_another_content_type_is_refused(provider: Cloud):
    assert post(provider, Envelope(provider.pen.request()).encode(), "text/plain").status_code == 415


async def test_plain_http_gets_no_lease(provider: Cloud):
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"http://127.0.0.1:{provider.place.lease_port}{LEASE_PATH}", content=b"{}", timeout=PATIENCE_S)


async def test_nothing_but_leases_is_served_to_the_network(provider: Cloud):
    context = ssl.create_default_context(cafile=str(provider.place.ca))
    base = f"https://127.0.0.1:{provider.place.lease_port}"
    for path in ("/grant", "/revoke", "/metrics", "/healthz", "/docs", "/openapi.json"):
        assert httpx.get(base + path, verify=context, timeout=PATIENCE_S).status_code == 404
        assert httpx.post(base + path, verify=context, timeout=PATIENCE_S).status_code == 404


async def test_healthz_and_metrics_answer(provider: Cloud):
    assert provider.healthz() == {"store": True, "mqtt": True}
    assert provider.metric("eva_provider_mqtt_up") == 1


# whereabouts


def query(provider: Cloud, pen: Pen, resource_id: str, issued_at: int) -> httpx.Response:
    token = pen.key.sign(Typ.QUERY, Query(pen.name, jti(), issued_at, ResourceId.parse(resource_id)).to_claims())
    context = ssl.create_default_context(cafile=str(provider.place.ca))
    url = f"https://127.0.0.1:{provider.place.lease_port}{WHEREABOUTS_PATH}"
    headers = {"content-type": CONTENT_TYPE}
    return httpx.post(url, content=Envelope(token).encode(), headers=headers, verify=context, timeout=PATIENCE_S)


async def test_a_node_is_told_where_a_consent_is(provider: Cloud):
    asking = provider.pen
    provider.fresh()
    async with provider.node():
        assert query(provider, asking, provider.resource_id, now()).status_code == 404
        await provider.granted()
        answer = query(provider, asking, provider.resource_id.upper(), now() - 30)
        assert (answer.status_code, Whereabouts.decode(answer.content)) == (200, Whereabouts(provider.pen.name))
        await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)
        assert query(provider, asking, provider.resource_id, now()).status_code == 404


async def test_others_are_told_nothing(provider: Cloud):
    async with provider.node():
        await provider.granted()
        stranger = Pen(provider.pen.name)
        in_anothers_name = Pen("AzS-ERCS01", provider.pen.key)
        assert query(provider, stranger, provider.resource_id, now()).status_code == 403
        assert query(provider, in_anothers_name, provider.resource_id, now()).status_code == 403
        assert query(provider, provider.pen, provider.resource_id, now() - 90).status_code == 403
        assert query(provider, provider.pen, provider.resource_id, now() + 90).status_code == 403
