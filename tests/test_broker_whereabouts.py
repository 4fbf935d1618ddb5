"""broker/whereabouts.py against a real HTTPS port: an answer is a hint, and none costs little."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker import whereabouts
from broker.settings import Provider
from broker.whereabouts import AT_ONCE, BY_ACCOUNT, KEPT, KEPT_SECONDS, Inquiry
from eva.consent import PROVIDER
from eva.token import SigningKey, verify
from eva.whereabouts import WHEREABOUTS_PATH, Query, Whereabouts
from eva.wire import Envelope
from lab.certificates import Authority
from lab.ports import free_port
from tests.answering_provider import AnsweringProvider, answering_provider
from tests.broker_parts import NODE, PATIENCE, START, HandClock, vm_id

KEY = SigningKey(Ed25519PrivateKey.generate())


@pytest.fixture
async def provider(certificates: Authority) -> AsyncIterator[AnsweringProvider]:
    async with answering_provider(certificates) as one:
        one.answer = (200, Whereabouts("AzS-ERCS02").encode())
        yield one


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is in time, however long this process stands still before it."""
    monkeypatch.setattr(whereabouts, "SECONDS", PATIENCE)


@pytest.fixture
def inquiry(provider: AnsweringProvider, clock: HandClock) -> Inquiry:
    return Inquiry(NODE, provider.settings, KEY, clock, secrets.token_bytes)


async def test_the_node_is_told(inquiry: Inquiry):
    assert await inquiry.find("alice", vm_id()) == "AzS-ERCS02"


async def test_the_question_is_signed_by_this_node_and_names_the_vm(inquiry: Inquiry, provider: AnsweringProvider):
    await inquiry.find("alice", vm_id())
    ((path, body),) = provider.asked
    keys = {KEY.kid: KEY.private.public_key()}
    query = Query.from_claims(verify(Envelope.decode(body).token, Query.TYP, keys, PROVIDER))
    assert (path, query.node, query.issued_at, query.resource_id) == (WHEREABOUTS_PATH, NODE, START, vm_id())


@pytest.mark.parametrize(
    "answer",
    [
        (404, b""),
        (500, b""),
        (302, b""),
        (200, b""),
        (200, b'{"node": "not a name"}'),
        (200, b'{"node": "AzS-ERCS02", "more": 1}'),
        (200, b" " * 2000 + Whereabouts("AzS-ERCS02").encode()),
        (200, Whereabouts(NODE.lower()).encode()),  # here: it is on its way
    ],
    ids=ascii,
)
async def test_anything_else_is_no_hint(inquiry: Inquiry, provider: AnsweringProvider, answer: tuple[int, bytes]):
    provider.answer = answer
    assert await inquiry.find("alice", vm_id()) is None


async def test_a_provider_that_is_not_there_is_no_hint(certificates: Authority, clock: HandClock):
    nobody = Provider(f"https://127.0.0.1:{free_port()}", certificates.ca)
    assert await Inquiry(NODE, nobody, KEY, clock, secrets.token_bytes).find("alice", vm_id()) is None


async def test_a_stranger_in_the_providers_place_is_not_asked(provider: AnsweringProvider, tmp_path, clock: HandClock):
    stranger = Provider(provider.settings.url, Authority(tmp_path).ca)
    assert await Inquiry(NODE, stranger, KEY, clock, secrets.token_bytes).find("alice", vm_id()) is None
    assert provider.asked == []


async def test_a_provider_that_hangs_holds_nobody_long(
    inquiry: Inquiry, provider: AnsweringProvider, monkeypatch: pytest.MonkeyPatch
):
    provider.go.clear()
    async with asyncio.timeout(PATIENCE):
        for number in range(6):  # on a busy machine the question may need longer than that to come
            monkeypatch.setattr(whereabouts, "SECONDS", 0.2 * 2**number)
            assert await inquiry.find("alice", vm_id(f"vm{number}")) is None
            if provider.asked:
                break
    assert provider.asked


@pytest.mark.parametrize("status", [200, 404])
async def test_an_answer_is_kept_for_a_moment(inquiry: Inquiry, provider: AnsweringProvider, clock: HandClock, status: int):
    provider.answer = (status, provider.answer[1])
    for _ in range(3):
        await inquiry.find("alice", vm_id())
    within = len(provider.asked)
    clock.run(KEPT_SECONDS)
    await inquiry.find("alice", vm_id())
    assert (within, len(provider.asked)) == (1, 2)


async def test_few_answers_are_kept(inquiry: Inquiry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(whereabouts, "KEPT", 2)
    for name in ("vm1", "vm2", "vm3"):
        await inquiry.find("alice", vm_id(name))
    assert len(inquiry._kept) == 2 < KEPT


async def test_an_account_asks_so_often_and_another_still_may(inquiry: Inquiry, provider: AnsweringProvider, clock: HandClock):
    for number in range(BY_ACCOUNT.burst + 2):
        await inquiry.find("alice", vm_id(f"vm{number}"))
    hers = len(provider.asked)
    await inquiry.find("bob", vm_id("other"))
    clock.run(BY_ACCOUNT.every_seconds)
    await inquiry.find("alice", vm_id("again"))
    assert (hers, len(provider.asked)) == (BY_ACCOUNT.burst, BY_ACCOUNT.burst + 2)


async def test_few_questions_are_under_way_at_once(inquiry: Inquiry, provider: AnsweringProvider):
    provider.go.clear()
    waiting = [asyncio.ensure_future(inquiry.find(f"a{number}", vm_id(f"vm{number}"))) for number in range(AT_ONCE)]
    async with asyncio.timeout(PATIENCE):
        while len(provider.asked) < AT_ONCE:
            await provider.came.wait()
            provider.came.clear()
    assert await inquiry.find("bob", vm_id()) is None
    provider.go.set()
    assert await asyncio.gather(*waiting) == ["AzS-ERCS02"] * AT_ONCE
