"""provider/mqtt.py with a real mosquitto, the real daemon and a node written by hand."""

from __future__ import annotations

import asyncio

import pytest

from eva.token import Typ
from eva.wire import MAX_REVOCATIONS, Envelope, Event, lease_request_topic, receipt_topic
from tests.provider_parts import Cloud, Pen, jti, until


async def test_a_lease_comes_back_with_its_nonce_and_correlation(provider: Cloud):
    async with provider.node() as node:
        nonce = jti()
        lease, envelope, correlation = await node.ask(node.pen.request(nonce))
        assert (lease.nonce, lease.node, correlation) == (nonce, provider.pen.name, b"correlate")
        assert envelope.keys is not None


def refused(provider: Cloud, reason: str) -> float:
    return provider.metric(f'eva_provider_refused_total{{reason="{reason}"}}')


async def test_a_stranger_is_counted_and_gets_no_answer(provider: Cloud):
    before = [refused(provider, reason) for reason in ("key", "json", "unknown-node")]
    name = provider.pen.name
    stranger = Pen(name)
    async with provider.node() as node:
        for payload in (Envelope(stranger.request()).encode(), b"{", b"", Envelope("a.b.c").encode()):
            await node.client.publish(lease_request_topic(name), payload, qos=1)
        await node.client.publish(receipt_topic("nobody"), Envelope(stranger.receipt(Event.ENDED, jti())).encode(), qos=1)
        # the lane keeps its order: this answer proves that all before it are dealt with
        await node.ask()
        assert node.leases.empty()
    until(
        lambda: (
            [refused(provider, reason) for reason in ("key", "json", "unknown-node")]
            == [before[0] + 1, before[1] + 2, before[2] + 1]
        )
    )


async def test_one_nodes_words_on_anothers_topic_get_no_answer(provider: Cloud):
    before = refused(provider, "wrong-node")
    other = provider.pen
    provider.fresh()
    async with provider.node() as node:
        await node.client.publish(lease_request_topic(provider.pen.name), Envelope(other.request()).encode(), qos=1)
        await node.ask()
        assert node.leases.empty()
    assert refused(provider, "wrong-node") == before + 1


async def test_enrolment_holds_at_once_while_the_daemon_runs(provider: Cloud):
    async with provider.node() as node:
        assert (await node.ask())[0].node == provider.pen.name
    provider.enrol(Pen(provider.pen.name))
    async with provider.node() as node:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(node.ask(), 0.5)


async def test_a_deletion_is_answered_by_a_revocation(provider: Cloud):
    async with provider.node() as node:
        granted = await provider.granted()
        await node.send(node.pen.receipt(Event.DELETED, granted["consent_id"], account="op"))
        revocation = await node.has_revocation(1)
        assert revocation.consent == granted["consent_id"]


async def test_receipts_sent_twice_and_late_count_once(provider: Cloud):
    before = provider.metric('eva_provider_receipts_total{event="ended"}')
    async with provider.node() as node:
        one, two = (node.pen.receipt(Event.ENDED, jti(), reason="vm-gone") for _ in range(2))
        for token in (two, one, one):
            await node.send(token)
        assert (await node.ask())[0].receipts == 1
        assert (await node.ask(receipts=(one, two)))[0].receipts == 2
    assert provider.metric('eva_provider_receipts_total{event="ended"}') == before + 2


async def test_the_session_is_taken_up_again_after_mosquitto_was_killed(provider: Cloud):
    provider.mosquitto.kill()
    until(lambda: not provider.healthz()["mqtt"])
    provider.mosquitto.start()
    until(lambda: provider.healthz()["mqtt"])
    async with provider.node() as node:
        assert (await node.ask())[0].seq == 0


async def test_a_letter_that_mosquitto_lost_comes_with_the_next_lease(provider: Cloud):
    async with provider.node():
        await provider.granted()
    provider.mosquitto.kill()
    with provider.hurried():
        ran = await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)
    assert ran.code == 3
    provider.mosquitto.start()
    until(lambda: provider.healthz()["mqtt"])
    async with provider.node() as node:
        lease, envelope, _ = await node.ask()
        assert (lease.seq, len(envelope.revocations)) == (1, 1)


async def test_a_node_far_behind_is_paged(provider: Cloud):
    # two hundred revocations by the node's own deletions of consents that nobody knows
    async with provider.node(confirms=False) as node:
        tokens = [node.pen.receipt(Event.DELETED, jti()) for _ in range(200)]
        for start in range(0, 200, 16):
            await node.ask(receipts=tuple(tokens[start : start + 16]))
        pages = []
        while node.pen.seq < 200:
            lease, envelope, _ = await node.ask()
            pages.append(len(envelope.revocations))
            node.pen.seq += len(envelope.revocations)
        assert (lease.seq, pages) == (200, [MAX_REVOCATIONS] * 3 + [8])


async def test_leases_are_quick(provider: Cloud):
    async with provider.node() as node:
        loop = asyncio.get_running_loop()
        spans = []
        for _ in range(50):
            began = loop.time()
            await node.ask()
            spans.append(loop.time() - began)
        # the best of them, which a busy machine spares; one wait for a delayed acknowledgement is 40 ms in each
        assert min(spans) < 0.04


async def test_a_token_of_another_kind_is_no_lease_request(provider: Cloud):
    async with provider.node() as node:
        receipt = node.pen.key.sign(Typ.RECEIPT, {"aud": "eva-provider"})
        await node.client.publish(lease_request_topic(provider.pen.name), Envelope(receipt).encode(), qos=1)
        await node.ask()
        assert node.leases.empty()
