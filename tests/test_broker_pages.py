"""The table of the operators' page, and how a request is answered from it."""

from __future__ import annotations

import gzip

import pytest

from broker.pages import Pages, PlainRequest, Reply
from web.assets import HOME

SCRIPT = "/shared/json_rpc.js"


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages()


def asked(target: str, method: str = "GET", **fields: str) -> PlainRequest:
    return PlainRequest(method, target, tuple((name.replace("_", "-"), text) for name, text in fields.items()))


def found(pages: Pages, request: PlainRequest) -> Reply:
    reply = pages.answer(request)
    assert reply is not None
    return reply


def test_the_page(pages: Pages) -> None:
    reply = found(pages, asked("/"))
    assert (reply.status, reply.body) == (200, (HOME / "operator" / "index.html").read_bytes())


def test_a_module(pages: Pages) -> None:
    reply = found(pages, asked(SCRIPT))
    assert reply.body == (HOME / SCRIPT[1:]).read_bytes()
    assert dict(reply.fields)["Content-Type"] == "text/javascript; charset=utf-8"


def test_packed_for_who_takes_it(pages: Pages) -> None:
    reply = found(pages, asked(SCRIPT, accept_encoding="gzip, deflate, br, zstd"))
    assert gzip.decompress(reply.body) == (HOME / SCRIPT[1:]).read_bytes()
    assert dict(reply.fields)["Content-Encoding"] == "gzip"


def test_who_has_it_is_not_given_it_again(pages: Pages) -> None:
    etag = dict(found(pages, asked(SCRIPT)).fields)["ETag"]
    reply = found(pages, asked(SCRIPT, if_none_match=etag, accept_encoding="gzip"))
    assert (reply.status, reply.body) == (304, b"")
    assert "Content-Encoding" not in dict(reply.fields)


def test_no_page_is_framed_or_runs_what_is_not_in_the_table(pages: Pages) -> None:
    policy = dict(found(pages, asked("/")).fields)["Content-Security-Policy"]
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= {part.strip() for part in policy.split(";")}
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "target",
    [
        "",
        "//",
        "/?",
        "/?x=1",
        "/#x",
        "/index.html",
        "/operator/",
        "/operator/index.html",
        f"{SCRIPT}?",
        f"{SCRIPT}?v=1",
        f"/{SCRIPT}",
        f"/operator/..{SCRIPT}",
        "/shared/./json_rpc.js",
        "/shared/%6ason_rpc.js",
        "/shared/json_rpc%2ejs",
        "/SHARED/json_rpc.js",
        "/shared%2fjson_rpc.js",
        "/shared\\json_rpc.js",
        "/../web/assets.py",
        "/..%2f..%2fetc%2fpasswd",
        "/assets.py",
        "/package.json",
        "/vendor/setup.stamp",
        "/watch/page.js",
        "https://127.0.0.1/",
        "*",
    ],
)
def test_another_spelling_is_nothing(pages: Pages, target: str) -> None:
    assert pages.answer(asked(target)) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"])
def test_it_is_only_read(pages: Pages, method: str) -> None:
    reply = found(pages, asked("/", method))
    assert (reply.status, reply.last, dict(reply.fields)["Allow"]) == (405, True, "GET, HEAD")
