"""The OpenAPI document of an endpoint: what each operation takes and answers, said beside its handler and held by tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi

from eva.consent import MAX_OPERATORS, MAX_REASON, MAX_SECONDS, Access, Kind
from provider.consent.features import FEATURE, GlobalState
from provider.rest.arm import Versions
from provider.rest.shapes import ErrorAnswer

Document = dict[str, Any]  # JSON whose only reader is OpenAPI's

GUID = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"
EXAMPLE = "7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"
_GUID: Document = {"type": "string", "pattern": GUID}
_OPERATOR: Document = {"type": "string", "pattern": "^(account|group):[A-Za-z0-9._@+-]{1,64}$"}
_NAMES = "Names of properties compare without regard to case."

# What any request may be answered with; the reasons in ARM's codes.
_ALWAYS = {
    400: "The request is not understood: `code` and `target` say what of it.",
    401: "No valid token: WWW-Authenticate says where to sign in.",
    403: "No role of the caller's permits this there.",
    404: "Nothing has this path, or the resource is not there.",
    429: "Too many requests: Retry-After says when to come again.",
    503: "The store, the issuer's keys or every node cannot be reached now: Retry-After says when to come again.",
}
_WITH_BODY = {
    408: "The request's content did not come in time.",
    413: "The request's content is longer than 64 KiB.",
    415: "The request's content is not application/json.",
}
_WATCHING = {
    409: "Tenants cannot watch at the node that serves the consent.",
}
_GRANTING = {
    409: "The feature is not enabled, a consent with other scopes is in force, a node refuses, or nobody could watch.",
    504: "No node has answered in time; nothing is left half granted.",
}


def _list_of(item: Document, most: int) -> Document:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": most, "uniqueItems": True}


def _or_null(schema: Document) -> Document:
    return {"anyOf": [schema, {"type": "null"}]}


def _body(properties: Document, required: Sequence[str] = (), example: Document | None = None) -> Document:
    schema: Document = {"type": "object", "additionalProperties": False, "description": _NAMES, "properties": properties}
    if required:
        schema["required"] = list(required)
    content: Document = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"required": bool(required), "content": {"application/json": content}}


ENABLE_BODY = _body(
    {
        "kinds": _or_null(_list_of({"type": "string", "enum": [str(kind) for kind in Kind]}, len(Kind))),
        "access": _or_null({"type": "string", "enum": [str(access) for access in Access]}),
        "operators": _or_null(_list_of(_OPERATOR, MAX_OPERATORS)),
        "durationInSeconds": _or_null({"type": "integer", "minimum": 1, "maximum": MAX_SECONDS, "default": MAX_SECONDS}),
        "reason": _or_null({"type": "string", "maxLength": MAX_REASON, "pattern": "^[ -~]*$"}),
        "renew": _or_null({"type": "boolean", "default": False}),
        "onlyWhileWatched": _or_null({"type": "boolean"}),
    },
    example={"kinds": ["serial"], "access": "keyboard", "durationInSeconds": 3600, "reason": "ssh does not answer"},
)
NO_BODY = _body({})
SUBSCRIPTION_BODY = _body({"tenantSubscriptionId": _GUID}, ["tenantSubscriptionId"], {"tenantSubscriptionId": EXAMPLE})
GLOBAL_BODY = _body(
    {"globalFeatureState": {"type": "string", "enum": [str(state) for state in GlobalState]}}, ["globalFeatureState"]
)


def parameter(name: str, schema: Document, where: str = "path", description: str = "", example: str = "") -> Document:
    found = {"name": name, "in": where, "required": where == "path", "schema": schema, "description": description}
    return found | ({"example": example} if example else {})


_GROUP: Document = {"type": "string", "pattern": "^[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]$"}
_MACHINE: Document = {"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?$"}
SUBSCRIPTION = parameter("subscriptionId", _GUID, example=EXAMPLE)
GROUP = parameter("resourceGroupName", _GROUP, example="rg1")
MACHINE = parameter("vmName", _MACHINE, example="vm1")
FEATURE_NAME = parameter("featureName", {"type": "string", "enum": [FEATURE]})


def one_of(name: str, *values: str) -> Document:
    """A path parameter of which this cloud has these only."""
    return parameter(name, {"type": "string", "enum": list(values)})


def operation(
    name: str,
    summary: str,
    versions: Versions,
    parameters: Sequence[Document],
    shape: Any,
    *,
    body: Document | None = None,
    grants: bool = False,
    watches: bool = False,
    public: bool = False,
) -> Document:
    """The arguments of FastAPI's route decorators. `shape`: a model of shapes, None for an answer without content."""
    errors = {status: why for status, why in _ALWAYS.items() if not (public and status in (401, 403, 429))}
    errors |= (_WITH_BODY if body is not None else {}) | (_GRANTING if grants else {}) | (_WATCHING if watches else {})
    answers: dict[int | str, Document] = {status: {"model": ErrorAnswer, "description": why} for status, why in errors.items()}
    answers[200] = {"description": "Done."} if shape is None else {"model": shape, "description": "Done."}
    version = {"type": "string", "enum": list(versions.supported)}
    extra: Document = {
        "parameters": [*parameters, {"name": "api-version", "in": "query", "required": True, "schema": version}],
        "security": [] if public else [{"bearer": []}],
    }
    if body is not None:
        extra["requestBody"] = body
    return {
        "name": name,
        "operation_id": name,
        "summary": summary,
        "responses": answers,
        "response_class": Response,
        "response_model": None,
        "openapi_extra": extra,
    }


def serve_document(app: FastAPI, url: str) -> None:
    """`/openapi.json`, without a token: it says nothing of anybody."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    document["servers"] = [{"url": url}]
    scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    document.setdefault("components", {})["securitySchemes"] = {"bearer": scheme}
    for methods in document["paths"].values():
        for described in methods.values():
            for status, found in described["responses"].items():
                found["headers"] = _headers(status)
    app.openapi_schema = document

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Document:
        return document


def _headers(status: str) -> Document:
    names = ["x-ms-request-id", "x-ms-correlation-request-id"]
    names += {"401": ["WWW-Authenticate"], "429": ["Retry-After"], "503": ["Retry-After"]}.get(status, [])
    return {name: {"schema": {"type": "string"}, "required": True} for name in names}
