"""What a node writes down or tells its monitor holds no secret, and nothing of a console (invariant 9)."""

import secrets

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from eva.control import Method, Refused
from eva.members import Json, Members
from lab.cloud import OPERATOR, PASSWORD, Cloud
from lab.libvirt_host import Guest
from tests.system_operator import NODE, Operator, signed_in
from tests.system_parts import consented, end_of, revoked, well


def written(cloud: Cloud) -> bytes:
    """All that the node has on disk, its key apart, and its log."""
    node = cloud.nodes[NODE]
    files = [path for path in node.directory.rglob("*") if path.is_file() and path.suffix not in (".pem", ".key", ".yaml")]
    assert {"broker.log", "audit.jsonl", "state.db"} <= {path.name for path in files}
    return b"".join(path.read_bytes() for path in files)


async def test_no_secret_and_nothing_typed_or_shown_is_in_log_audit_state_or_metrics(
    cloud: Cloud, shared_guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, shown, wrong = (f"{word}{secrets.token_hex(8)}" for word in ("typed", "shown", "wrong"))
    kept: list[str] = [PASSWORD, typed, shown, wrong]
    ask = Operator.ask

    async def asked(operator: Operator, method: Method, **params: Json) -> Members:
        answer = await ask(operator, method, **params)
        if method is Method.SIGN_IN:
            kept.append(answer.text("again"))
        return answer

    monkeypatch.setattr(Operator, "ask", asked)
    await well(cloud)
    grant = await consented(cloud, shared_guest)
    async with signed_in(cloud) as alice:
        console = await alice.console(grant.resource_id)
        await console.type(f"echo {shown[:5]}''{shown[5:]} {typed}\n".encode())
        await console.shows(shown.encode())
        unused = await alice.open(grant.resource_id, "graphics")
        kept += [console.opened.ticket, unused.ticket]
        with pytest.raises(InvalidStatus):
            await alice.attach(console.opened)  # its ticket is used up
        with pytest.raises(Refused):
            async with signed_in(cloud, "nobody"):
                pass
        with pytest.raises(Refused):
            await alice.ask(Method.SIGN_IN, account=OPERATOR, password=wrong)
        await revoked(cloud, grant)
        await end_of(cloud.nodes[NODE], console.opened)
    async with httpx.AsyncClient() as client:
        told = (await client.get(f"http://127.0.0.1:{cloud.nodes[NODE].metrics_port}/metrics")).content
    assert len(kept) == 7
    assert [one for one in kept if one.encode() in written(cloud) + told] == []
    assert not any(name.encode() in told for name in (OPERATOR, shared_guest.name, shared_guest.uuid, "tenant1"))
