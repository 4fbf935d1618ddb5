"""provider/rest/openapi.py: the document is served, whole and valid in its references; that it is true, schemathesis shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from provider.rest.admin_api import admin_app
from provider.rest.admission import Keychain
from provider.rest.settings import AdminApi, ApiListener, Identity, Rest
from provider.rest.tenant_api import tenant_app
from provider.store.store import StoreThread
from tests.rest_parts import DIRECTORY, PLATFORM


class _NoStore(StoreThread):
    """A document needs no store."""

    def __init__(self) -> None:
        pass

    async def read(self, look: object) -> object:  # type: ignore[override]
        raise AssertionError(look)


def _listener(name: str) -> ApiListener:
    return ApiListener("127.0.0.1", 1, f"https://{name}", Path("/c"), Path("/k"), (f"https://{name}",), 1, 1)


REST = Rest("local", _listener("tenant"), AdminApi(_listener("admin"), PLATFORM), Identity("https://login", DIRECTORY, ()))
APPS = [build(REST, None, _NoStore(), Keychain(REST.identity)) for build in (tenant_app, admin_app)]  # type: ignore[arg-type]
OPERATIONS = [
    (app, path, method, operation)
    for app in APPS
    for path, methods in app.openapi()["paths"].items()
    for method, operation in methods.items()
]


@pytest.mark.parametrize("app", APPS)
def test_every_route_is_described(app: FastAPI):
    routes = {(route.path, method.lower()) for route in app.routes if isinstance(route, APIRoute) for method in route.methods}
    described = {(path, method) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert routes - described == {("/openapi.json", "get")}


@pytest.mark.parametrize("app", APPS)
def test_every_reference_leads_somewhere(app: FastAPI):
    document = app.openapi()
    for found in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)):
        assert found in document["components"]["schemas"]


@pytest.mark.parametrize(("app", "path", "method", "operation"), OPERATIONS)
def test_parameters_are_those_of_the_path(app: FastAPI, path: str, method: str, operation: dict[str, list[dict[str, str]]]):
    named = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
    assert sorted(named) == sorted(re.findall(r"\{(\w+)\}", path))


@pytest.mark.parametrize(("app", "path", "method", "operation"), OPERATIONS)
def test_a_version_is_always_asked_for(app: FastAPI, path: str, method: str, operation: dict[str, list[dict[str, object]]]):
    assert [one["required"] for one in operation["parameters"] if one["name"] == "api-version"] == [True]


@pytest.mark.parametrize(("app", "path", "method", "operation"), OPERATIONS)
def test_errors_are_arms(app: FastAPI, path: str, method: str, operation: dict[str, dict[str, dict[str, dict[str, object]]]]):
    for status, answer in operation["responses"].items():
        if status != "200":
            assert answer["content"]["application/json"] == {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}


def test_the_documentation_tells_of_every_operation():
    text = (Path(__file__).parent.parent / "docs" / "rest.md").read_text()
    for _, path, method, _ in OPERATIONS:
        last = [part for part in path.split("/") if not part.startswith("{")][-1]
        assert re.search(rf"(?m)^\| {method.upper()} \| .*{last}", text), path


def test_only_the_endpoints_are_public():
    assert {path for _, path, _, operation in OPERATIONS if operation["security"] == []} == {"/metadata/endpoints"}
