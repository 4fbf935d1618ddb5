"""A document that is fetched once for all who want it, whoever of them goes."""

from __future__ import annotations

import asyncio

import pytest

import oidc.document
from oidc.document import Document
from oidc.failure import SignInFailed, Unreachable


class Issuer:
    """It answers when it is let: with the next of `answers`."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Event()
        self.lets = asyncio.Event()
        self.times = 0

    async def fetch(self) -> str:
        self.times += 1
        self.asked.set()
        await self.lets.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def leaves(issuer: Issuer, document: Document[str]) -> None:
    """Somebody asks, and is gone before the answer comes."""
    issuer.asked.clear()
    visitor = asyncio.create_task(document.get())
    await issuer.asked.wait()
    visitor.cancel()
    await asyncio.wait([visitor])


async def test_a_visitor_who_goes_during_the_first_fetch_breaks_nobody_elses_sign_in() -> None:
    issuer = Issuer("document")
    document = Document(issuer.fetch)
    await leaves(issuer, document)
    issuer.lets.set()
    assert await document.get() == "document"
    assert issuer.times == 1


async def test_a_visitor_who_goes_keeps_no_old_failure_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer(Unreachable("down"), "document")
    document = Document(issuer.fetch)
    issuer.lets.set()
    with pytest.raises(Unreachable):
        await document.get()
    monkeypatch.setattr(oidc.document, "PAUSE_SECONDS", 0.0)
    issuer.lets.clear()
    await leaves(issuer, document)
    monkeypatch.undo()
    issuer.lets.set()
    assert await document.get() == "document"


async def test_many_who_ask_at_once_are_one_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc.document, "PAUSE_SECONDS", 3600.0)
    issuer = Issuer("document")
    document = Document(issuer.fetch)
    asking = [asyncio.create_task(document.get()) for _ in range(5)]
    await issuer.asked.wait()
    issuer.lets.set()
    assert await asyncio.gather(*asking) == ["document"] * 5
    assert await document.get(anew=True) == "document"  # it was fetched just now
    assert issuer.times == 1


async def test_a_failure_is_everybodys_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc.document, "PAUSE_SECONDS", 3600.0)
    issuer = Issuer(Unreachable("down"), "document")
    document = Document(issuer.fetch)
    issuer.lets.set()
    for _ in range(3):
        with pytest.raises(SignInFailed, match="down"):
            await document.get()
    assert issuer.times == 1


async def test_what_is_known_is_fetched_anew_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc.document, "PAUSE_SECONDS", 0.0)
    issuer = Issuer("first", "second")
    document = Document(issuer.fetch)
    issuer.lets.set()
    found = [await document.get(), await document.get(), await document.get(anew=True), await document.get()]
    assert found == ["first", "first", "second", "second"]


async def test_a_fault_of_our_own_is_not_taken_for_an_answer() -> None:
    issuer = Issuer(RuntimeError("ours"), "document")
    document = Document(issuer.fetch)
    issuer.lets.set()
    with pytest.raises(RuntimeError):
        await document.get()
    assert await document.get() == "document"
