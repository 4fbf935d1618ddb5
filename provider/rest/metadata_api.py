"""What Azure's clients ask before anything else, alike at both endpoints: endpoints, tenants, subscriptions, providers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fastapi import FastAPI, Request, Response

from provider.consent.features import FeatureBooks
from provider.rest.admission import Admission, Admitted, subscription_scope, visible_subscriptions
from provider.rest.arm import (
    ADMIN_VERSIONS,
    ARM,
    COMPUTE,
    COMPUTE_ADMIN,
    FEATURE_TYPE,
    METADATA,
    OLD_METADATA_VERSIONS,
    VM_TYPE,
    VM_VERSIONS,
    api_version,
    nothing_at,
    subscription_not_found,
)
from provider.rest.cloud_shapes import (
    Authentication,
    MetadataAnswer,
    OldAuthentication,
    OldMetadataAnswer,
    ProviderAnswer,
    ProvidersAnswer,
    ResourceTypeShape,
    SubscriptionAnswer,
    SubscriptionsAnswer,
    TenantAnswer,
    TenantsAnswer,
)
from provider.rest.openapi import SUBSCRIPTION, one_of, operation
from provider.rest.roles import Action, RoleBooks, permitted
from provider.rest.scope import CLOUD, Scope
from provider.rest.settings import ApiListener, Rest
from provider.rest.shapes import answer
from provider.store.store import StoreThread

Providers: TypeAlias = dict[str, dict[str, tuple[str, ...]]]

TENANT_PROVIDERS: Providers = {COMPUTE: {VM_TYPE: VM_VERSIONS}}
# `az resource invoke-action` asks for the versions of the first part of a type
ADMIN_PROVIDERS: Providers = {COMPUTE_ADMIN: {"locations": ADMIN_VERSIONS, FEATURE_TYPE: ADMIN_VERSIONS}}


@dataclass(frozen=True, slots=True)
class Directory:
    """What an endpoint answers from. `own`: the one subscription of the admin endpoint, None at the tenants'."""

    rest: Rest
    listener: ApiListener
    admission: Admission
    store: StoreThread
    providers: Providers
    own: str | None

    async def subscriptions(self, admitted: Admitted) -> list[str]:
        if self.own is not None:
            return [self.own] if permitted(admitted.assignments, Action.FEATURES_READ, CLOUD) else []
        every = await self.store.read(
            lambda connection: (
                RoleBooks(connection).subscriptions()
                | {one.subscription for one in FeatureBooks(connection).feature().subscriptions}
            )
        )
        return visible_subscriptions(admitted.assignments, every)

    async def admit(self, request: Request, action: Action) -> Scope:
        """The subscription that the path names, if the caller may know of it. Raises ArmError, StoreDown."""
        scope = subscription_scope(request)
        if self.own is None:
            await self.admission.admit_within(request, ARM, action, scope)
            return scope
        await self.admission.admit(request, ARM, Action.FEATURES_READ, CLOUD)
        if scope != Scope.subscription(self.own):
            raise subscription_not_found(request.path_params["subscriptionId"])
        return scope

    def subscription(self, guid: str) -> SubscriptionAnswer:
        name = "EVA platform" if self.own is not None else guid
        tenant = self.rest.identity.tenant
        return SubscriptionAnswer(id=f"/subscriptions/{guid}", subscription_id=guid, tenant_id=tenant, display_name=name)

    def provider(self, namespace: str, prefix: str) -> ProviderAnswer:
        types = self.providers[namespace]
        locations = [self.rest.region]
        return ProviderAnswer(
            id=f"{prefix}/providers/{namespace}",
            namespace=namespace,
            resource_types=[
                ResourceTypeShape(resource_type=name, locations=locations, api_versions=list(versions))
                for name, versions in types.items()
            ],
        )

    def named(self, request: Request) -> str:
        """The namespace that the path names, in our spelling. Raises ArmError."""
        asked = request.path_params["namespace"].lower()
        for namespace in self.providers:
            if namespace.lower() == asked:
                return namespace
        raise nothing_at(request.scope["path"] + "/")


def serve_metadata(app: FastAPI, directory: Directory) -> None:
    _serve_endpoints(app, directory)
    _serve_subscriptions(app, directory)
    _serve_providers(app, directory)


