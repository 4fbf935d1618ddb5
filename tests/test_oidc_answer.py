"""What a browser brings back from an issuer, or what somebody sent it with."""

from __future__ import annotations

import pytest

from oidc.answer import MAX_QUERY, Answer
from oidc.failure import NotBelieved


def test_a_code() -> None:
    assert Answer.parse("code=c%2F1&state=s&iss=https%3A%2F%2Fid.example&session_state=x") == Answer(
        "s", "c/1", None, "https://id.example"
    )


def test_an_error() -> None:
    assert Answer.parse("error=access_denied&error_description=no&state=s") == Answer("s", None, "access_denied", None)


def test_an_error_that_is_no_word_is_not_repeated() -> None:
    assert Answer.parse("error=%0D%0Ax&state=s").error == "unreadable"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "state=s",
        "code=c",
        "code=c&error=e&state=s",
        "code=c&state=s&state=t",
        "code=c&code=d&state=s",
        "code=c&state=s&x",
        "code=c%0A&state=s",
        "code=c&state=%ff",
        "code=c&state=s%00",
        "code=c&state=s&" + "&".join(f"p{n}=1" for n in range(15)),
        "state=s&code=" + "c" * MAX_QUERY,
    ],
    ids=lambda query: query[:24],
)
def test_what_is_no_answer(query: str) -> None:
    with pytest.raises(NotBelieved):
        Answer.parse(query)


def test_neither_code_nor_state_is_shown() -> None:
    shown = repr(Answer.parse("code=secret-code&state=secret-state"))
    assert "secret" not in shown
