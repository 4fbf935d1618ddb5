"""What people and proxies send who mean no good: refused in ARM's words, with nothing changed and nothing secret told.

The spellings by which a subscription's owner might reach another's are in tests/test_provider_admission.py; here are those
by which the owner of one machine might reach its neighbours, and all that is wrong besides the path.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import pytest
import pytest_asyncio

from lab.certificates import Authority
from tests.raw_http import Answer, answered, answers, held, request, said
from tests.rest_parts import FEATURE, NEIGHBOUR, OPERATOR, OTHER_SUBSCRIPTION, OWNER, RestCloud, rest_cloud, vm_path

MINE = vm_path("vm1")
THEIRS = vm_path("vm1", OTHER_SUBSCRIPTION)
TENDER = "Tess"  # owns vm1, and neither its neighbours nor its group
SLOW_S = 20.0  # five are promised


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[RestCloud]:
    """Each of two subscriptions has a consent that stands; whatever is done wrongly to one shows."""
    with rest_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        assert cloud.run("feature", "enable-subscription", OTHER_SUBSCRIPTION).code == 0
        cloud.assign(TENDER, "Owner", MINE)
        asyncio.run(_consents(cloud))
        yield cloud


async def _consents(cloud: RestCloud) -> None:
    async with cloud.serving():
        for path, who in ((vm_path("vm10"), OWNER), (THEIRS, NEIGHBOUR)):
            assert (await cloud.ask("POST", f"{path}/enableVmAccess", who)).status_code == 200


@pytest_asyncio.fixture
async def cloud(running: RestCloud) -> AsyncIterator[RestCloud]:
    """With a node that would accept whatever gets through. Holds that nothing did, and that no token is in the log."""
    async with running.serving() as node:
        before = held(running)
        yield running
        assert held(running) == before
        assert (node.consents, node.revocations) == ([], [])
    log = (running.place.directory / "provider.log").read_text()
    assert "Traceback" not in log
    assert not any(part in log for token in running._tokens.values() for part in token.split(".")[1:])


# machines beside one's own


def beside(name: str) -> str:
    return MINE.removesuffix("vm1") + name


NEIGHBOURS = {
    "a longer name": beside("vm10"),
    "a shorter name": beside("vm"),
    "a hyphen": beside("vm1-2"),
    "an underscore": beside("vm1_"),
    "a longer group": MINE.replace("/rg1/", "/rg10/"),
    "a shorter group": MINE.replace("/rg1/", "/rg/"),
    "in capitals": beside("VM10").upper().replace("VMS", "vms"),
    "a digit encoded": beside("vm1%30"),
    "all encoded": beside("%76%6D%31%30"),
}
MALFORMED = {
    "a full stop": beside("vm1."),
    "an encoded full stop": beside("vm1%2e"),
    "two full stops": beside("vm1.."),
    "a space": beside("vm1%20"),
    "a plus": beside("vm1+"),
    "a tab": beside("vm1%09"),
    "a null byte": beside("vm1%00"),
    "what stands behind a null byte": beside("vm1%0010"),
    "a new line": beside("vm1%0a"),
    "a header": beside("vm1%0d%0ahost:%20evil"),
    "a matrix parameter": beside("vm1;vm=vm10"),
    "an encoded matrix parameter": beside("vm1%3bvm10"),
    "a comma": beside("vm1,vm10"),
    "a tilde": beside("vm1~0"),
    "a star": beside("*"),
    "a colon": beside("vm1:10"),
    "an at sign": beside("vm1@vm10"),
    "a dollar": beside("$vm10"),
    "braces": beside("{vmName}"),
    "a quotation mark": beside("vm1'--"),
    "back and on": beside("vm1/../vm10"),
    "back and on, encoded": beside("vm1/%2e%2e/vm10"),
    "back and on, half encoded": beside("vm1/.%2E/vm10"),
    "back and on with an encoded slash": beside("vm1%2f..%2fvm10"),
    "back and on with a backslash": beside("vm1\\..\\vm10"),
    "back and on with an encoded backslash": beside("vm1%5c..%5cvm10"),
    "back and on, encoded twice": beside("vm1%252f..%252fvm10"),
    "back and on, overlong": beside("vm1%c0%af..%c0%afvm10"),
    "back and on behind a semicolon": beside("vm1/..;/vm10"),
    "two slashes": beside("/vm10"),
    "a slash at the end": beside("vm10/"),
    "an unfinished escape": beside("vm1%"),
    "an escape of no number": beside("vm%gg"),
    "an escape of IIS": beside("%u0076m10"),
    "UTF-8 as it is": beside("vm\uff110"),
    "full width": beside(quote("\uff56\uff4d\uff11\uff10")),
    "in circles": beside(quote("\u24e5\u24dc\u2460\u24ea")),
    "mathematical": beside(quote("\U0001d42f\U0001d426\U0001d7cf\U0001d7ce")),
    "raised": beside(quote("vm\u00b9\u2070")),
    "a Kelvin sign": beside(quote("vm1\u212a")),
    "a long s": beside(quote("vm1\u017f")),
    "a dotless i": beside(quote("v\u0131")),
    "Greek": beside(quote("\u03bdm10")),
    "a combining accent": beside(quote("vm1\u0301")),
    "a soft hyphen": beside(quote("vm1\u00ad0")),
    "a joiner": beside(quote("vm1\u200d0")),
    "a byte order mark": beside(quote("\ufeffvm10")),
    "right to left": beside(quote("vm1\u202e0")),
    "no UTF-8": beside("vm1%ff"),
    "a surrogate": beside("vm1%ed%a0%80"),
    "a name of 65": beside("v" * 65),
    "a group of 91": MINE.replace("/rg1/", f"/{'g' * 91}/"),
    "a path of 5,000": beside("v" * 5_000),
    "a GUID in braces": MINE.replace("7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90", "{7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90}"),
    "a GUID without hyphens": MINE.replace("7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90", "7d2f4a3c5b1e4c889a062f3d1e5b7c90"),
}
OPERATIONS = [("POST", "enableVmAccess"), ("POST", "disableVmAccess"), ("GET", "vmAccess"), ("GET", "vmAccess/receipt")]


async def _each(cloud: RestCloud, path: str) -> list[Answer]:
    token = cloud.token(TENDER)
    return [await answered(cloud, request(f"{path}/{action}", token, method)) for method, action in OPERATIONS]


@pytest.mark.parametrize("path", NEIGHBOURS.values(), ids=NEIGHBOURS)
async def test_one_machines_owner_does_not_reach_another(cloud: RestCloud, path: str):
    for answer in await _each(cloud, path):
        assert (answer.status, answer.error["code"]) == (403, "AuthorizationFailed")


@pytest.mark.parametrize("path", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_path_reaches_nothing(cloud: RestCloud, path: str):
    for answer in await _each(cloud, path):
        assert answer.status in (400, 404)
        assert answer.error["message"]


async def test_ones_own_machine_is_reached_in_any_case(cloud: RestCloud):
    """So that the tables above show the door, and not something else that is shut."""
    answer = await answered(cloud, request(f"{MINE.upper()}/VMACCESS", cloud.token(TENDER), "GET"))
    assert (answer.status, json.loads(answer.content)["state"]) == (200, "none")


# requests for another server, and words about another request

TARGETS = {
    "another host's": f"https://evil.example{THEIRS}/enableVmAccess",
    "our own host's": f"https://localhost{THEIRS}/enableVmAccess",
    "a host's without a scheme": f"//localhost{THEIRS}/enableVmAccess",
    "no slash": f"{THEIRS}/enableVmAccess"[1:],
    "a question mark before": f"/?{THEIRS}/enableVmAccess",
    "a number sign": f"{MINE}/#{THEIRS}/enableVmAccess",
    "a star": "*",
    "a port": "localhost:443",
    "of 40,000": f"{MINE}/enableVmAccess?api-version=2020-06-01&x={'x' * 40_000}",
    "of UTF-8": f"{MINE}/enableVm\u00c4ccess",
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
async def test_a_target_that_is_no_path_of_ours(cloud: RestCloud, target: str):
    answer = await answered(cloud, request(target, cloud.token(OWNER)))
    assert 400 <= answer.status < 500
    assert answer.error["message"]


CLAIMS = {
    "the path": f"x-original-url: {THEIRS}/enableVmAccess",
    "the path rewritten": f"x-rewrite-url: {THEIRS}/enableVmAccess",
    "the path forwarded": f"x-forwarded-uri: {THEIRS}/enableVmAccess",
    "a prefix": f"x-forwarded-prefix: {THEIRS}",
    "the method": "x-http-method-override: POST",
    "the method otherwise": "x-method-override: POST",
    "the method as Azure has it": "x-http-method: POST",
    "who calls": f"x-ms-client-principal-id: {OWNER}",
    "who calls by name": f"x-ms-client-principal-name: {OWNER}",
    "who called the proxy": f"x-forwarded-user: {OWNER}",
    "another token": "x-ms-authorization-auxiliary: Bearer x.y.z",
    "where from": "x-forwarded-for: 127.0.0.1",
    "where from, as standard": "forwarded: for=127.0.0.1;host=adminmanagement.example;proto=https",
    "which host": "x-forwarded-host: adminmanagement.example",
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
async def test_a_header_changes_no_request(cloud: RestCloud, claim: str):
    """A GET stays a GET for this path, and the caller who he is."""
    token = cloud.token(TENDER)
    theirs = await answered(cloud, request(f"{THEIRS}/enableVmAccess", token, headers=[claim]))
    got = await answered(cloud, request(f"{MINE}/enableVmAccess", token, "GET", [claim]))
    mine = await answered(cloud, request(f"{MINE}/vmAccess", token, "GET", [claim]))
    assert (theirs.status, got.status, mine.status) == (403, 405, 200)


@pytest.mark.parametrize(
    "host", ["adminmanagement.example", "evil.example", "localhost:1", "[::1]", "a" * 4_000, "evil.example/x?y#z"]
)
async def test_a_host_opens_no_other_door_and_is_not_repeated(cloud: RestCloud, host: str):
    feature = await answered(cloud, request(FEATURE, cloud.token(OPERATOR, "admin"), "GET", host=host, version="2020-11-01"))
    endpoints = await answered(cloud, request("/metadata/endpoints", None, "GET", host=host, version="2022-09-01"))
    assert (feature.status in (400, 404), endpoints.status in (200, 400)) == (True, True)
    assert host.partition("/")[0].encode() not in endpoints.content.replace(cloud.tenant_url.encode(), b"")


VERSIONS = {
    "twice": "?api-version=2020-06-01&api-version=2020-06-01",
    "twice, in two cases": "?api-version=2020-06-01&Api-Version=2020-06-01",
    "twice, once encoded": "?api-version=2020-06-01&api%2Dversion=2020-11-01",
    "with brackets": "?api-version[]=2020-06-01",
    "behind a semicolon": "?x=1;api-version=2020-06-01",
    "with a null byte": "?api-version=2020-06-01%00",
    "with a space": "?api-version=2020-06-01%20",
    "in full width": "?api-version=" + quote("\uff12\uff10\uff12\uff10-06-01"),
    "of no number": "?api-version=latest",
    "of a preview": "?api-version=2020-06-01-preview",
    "empty": "?api-version=",
    "absent": "?",
}


@pytest.mark.parametrize("query", VERSIONS.values(), ids=VERSIONS)
async def test_a_version_that_is_none(cloud: RestCloud, query: str):
    answer = await answered(cloud, request(f"{MINE}/enableVmAccess{query}", cloud.token(OWNER)))
    assert answer.status == 400
    assert answer.error["code"] in ("InvalidApiVersionParameter", "MissingApiVersionParameter", "NoRegisteredProviderFound")


@pytest.mark.parametrize("query", ["consentId=x&consentId=y", "consentId=%00", "$top=1&$top=1", "$skipToken=x.1"])
async def test_a_parameter_that_is_none(cloud: RestCloud, query: str):
    path = f"{MINE}/vmAccess" if "top" in query else f"{MINE}/vmAccess/receipt"
    answer = await answered(cloud, request(f"{path}?api-version=2020-06-01&{query}", cloud.token(OWNER), "GET"))
    assert (answer.status, answer.error["code"]) == (400, "InvalidParameter")


# bodies

BODIES: dict[str, bytes] = {
    "a name twice": b'{"renew": false, "renew": true}',
    "a name in two cases": b'{"renew": false, "RENEW": true}',
    "a name twice by an escape": b'{"renew": false, "\\u0072enew": true}',
    "NaN": b'{"durationInSeconds": NaN}',
    "infinity": b'{"durationInSeconds": Infinity}',
    "minus infinity": b'{"durationInSeconds": -Infinity}',
    "a huge exponent": b'{"durationInSeconds": 1e400}',
    "a huge number": b'{"durationInSeconds": ' + b"9" * 5_000 + b"}",
    "a hexadecimal number": b'{"durationInSeconds": 0x10}',
    "a leading zero": b'{"durationInSeconds": 0600}',
    "a fraction": b'{"durationInSeconds": 600.5}',
    "a number as text": b'{"durationInSeconds": "600"}',
    "truth as a number": b'{"durationInSeconds": true}',
    "deep lists": b"[" * 30_000 + b"]" * 30_000,
    "deep objects": b'{"reason":' * 6_000 + b"1" + b"}" * 6_000,
    "deep lists in a property": b'{"kinds": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "no object": b"[]",
    "null": b"null",
    "a text": b'"enable"',
    "two objects": b"{}{}",
    "a comment": b'{"renew": false /* no */}',
    "quotation marks of another kind": b"{'renew': false}",
    "a comma too many": b'{"renew": false,}',
    "unfinished": b'{"renew": fal',
    "no UTF-8": b'{"reason": "\xff\xfe"}',
    "UTF-16": '{"renew": false}'.encode("utf-16"),
    "a lone surrogate": b'{"reason": "\\ud800"}',
    "a null byte": b'{"reason": "\\u0000"}',
    "a null byte as it is": b'{"reason": "\x00"}',
    "a new line": b'{"reason": "x\\nINFO forged"}',
    "an escape sequence": b'{"reason": "\\u001b]0;title\\u0007"}',
    "right to left": '{"reason": "\u202eevil"}'.encode(),
    "a line separator": '{"reason": "a\u2028b"}'.encode(),
    "an entry twice": b'{"kinds": ["serial", "serial"]}',
    "a prototype": b'{"__proto__": {"renew": true}}',
    "another's consent": b'{"resource_id": "%s"}' % THEIRS.encode(),
    "another's name": b'{"giver": "Olivia"}',
    "the node's name": b'{"node": "AzS-ERCS01"}',
    "an account with a star": b'{"operators": ["group:*"]}',
    "look-alike letters": '{"operators": ["account:\u0430lice"]}'.encode(),
    "a Kelvin sign in a name": '{"\u212ainds": ["serial"]}'.encode(),
    "a dotted capital I in a name": '{"k\u0130nds": ["serial"]}'.encode(),
    "70,000 bytes": b'{"reason": "' + b"x" * 70_000 + b'"}',
}
JSON = "content-type: application/json"


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_that_is_not_taken(cloud: RestCloud, body: bytes):
    answer = await answered(cloud, request(f"{MINE}/enableVmAccess", cloud.token(OWNER), headers=[JSON], body=body))
    assert answer.status == (413 if len(body) > 65_536 else 400)
    assert answer.error["message"].isprintable()


SUBSCRIPTIONS = [
    None,
    1,
    "",
    "{}",
    [OTHER_SUBSCRIPTION],
    OTHER_SUBSCRIPTION + " ",
    OTHER_SUBSCRIPTION + "\x00",
    f"{{{OTHER_SUBSCRIPTION}}}",
]
SUBSCRIPTIONS += [
    OTHER_SUBSCRIPTION.replace("-", ""),
    OTHER_SUBSCRIPTION.replace("8", "\uff18"),
    f"/subscriptions/{OTHER_SUBSCRIPTION}",
]


@pytest.mark.parametrize("subscription", SUBSCRIPTIONS)
@pytest.mark.parametrize("action", ["enableTenantSubscriptionFeature", "disableTenantSubscriptionFeature"])
async def test_a_subscription_that_is_none(cloud: RestCloud, action: str, subscription: object):
    body = json.dumps({"tenantSubscriptionId": subscription}).encode()
    asked = request(f"{FEATURE}/{action}", cloud.token(OPERATOR, "admin"), headers=[JSON], body=body, version="2020-11-01")
    answer = await answered(cloud, asked, admin=True)
    assert (answer.status, answer.error["target"]) == (400, "tenantSubscriptionId")


KINDS = {
    "none": [],
    "text": ["content-type: text/json"],
    "a form": ["content-type: application/x-www-form-urlencoded"],
    "parts": ["content-type: multipart/form-data; boundary=x"],
    "a form as a browser sends it unasked": ["content-type: text/plain"],
    "JSON of another kind": ["content-type: application/json-patch+json"],
    "JSON in a list": ["content-type: text/plain, application/json"],
    "bytes": ["content-type: application/octet-stream"],
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_content_of_another_kind(cloud: RestCloud, kind: list[str]):
    answer = await answered(cloud, request(f"{MINE}/enableVmAccess", cloud.token(OWNER), headers=kind, body=b'{"renew": false}'))
    assert (answer.status, answer.error["code"]) == (415, "UnsupportedMediaType")


async def test_content_that_is_packed_is_not_unpacked(cloud: RestCloud):
    body = gzip.compress(b'{"reason": "' + b"x" * 10_000_000 + b'"}')
    asked = request(f"{MINE}/enableVmAccess", cloud.token(OWNER), headers=[JSON, "content-encoding: gzip"], body=body)
    assert (await answered(cloud, asked)).status in (400, 415)


async def test_a_stranger_sends_no_content(cloud: RestCloud):
    """Who he is comes first: what he sends is not read."""
    asked = request(f"{MINE}/enableVmAccess", None, headers=[JSON, "content-length: 60000", "expect: 100-continue"], length=False)
    assert (await answered(cloud, asked)).status == 401


# framing


def framed(*lines: str | bytes, body: bytes = b"") -> bytes:
    """A POST without a word about its content but these."""
    return request(f"{MINE}/enableVmAccess", "x.y.z", headers=lines, body=body, length=False)


INNER = request(f"{THEIRS}/enableVmAccess", "x.y.z")
FRAMES = {
    "two lengths": framed("content-length: 0", "content-length: 5", body=b"12345"),
    "two lengths in one": framed("content-length: 0, 5", body=b"12345"),
    "a length with a sign": framed("content-length: +5", body=b"12345"),
    "a negative length": framed("content-length: -1"),
    "a hexadecimal length": framed("content-length: 0x5", body=b"12345"),
    "a length in full width": framed("content-length: \uff15".encode(), body=b"12345"),
    "a length of 10^30": framed(f"content-length: {10**30}"),
    "an unknown coding": framed("transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "a misspelt coding": framed("transfer-encoding: xchunked", body=b"0\r\n\r\n"),
    "two codings": framed("transfer-encoding: chunked", "transfer-encoding: identity", body=b"0\r\n\r\n"),
    "a chunk of no size": framed("transfer-encoding: chunked", JSON, body=b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk of a negative size": framed("transfer-encoding: chunked", JSON, body=b"-1\r\n{}\r\n0\r\n\r\n"),
    "a header on two lines": framed("x-a: b", " c: d", "content-length : 5"),
    "a space before the colon": framed("content-length : 0"),
    "a null byte in a header": framed(b"x-a: b\x00c"),
    "a carriage return in a header": framed(b"x-a: b\rcontent-length: 5"),
    "a header without a name": framed(": x"),
    "a header without a colon": framed("x"),
    "no host": request(f"{MINE}/enableVmAccess", None, host=None),
    "two hosts": request(f"{MINE}/enableVmAccess", None, headers=["host: other.example"]),
    "40,000 bytes of headers": framed(*(f"x-{number}: {'x' * 100}" for number in range(400))),
    "a method of no letters": request(f"{MINE}/enableVmAccess", None, method="P(ST"),
    "no version": f"GET {MINE}/vmAccess\r\n\r\n".encode(),
    "another version": f"GET {MINE}/vmAccess HTTP/3.0\r\nhost: x\r\n\r\n".encode(),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "another protocol": b"EHLO localhost\r\n\r\n",
}


@pytest.mark.parametrize("raw", FRAMES.values(), ids=FRAMES)
async def test_what_is_framed_wrongly(cloud: RestCloud, raw: bytes):
    """One refusal, and nothing behind it is read."""
    method = raw.partition(b" ")[0].decode("latin-1")
    found = answers(await said(cloud, raw + INNER), "GET" if method not in ("GET", "POST") else method)
    assert [400 <= answer.status < 500 for answer in found] == [True] * len(found)
    assert len(found) in (1, 2)
    assert all(answer.error["message"] for answer in found)
    assert found[0].status in (400, 401, 431) or len(found) == 1


async def test_a_length_beside_a_coding_hides_no_request(cloud: RestCloud):
    """RFC 9112 6.3: the coding counts, or both are refused; never the length."""
    token = cloud.token(OWNER)
    hidden = request(f"{vm_path('vm10')}/disableVmAccess", token)
    lines = [JSON, "transfer-encoding: chunked", f"content-length: {len(hidden) + 5}"]
    body = b"0\r\n\r\n" + hidden
    found = answers(await said(cloud, request(f"{FEATURE}/enableVmAccess", token, headers=lines, body=body, length=False)))
    assert [answer.status for answer in found] in ([400], [404])


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_no_other_protocol_is_spoken(cloud: RestCloud, protocol: str):
    more = [f"upgrade: {protocol}", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13"]
    raw = request(f"{MINE}/enableVmAccess", cloud.token(OWNER), "GET", [*more, "http2-settings: AAMAAABkAAQAAP__"])
    (answer,) = answers(await said(cloud, raw.replace(b"host:", b"connection: Upgrade\r\nhost:", 1)), "GET")
    assert answer.status == 405


async def test_content_without_an_end_is_not_waited_for(cloud: RestCloud):
    token = cloud.token(OWNER)
    lines = [JSON, "transfer-encoding: chunked"]
    begun = (b"", b"1\r\n{\r\n", b"ffff\r\n")
    asked = [request(f"{MINE}/enableVmAccess", token, headers=lines, body=body, length=False) for body in begun]
    async with asyncio.timeout(SLOW_S):
        for found in await asyncio.gather(*(said(cloud, raw) for raw in asked)):
            (answer,) = answers(found)
            assert (answer.status, answer.error["code"]) == (408, "RequestTimeout")


async def test_content_that_never_stops_is_stopped(cloud: RestCloud):
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    raw = request(
        f"{MINE}/enableVmAccess", cloud.token(OWNER), headers=[JSON, "transfer-encoding: chunked"], body=chunk * 40, length=False
    )
    (answer,) = answers(await said(cloud, raw))
    assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_content_that_comes_in_drops_is_not_waited_for(cloud: RestCloud):
    """Each byte in time, and all of them never."""
    raw = request(f"{MINE}/enableVmAccess", cloud.token(OWNER), headers=[JSON, "content-length: 1000"], length=False)
    reader, writer = await asyncio.open_connection("localhost", cloud.tenant_port, ssl=cloud.trust())
    writer.write(raw)

    async def drip() -> None:
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.5)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(SLOW_S):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    dripping.cancel()
    writer.close()


async def test_a_head_that_comes_in_drops_is_not_waited_for(cloud: RestCloud):
    reader, writer = await asyncio.open_connection("localhost", cloud.tenant_port, ssl=cloud.trust())

    async def drip() -> None:
        for byte in request(f"{MINE}/vmAccess", cloud.token(OWNER), "GET"):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.3)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(SLOW_S):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    dripping.cancel()
    writer.close()
