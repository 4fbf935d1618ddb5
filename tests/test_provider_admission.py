"""provider/rest/admission.py and front.py, over HTTPS: who is let in, in which order things are asked, and who never is."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner

from lab.certificates import Authority
from provider.command import cli
from tests.provider_parts import SUBSCRIPTION
from tests.rest_parts import (
    ARM_VERSION,
    FEATURE,
    FEATURES,
    NEIGHBOUR,
    OPERATOR,
    OTHER_SUBSCRIPTION,
    OWNER,
    STRANGER,
    RestCloud,
    error,
    rest_cloud,
    vm_path,
)

VM = vm_path("vm1")
SLOW_S = 20.0  # five are promised; less than the half minute of an idle connection
INIT, SIGN = ("issuer", "init"), ("token", "--principal", OWNER)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[RestCloud]:
    with rest_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        assert cloud.run("feature", "enable-subscription", OTHER_SUBSCRIPTION).code == 0
        yield cloud


# without a token


async def test_without_a_token_it_says_where_to_sign_in(cloud: RestCloud):
    answer = await cloud.ask("GET", f"{VM}/vmAccess", None)
    challenge = answer.headers["www-authenticate"]
    assert error(answer) == (401, "AuthenticationFailed")
    assert challenge.startswith('Bearer authorization_uri="https://login.example/00000000-0000-4000-8000-000000000002", error=')
    assert answer.json()["error"]["message"] == "Authentication failed. The 'Authorization' header is missing."


@pytest.mark.parametrize("authorization", ["Basic b3duZXI6", "Bearer", "Bearer x", "Bearer a.b.c", "Bearer x y", "Negotiate abc"])
async def test_what_is_no_token(cloud: RestCloud, authorization: str):
    answer = await cloud.ask("GET", f"{VM}/vmAccess", None, headers={"authorization": authorization})
    assert answer.status_code == 401


async def test_a_token_in_the_url_is_no_token(cloud: RestCloud):
    params = {"api-version": "2020-06-01", "access_token": cloud.token(OWNER)}
    assert (await cloud.ask("GET", f"{VM}/vmAccess", None, params=params)).status_code == 401


async def test_two_tokens_are_none(cloud: RestCloud):
    token = f"Bearer {cloud.token(OWNER)}"
    headers = [("authorization", token), ("authorization", token)]
    reader, writer = await asyncio.open_connection("localhost", cloud.tenant_port, ssl=cloud.trust())
    lines = [f"GET {VM}/vmAccess?api-version=2020-06-01 HTTP/1.1", "host: localhost", *(f"{n}: {v}" for n, v in headers), "", ""]
    writer.write("\r\n".join(lines).encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()


# one endpoint's token is nothing at the other


async def test_an_operators_token_at_the_tenants(cloud: RestCloud):
    headers = {"authorization": f"Bearer {cloud.token(OWNER, 'admin')}"}
    answer = await cloud.ask("GET", f"{VM}/vmAccess", None, headers=headers)
    assert error(answer) == (401, "InvalidAuthenticationTokenAudience")


async def test_a_tenants_token_at_the_operators(cloud: RestCloud):
    headers = {"authorization": f"Bearer {cloud.token(OPERATOR, 'tenant')}"}
    answer = await cloud.ask("GET", FEATURE, None, admin=True, headers=headers)
    assert error(answer) == (401, "InvalidAuthenticationTokenAudience")


async def test_a_token_signed_with_another_key(cloud: RestCloud, tmp_path: Path):
    config = tmp_path / "provider.yaml"
    text = cloud.place.config.read_text()
    config.write_text(text.replace(f"{cloud.place.directory}/issuer.pem", f"{tmp_path}/k").replace("/jwks.json", "/other.json"))
    made, signed = (CliRunner().invoke(cli, ["--config", str(config), *words]) for words in (INIT, SIGN))
    assert (made.exit_code, signed.exit_code) == (0, 0)
    answer = await cloud.ask("GET", f"{VM}/vmAccess", None, headers={"authorization": f"Bearer {signed.stdout.strip()}"})
    assert error(answer) == (401, "InvalidAuthenticationToken")


async def test_a_group_has_its_members_rights(cloud: RestCloud):
    cloud.assign("group:helpers", "Reader", f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1")
    token = cloud.token("Gwen", "tenant", "--group", "helpers")
    answer = await cloud.ask("GET", f"{VM}/vmAccess", None, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200


async def test_a_role_taken_back_counts_from_the_next_request(cloud: RestCloud):
    cloud.assign("Theo", "Reader", VM)
    before = await cloud.ask("GET", f"{VM}/vmAccess", "Theo")
    cloud.run("roles", "remove", "--principal", "Theo", "--role", "reader", "--scope", VM.upper())
    after = await cloud.ask("GET", f"{VM}/vmAccess", "Theo")
    assert (before.status_code, after.status_code) == (200, 403)


async def test_an_operator_can_consent_for_nobody(cloud: RestCloud):
    assert error(await cloud.ask("POST", f"{VM}/enableVmAccess", OPERATOR)) == (403, "AuthorizationFailed")


async def test_an_owner_cannot_enable_his_own_subscription(cloud: RestCloud):
    answer = await cloud.operate("enableTenantSubscriptionFeature", {"tenantSubscriptionId": SUBSCRIPTION}, OWNER)
    assert error(answer) == (403, "AuthorizationFailed")


# api-version, in ARM's order: it is asked for before the token


@pytest.mark.parametrize("path", [f"{VM}/vmAccess", "/subscriptions", "/metadata/endpoints"])
async def test_without_a_version(cloud: RestCloud, path: str):
    assert error(await cloud.ask("GET", path, None, params={})) == (400, "MissingApiVersionParameter")


async def test_with_another_version(cloud: RestCloud):
    answer = await cloud.ask("GET", f"{VM}/vmAccess", params={"api-version": "2020-11-01"})
    assert error(answer) == (400, "NoRegisteredProviderFound")
    assert "supported api-versions are '2020-06-01'" in answer.json()["error"]["message"]


# cross-tenant: one's own rights, another's machine


THEIRS = vm_path("vm1", OTHER_SUBSCRIPTION)
CROSSINGS = [
    THEIRS,
    THEIRS.upper(),
    THEIRS.replace("subscriptions", "SubScriptions"),
    THEIRS.replace(OTHER_SUBSCRIPTION, OTHER_SUBSCRIPTION.upper()),
    THEIRS.replace("8a3f", "%38a3f"),
    THEIRS.replace("vm1", "%76%6d1"),
    THEIRS.replace("/rg1/", "/%72g1/"),
    f"/subscriptions/{SUBSCRIPTION}/../{OTHER_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION}/%2e%2e/{OTHER_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION}%2F..%2F{OTHER_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION}%252F..%252F{OTHER_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/..%2F..%2F{OTHER_SUBSCRIPTION}/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION}/{THEIRS}",
    f"{VM}/..{THEIRS}",
    f"/{THEIRS}",
    THEIRS.replace("/resourceGroups", "//resourceGroups"),
    THEIRS.replace("/resourceGroups", "/./resourceGroups"),
    f"/subscriptions/{SUBSCRIPTION},{OTHER_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION};{OTHER_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION}%00{OTHER_SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION}%20/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    f"/subscriptions/{SUBSCRIPTION.replace('7', '%EF%BC%97')}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1",
    VM.replace("vm1", "v%D0%BC1"),  # Cyrillic em
    VM.replace("subscriptions", "subscr%C4%B1ptions"),  # dotless i
    VM.replace("subscriptions", "%C5%BFubscriptions"),  # long s
    VM.replace("Microsoft.Compute", "Microsoft.Compute%E2%80%8B"),  # zero width space
    VM.replace("vm1", "vm1%E2%80%AE"),  # right-to-left override
    VM.replace("vm1", "vm1%0d%0aX-Y:z"),
    VM.replace("/", "%5C"),
]


@pytest.mark.parametrize("path", CROSSINGS)
async def test_nobody_crosses_into_another_tenant(cloud: RestCloud, path: str):
    """The other subscription has the feature, and a node that would accept: only the door is shut."""
    async with cloud.serving() as node:
        answers = [
            await cloud.ask("POST", f"{path}/enableVmAccess"),
            await cloud.ask("POST", f"{path}/disableVmAccess"),
            await cloud.ask("GET", f"{path}/vmAccess"),
            await cloud.ask("GET", f"{path}/vmAccess/receipt"),
        ]
    assert {error(answer)[0] for answer in answers} <= {400, 403, 404}
    assert node.consents == []


async def test_the_doors_owner_passes(cloud: RestCloud):
    """So that the table above shows the door, and not something else that is shut."""
    async with cloud.serving() as node:
        answers = [await cloud.ask("POST", f"{path}/enableVmAccess", NEIGHBOUR) for path in CROSSINGS[:7]]
    assert {answer.status_code for answer in answers} == {200}
    assert {str(one.resource_id).lower() for one in node.consents} == {THEIRS.lower()}


# paths and methods


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "GET", "OPTIONS", "HEAD"])
async def test_another_method(cloud: RestCloud, method: str):
    answer = await cloud.ask(method, f"{VM}/enableVmAccess")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or error(answer)[1] == "MethodNotAllowed"


NOTHING = [
    ("/", "NotFound"),
    ("/favicon.ico", "NotFound"),
    (f"{VM}/start", "InvalidResourceType"),
    (f"{VM}/enableVmAccess/x", "InvalidResourceType"),
    (f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Network", "InvalidResourceNamespace"),
    (f"{FEATURE}/enableTenantSubscriptionFeature", "InvalidResourceType"),  # the operators' path at the tenants' door
]


@pytest.mark.parametrize(("path", "code"), NOTHING)
async def test_what_is_not_there(cloud: RestCloud, path: str, code: str):
    assert error(await cloud.ask("GET", path, params=ARM_VERSION)) == (404, code)


async def test_a_slash_at_the_end_leads_nowhere(cloud: RestCloud):
    answer = await cloud.ask("GET", f"{VM}/vmAccess/")
    assert error(answer) == (400, "InvalidRequestUri")


# ids


async def test_each_answer_has_its_ids(cloud: RestCloud):
    headers = {"x-ms-correlation-request-id": "c-1", "x-ms-client-request-id": "mine", "x-ms-return-client-request-id": "true"}
    answers = [
        await cloud.ask("GET", f"{VM}/vmAccess", headers=headers),
        await cloud.ask("GET", f"{VM}/vmAccess", None, headers=headers),
        await cloud.ask("GET", "//", headers=headers),
    ]
    assert {answer.headers["x-ms-correlation-request-id"] for answer in answers} == {"c-1"}
    assert {answer.headers["x-ms-client-request-id"] for answer in answers} == {"mine"}
    assert len({UUID(answer.headers["x-ms-request-id"]) for answer in answers}) == 3


async def test_the_log_names_the_request_and_no_token(cloud: RestCloud):
    headers = {"x-ms-correlation-request-id": "look-for-me"}
    await cloud.ask("GET", f"{VM}/vmAccess", headers=headers)
    text = await cloud.logged()
    (line,) = [line for line in text.splitlines() if "look-for-me" in line]
    assert f"GET {VM}/vmAccess 200 " in line
    assert f"by {OWNER} " in line
    assert cloud.token(OWNER).split(".")[2] not in text


async def test_a_path_begins_no_line_of_the_log(cloud: RestCloud):
    await cloud.ask("GET", "/subscriptions/x%0aINFO%20forged")
    lines = (await cloud.logged()).splitlines()
    assert any("x%0aINFO%20forged" in line for line in lines)
    assert not any(line.startswith("INFO forged") for line in lines)


async def test_requests_are_counted_by_endpoint_and_class(cloud: RestCloud):
    def counted() -> list[float]:
        kinds = [("tenant", "2xx"), ("tenant", "4xx"), ("admin", "2xx"), ("admin", "4xx")]
        return [cloud.metric(f'eva_provider_requests_total{{endpoint="{at}",status="{status}"}}') for at, status in kinds]

    before, timed = counted(), cloud.metric('eva_provider_request_seconds_count{endpoint="tenant"}')
    await cloud.ask("GET", f"{VM}/vmAccess")
    await cloud.ask("GET", f"{VM}/vmAccess", None)
    await cloud.ask("GET", "//")
    await cloud.ask("GET", FEATURE, OPERATOR, admin=True)
    await cloud.ask("GET", FEATURE, OWNER, admin=True)
    assert [after - first for after, first in zip(counted(), before, strict=True)] == [1, 2, 1, 1]
    assert cloud.metric('eva_provider_request_seconds_count{endpoint="tenant"}') == timed + 3


# rates


async def test_what_is_left_is_said(cloud: RestCloud):
    began = time.monotonic()
    answers = [await cloud.ask("GET", f"{VM}/vmAccess") for _ in range(2)]
    filled = math.ceil((time.monotonic() - began) * 12_000 / 3600)
    reads = [int(answer.headers["x-ms-ratelimit-remaining-subscription-reads"]) for answer in answers]
    write = await cloud.ask("POST", f"{VM}/disableVmAccess")
    assert 11_000 < reads[0] < 12_000
    assert reads[0] - 1 <= reads[1] <= reads[0] - 1 + filled
    assert int(write.headers["x-ms-ratelimit-remaining-subscription-writes"]) < 1_200


@pytest.fixture(scope="module")
def sparing(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[RestCloud]:
    """One that has a write in half an hour."""
    with rest_cloud(tmp_path_factory.mktemp("sparing"), certificates, {"tenant_api": ", writes_per_hour: 2"}) as cloud:
        yield cloud


async def test_made_up_subscriptions_share_one_bucket(sparing: RestCloud):
    paths = [vm_path("vm1", f"{n:08x}-0000-4000-8000-000000000000") for n in (1, 2)]
    answers = [await sparing.ask("POST", f"{path}/disableVmAccess", STRANGER) for path in paths]
    assert [answer.headers["x-ms-ratelimit-remaining-tenant-writes"] for answer in answers] == ["1", "0"]


async def test_too_many_writes(sparing: RestCloud):
    answers = [await sparing.ask("POST", f"{VM}/disableVmAccess") for _ in range(3)]
    read = await sparing.ask("GET", f"{VM}/vmAccess")
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert (error(answers[2]), read.status_code) == ((429, "SubscriptionRequestsThrottled"), 200)
    assert 1700 < int(answers[2].headers["retry-after"]) <= 1800
    assert answers[2].headers["x-ms-ratelimit-remaining-subscription-writes"] == "0"


# peers that take their time


async def test_peers_that_take_their_time_are_hung_up_on(cloud: RestCloud):
    lines = [f"POST {VM}/disableVmAccess?api-version=2020-06-01 HTTP/1.1", "host: localhost", "content-length: 9"]
    lines += [f"authorization: Bearer {cloud.token(OWNER)}", "content-type: application/json", "", "{"]
    request = f"GET {VM}/vmAccess HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()  # answered at once: no api-version
    heads = [b"", b"GET /subs", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ", request + b"GET /"]
    async with asyncio.timeout(SLOW_S):
        shaken, posted, *others = await asyncio.gather(
            _said(cloud, b"", tls=False), _said(cloud, "\r\n".join(lines).encode()), *(_said(cloud, head) for head in heads)
        )
    assert (shaken, others[:3]) == (b"", [b"", b"", b""])
    assert (posted[:13], others[3][:13]) == (b"HTTP/1.1 408 ", b"HTTP/1.1 400 ")


async def _said(cloud: RestCloud, sent: bytes, *, tls: bool = True) -> bytes:
    """All that the server says until it hangs up."""
    reader, writer = await asyncio.open_connection("localhost", cloud.tenant_port, ssl=cloud.trust() if tls else None)
    writer.write(sent)
    found = bytearray()
    try:
        while more := await reader.read(4096):
            found += more
    except (ConnectionError, ssl.SSLError):  # a connection that was aborted, and not closed
        pass
    writer.close()
    return bytes(found)


async def test_what_is_no_http(cloud: RestCloud):
    reader, writer = await asyncio.open_connection("localhost", cloud.tenant_port, ssl=cloud.trust())
    writer.write(b"HELO example\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 400 "), json.loads(body)["error"]["code"]) == (True, "BadRequest")
    writer.close()


async def test_plain_http_is_not_served(cloud: RestCloud):
    with socket.create_connection(("localhost", cloud.tenant_port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        plain.settimeout(SLOW_S)
        assert b"HTTP/1.1" not in plain.recv(1024)


@pytest.mark.parametrize("path", [FEATURES, FEATURE])
async def test_a_tenant_does_not_see_who_may_consent(cloud: RestCloud, path: str):
    assert error(await cloud.ask("GET", path, OWNER, admin=True)) == (403, "AuthorizationFailed")


# what the provider cannot do just now


async def test_an_issuer_whose_keys_cannot_be_read(tmp_path: Path, certificates: Authority):
    with rest_cloud(tmp_path, certificates) as cloud:
        (tmp_path / "jwks.json").rename(tmp_path / "away.json")
        answer = await cloud.ask("GET", f"{VM}/vmAccess")
    assert (error(answer), answer.headers["retry-after"]) == ((503, "ServiceUnavailable"), "10")


async def test_a_store_that_does_not_answer(tmp_path: Path, certificates: Authority):
    with rest_cloud(tmp_path, certificates) as cloud, sqlite3.connect(cloud.place.store, isolation_level=None) as other:
        async with cloud.serving() as node:
            other.execute("BEGIN EXCLUSIVE")
            answer = await cloud.ask("POST", f"{VM}/enableVmAccess")
            other.execute("ROLLBACK")
            await node.ask()  # what it asked meanwhile may have gone unanswered
            again = await cloud.ask("POST", f"{VM}/enableVmAccess")
    assert (error(answer), answer.headers["retry-after"], again.status_code) == ((503, "ServiceUnavailable"), "10", 200)
