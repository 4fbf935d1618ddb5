"""The tenants' endpoint: consent to the console of one's own virtual machine, withdraw it, and see what became of it."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from eva.consent import MAX_OPERATORS, MAX_REASON, MAX_SECONDS, Access, Kind, Principal
from eva.resource_id import BadResourceId, ResourceId
from eva.token import is_jti
from provider.consent.ask import Ask
from provider.consent.registrar import Registrar
from provider.rest.admission import Admission, Keychain, body, subscription_scope
from provider.rest.arm import JSON, VM, ArmError
from provider.rest.front import plain_app
from provider.rest.metadata_api import TENANT_PROVIDERS, Directory, serve_metadata
from provider.rest.openapi import ENABLE_BODY, GROUP, MACHINE, NO_BODY, SUBSCRIPTION, operation, parameter, serve_document
from provider.rest.request_body import Body
from provider.rest.roles import Action
from provider.rest.scope import Scope
from provider.rest.settings import Rest
from provider.rest.shapes import AccessAnswer, DisabledAnswer, EnabledAnswer, ReceiptAnswer, WatchAnswer, answer, secret
from provider.store.records import Mark
from provider.store.store import StoreThread

MACHINE_PATH = (
    "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.Compute/virtualMachines/{vmName}"
)
WATCH_PATH = "/watch/"  # of the tenants' pages (provider.watch), each at its consent's id
MOST_EARLIER = 50
EARLIER = 10

_PLACE = [SUBSCRIPTION, GROUP, MACHINE]
_TOP = parameter(
    "$top", {"type": "integer", "minimum": 1, "maximum": MOST_EARLIER, "default": EARLIER}, "query", "Consents shown."
)
_WHICH = parameter("consentId", {"type": "string", "pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"}, "query", "Absent: the newest.")


_PAGE = parameter(
    "$skipToken", {"type": "string", "pattern": "^[A-Za-z0-9_-]{22}\\.[0-9]{1,15}$"}, "query", "The `next` of the page before."
)


def tenant_app(rest: Rest, registrar: Registrar, store: StoreThread, keychain: Keychain) -> FastAPI:
    app = plain_app(
        "Emergency VM Access: tenants", "Consent to an operator's use of a virtual machine's console, for 8 hours at most."
    )
    admission = Admission(rest.tenant, rest.region, keychain, store)
    serve_metadata(app, Directory(rest, rest.tenant, admission, store, TENANT_PROVIDERS, None))
    # where no page is, the link is absent whatever the nodes have
    pages = None if rest.watch is None else f"{rest.tenant.url}{WATCH_PATH}"
    _serve_consents(app, admission, registrar, pages)
    _serve_records(app, admission, registrar, pages)
    serve_document(app, rest.tenant.url)
    return app


def machine(request: Request) -> ResourceId:
    """The virtual machine that the path names. Raises ArmError."""
    subscription_scope(request)
    found = request.path_params
    try:
        return ResourceId(found["subscriptionId"], found["resourceGroupName"], found["vmName"])
    except BadResourceId as error:
        raise ArmError(400, "InvalidResourceName", f"The resource name is not valid: {error.why}.") from None


def ask_of(raw: bytes, resource_id: ResourceId, giver: str) -> Ask:
    """What a body of enableVmAccess asks for. Raises ArmError."""
    found = Body.parse(raw)
    ask = Ask(
        resource_id=resource_id,
        giver=giver,
        kinds=found.each("kinds", Kind, len(Kind)) if found.has("kinds") else None,
        access=found.choice("access", Access) if found.has("access") else None,
        operators=found.each("operators", Principal.parse, MAX_OPERATORS) if found.has("operators") else None,
        seconds=found.integer("durationInSeconds", 1, MAX_SECONDS) if found.has("durationInSeconds") else MAX_SECONDS,
        reason=found.text("reason", MAX_REASON) if found.has("reason") else "",
        renew=found.truth("renew") if found.has("renew") else False,
        watched=found.truth("onlyWhileWatched") if found.has("onlyWhileWatched") else None,
    )
    found.nothing_else()
    return ask


def _serve_consents(app: FastAPI, admission: Admission, registrar: Registrar, pages: str | None) -> None:
    described = operation(
        "enableVmAccess",
        "Consents, and answers once a node has accepted.",
        VM,
        _PLACE,
        EnabledAnswer,
        body=ENABLE_BODY,
        grants=True,
    )

    @app.post(f"{MACHINE_PATH}/enableVmAccess", **described)
    async def enable(request: Request) -> Response:
        vm = machine(request)
        admitted = await admission.admit(request, VM, Action.ENABLE_ACCESS, Scope.of(vm))
        ask = ask_of(await body(request), vm, admitted.caller.giver)
        if ask.watched and pages is None:
            raise ArmError(409, "WatchingNotPossible", "Tenants cannot watch in this cloud: leave it out.", "onlyWhileWatched")
        enabled = await registrar.enable_access(ask)
        origin = None if pages is None else await registrar.watching.origin(enabled.consent)
        return answer(EnabledAnswer.of(enabled, str(vm), _link(pages, enabled.consent.cid, origin)))

    described = operation(
        "disableVmAccess", "Withdraws consent; the answer says when each node has cut.", VM, _PLACE, DisabledAnswer, body=NO_BODY
    )

    @app.post(f"{MACHINE_PATH}/disableVmAccess", **described)
    async def disable(request: Request) -> Response:
        vm = machine(request)
        await admission.admit(request, VM, Action.DISABLE_ACCESS, Scope.of(vm))
        Body.parse(await body(request)).nothing_else()
        return answer(DisabledAnswer.of(await registrar.disable_access(vm)))

    described = operation(
        "watchVmAccess",
        "A token by which the consent's giver watches at its node.",
        VM,
        _PLACE,
        WatchAnswer,
        body=NO_BODY,
        watches=True,
    )

    @app.post(f"{MACHINE_PATH}/watchVmAccess", **described)
    async def watch(request: Request) -> Response:
        vm = machine(request)
        admitted = await admission.admit(request, VM, Action.WATCH_ACCESS, Scope.of(vm))
        Body.parse(await body(request)).nothing_else()
        return secret(WatchAnswer.of(await registrar.watching.admit_to_machine(vm, admitted.caller.gave)))


def _serve_records(app: FastAPI, admission: Admission, registrar: Registrar, pages: str | None) -> None:
    described = operation(
        "getVmAccess", "What stands, who is or was connected, and what came before.", VM, [*_PLACE, _TOP], AccessAnswer
    )

    @app.get(f"{MACHINE_PATH}/vmAccess", **described)
    async def access(request: Request) -> Response:
        vm = machine(request)
        await admission.admit(request, VM, Action.ACCESS_READ, Scope.of(vm))
        standing = await registrar.standing(vm, _top(request))
        current = standing.current
        link = None if current is None else _link(pages, current.consent_id, current.origin)
        return answer(AccessAnswer.of(standing, str(vm), link))

    described = operation(
        "getVmAccessReceipt",
        "The nodes' signed word, for `eva-provider verify-receipt`.",
        VM,
        [*_PLACE, _WHICH, _PAGE],
        ReceiptAnswer,
    )

    @app.get(f"{MACHINE_PATH}/vmAccess/receipt", **described)
    async def receipt(request: Request) -> Response:
        vm = machine(request)
        await admission.admit(request, VM, Action.RECEIPT_READ, Scope.of(vm))
        return Response(await registrar.receipt(vm, _consent_id(request), _after(request)), media_type=JSON)


def _link(pages: str | None, cid: str, origin: str | None) -> str | None:
    """The page of a consent, where there are pages and its node can be watched at."""
    return None if pages is None or origin is None else f"{pages}{cid}"


def _one(request: Request, name: str) -> str | None:
    found = request.query_params.getlist(name)
    if len(found) > 1:
        raise ArmError(400, "InvalidParameter", f"The query parameter {name} is given more than once.", name)
    return found[0] if found else None


def _top(request: Request) -> int:
    text = _one(request, "$top")
    if text is None:
        return EARLIER
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST_EARLIER):
        raise ArmError(400, "InvalidParameter", f"The query parameter $top is an integer from 1 to {MOST_EARLIER}.", "$top")
    return int(text)


def _consent_id(request: Request) -> str | None:
    text = _one(request, "consentId")
    if text is not None and not is_jti(text):
        raise ArmError(400, "InvalidParameter", "The query parameter consentId is no consent's id.", "consentId")
    return text


def _after(request: Request) -> Mark | None:
    text = _one(request, "$skipToken")
    try:
        return None if text is None else Mark.parse(text)
    except ValueError:
        raise ArmError(400, "InvalidParameter", "The query parameter $skipToken is no page's `next`.", "$skipToken") from None
