"""The UNIX socket by which the commands at this host reach the daemon."""

from __future__ import annotations

import socket
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from eva.consent import MAX_REASON, Access, Kind, Principal
from eva.resource_id import BadResourceId, ResourceId, is_guid
from provider.consent.ask import Ask
from provider.consent.authority import Refusal, Refused
from provider.consent.features import GlobalState
from provider.consent.letters import Cut
from provider.consent.registrar import Registrar
from provider.service import Server, bare_app, config_of
from provider.store.store import StoreDown

STATUS = {
    Refusal.UNKNOWN_NODE: 404,
    Refusal.UNKNOWN_VM: 404,
    Refusal.NO_CONSENT: 404,
    Refusal.NO_NODE: 503,
    Refusal.TOO_SOON: 429,
    Refusal.TOO_LONG: 400,
    Refusal.TOO_BIG: 400,
    Refusal.FEATURE_OFF: 409,
    Refusal.CONFLICT: 409,
    Refusal.NODE_REFUSED: 409,
    Refusal.NODE_SILENT: 504,
    Refusal.NOT_WATCHABLE: 409,
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Grant(_Body):
    resource_id: str
    giver: str
    operators: list[str]
    kinds: list[str]
    access: str
    seconds: int
    reason: str
    node: str | None
    watched: bool


class _Which(_Body):
    resource_id: str | None = None
    consent_id: str | None = None
    everywhere: bool = False


class _Subscription(_Body):
    subscription: str


class _State(_Body):
    state: str


class _Node(_Body):
    name: str


def _text(text: str, longest: int, name: str) -> str:
    if len(text) > longest or not text.isprintable():
        raise ValueError(f"{name} is no text of at most {longest} printable characters")
    return text


def _asked(body: _Grant) -> Ask:
    """Raises ValueError, BadResourceId among them."""
    if not body.giver:
        raise ValueError("giver is empty")
    if not 0 < len(body.operators) <= 16 or not body.kinds:
        raise ValueError("operators are 1 to 16, kinds at least one")
    return Ask(
        resource_id=ResourceId.parse(body.resource_id),
        giver=_text(body.giver, 128, "giver"),
        operators=frozenset(map(Principal.parse, body.operators)),
        kinds=frozenset(map(Kind, body.kinds)),
        access=Access(body.access),
        seconds=body.seconds,
        reason=_text(body.reason, MAX_REASON, "reason"),
        node=body.node,
        watched=body.watched,
    )


def cut_json(cut: Cut) -> dict[str, str | int | None]:
    notice = cut.notice
    return {
        "node": notice.node,
        "seq": notice.seq,
        "confirmed_at_ms": notice.confirmed_ms,
        "cut_us": notice.cut_us,
        "sessions": notice.sessions,
        "at_latest_ms": cut.at_latest_ms,
    }


def _cuts(cuts: list[Cut]) -> Response:
    return JSONResponse({"cuts": [cut_json(cut) for cut in cuts]})


def admin_server(registrar: Registrar) -> Server:
    """For the commands on this host; who may open the socket's file may do all of it."""
    app = bare_app()
    _tell_errors(app)

    @app.post("/grant")
    async def grant(body: _Grant) -> Response:
        granted = await registrar.grant(_asked(body))
        consent = granted.consent
        return JSONResponse(
            {
                "consent_id": consent.cid,
                "node": consent.node,
                "resource_id": str(consent.resource_id),
                "issued_at": consent.issued_at,
                "expires_at": consent.expires_at,
                "vm_uuid": granted.uuid,
            }
        )

    @app.post("/revoke")
    async def revoke(body: _Which) -> Response:
        if (body.resource_id is None) == (body.consent_id is None):
            raise ValueError("exactly one of resource_id and consent_id")
        if body.resource_id is not None:
            resource_id = ResourceId.parse(body.resource_id)
            revoke_all = registrar.revoke_everywhere if body.everywhere else registrar.disable_access
            return _cuts(await revoke_all(resource_id))
        return _cuts(await registrar.revoke_consent(body.consent_id or ""))

    @app.post("/feature/disable-subscription")
    async def disable_subscription(body: _Subscription) -> Response:
        if not is_guid(body.subscription):
            raise ValueError("the subscription is no GUID")
        return _cuts(await registrar.disable_subscription(body.subscription))

    @app.post("/feature/set-state")
    async def set_state(body: _State) -> Response:
        return _cuts(await registrar.set_global_state(GlobalState(body.state)))

    @app.post("/nodes/repair")
    async def repair(body: _Node) -> Response:
        ahead = await registrar.repair(body.name)
        return JSONResponse({"node": ahead.node, "seq": ahead.seq, "receipts": ahead.receipts})

    return Server(config_of(app))


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        body = {"error": str(error.refusal), "detail": error.detail}
        return JSONResponse(body, status_code=STATUS.get(error.refusal, 400))

    @app.exception_handler(StoreDown)
    async def down(_: Request, error: StoreDown) -> Response:
        return JSONResponse({"error": "store", "detail": f"the store does not answer: {error.why}"}, status_code=503)

    @app.exception_handler(BadResourceId)
    @app.exception_handler(ValueError)
    async def bad(_: Request, error: ValueError) -> Response:
        return JSONResponse({"error": "bad-request", "detail": str(error)}, status_code=400)


def unix_socket(path: Path) -> socket.socket:
    """A socket that only its owner can open; one left by a daemon that died is replaced. Raises OSError."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
    except OSError:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not path.is_socket() or probe.connect_ex(str(path)) == 0:
                listening.close()
                raise
        path.unlink()
        listening.bind(str(path))
    # nobody can connect before listen(), so there is no moment in which a wider mode counts
    path.chmod(0o600)
    listening.listen()
    return listening