def _serve_endpoints(app: FastAPI, directory: Directory) -> None:
    identity, listener = directory.rest.identity, directory.listener
    old = OldMetadataAnswer(
        gallery_endpoint=listener.url,
        graph_endpoint=identity.login_endpoint,
        portal_endpoint=listener.url,
        authentication=OldAuthentication(login_endpoint=identity.login_endpoint, audiences=list(listener.audiences)),
    )
    new = MetadataAnswer(
        name=f"EVA-{directory.rest.region}",
        resource_manager=listener.url,
        portal=listener.url,
        gallery=listener.url,
        graph=identity.login_endpoint,
        graph_audience=identity.login_endpoint,
        authentication=Authentication(
            login_endpoint=identity.login_endpoint,
            audiences=list(listener.audiences),
            tenant=identity.tenant,
            identity_provider="ADFS" if identity.login_endpoint.endswith("/adfs") else "AAD",
        ),
        suffixes={},
    )

    described = operation(
        "getEndpoints", "Where to sign in, and for which audience.", METADATA, [], MetadataAnswer | OldMetadataAnswer, public=True
    )

    @app.get("/metadata/endpoints", **described)
    async def endpoints(request: Request) -> Response:
        version = api_version(request.query_params.multi_items())
        METADATA.check(version, directory.rest.region)
        return answer(old if version in OLD_METADATA_VERSIONS else new)


def _serve_subscriptions(app: FastAPI, directory: Directory) -> None:
    @app.get("/subscriptions", **operation("listSubscriptions", "The caller's subscriptions.", ARM, [], SubscriptionsAnswer))
    async def subscriptions(request: Request) -> Response:
        admitted = await directory.admission.admit_anywhere(request, ARM)
        return answer(SubscriptionsAnswer(value=[directory.subscription(one) for one in await directory.subscriptions(admitted)]))

    described = operation("getSubscription", "One of them.", ARM, [SUBSCRIPTION], SubscriptionAnswer)

    @app.get("/subscriptions/{subscriptionId}", **described)
    async def subscription(request: Request) -> Response:
        await directory.admit(request, Action.SUBSCRIPTION_READ)
        return answer(directory.subscription(request.path_params["subscriptionId"]))

    @app.get("/tenants", **operation("listTenants", "The one directory.", ARM, [], TenantsAnswer))
    async def tenants(request: Request) -> Response:
        await directory.admission.admit_anywhere(request, ARM)
        tenant = directory.rest.identity.tenant
        one = TenantAnswer(id=f"/tenants/{tenant}", tenant_id=tenant, display_name=f"EVA-{directory.rest.region}")
        return answer(TenantsAnswer(value=[one]))


def _serve_providers(app: FastAPI, directory: Directory) -> None:
    namespace = one_of("namespace", *directory.providers)

    @app.get("/providers", **operation("listTenantProviders", "What can be asked for here.", ARM, [], ProvidersAnswer))
    async def all_of_them(request: Request) -> Response:
        await directory.admission.admit_anywhere(request, ARM)
        return answer(ProvidersAnswer(value=[directory.provider(one, "") for one in directory.providers]))

    @app.get(
        "/providers/{namespace}",
        **operation("getTenantProvider", "One namespace's resource types.", ARM, [namespace], ProviderAnswer),
    )
    async def one(request: Request) -> Response:
        await directory.admission.admit_anywhere(request, ARM)
        return answer(directory.provider(directory.named(request), ""))

    described = operation("listProviders", "The same for a subscription.", ARM, [SUBSCRIPTION], ProvidersAnswer)

    @app.get("/subscriptions/{subscriptionId}/providers", **described)
    async def all_in(request: Request) -> Response:
        scope = await directory.admit(request, Action.PROVIDERS_READ)
        return answer(ProvidersAnswer(value=[directory.provider(one, scope.text) for one in directory.providers]))

    described = operation("getProvider", "One namespace's resource types.", ARM, [SUBSCRIPTION, namespace], ProviderAnswer)

    @app.get("/subscriptions/{subscriptionId}/providers/{namespace}", **described)
    async def one_in(request: Request) -> Response:
        scope = await directory.admit(request, Action.PROVIDERS_READ)
        return answer(directory.provider(directory.named(request), scope.text))
