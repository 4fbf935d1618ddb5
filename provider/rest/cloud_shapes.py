"""What the REST answers of the cloud as such: the feature, subscriptions, providers, endpoints. Otherwise as shapes."""

from __future__ import annotations

from typing import Literal

from provider.rest.shapes import Guid, Shape


class GlobalSettings(Shape):
    global_feature_state: Literal["TenantSubscriptionLevel", "Enabled", "Disabled"]


class FeatureProperties(Shape):
    feature_name: str
    global_feature_settings: GlobalSettings
    enabled_tenant_subscription_ids: list[Guid]


class FeatureAnswer(Shape):
    id: str
    name: str
    type: Literal["Microsoft.Compute.Admin/locations/features"] = "Microsoft.Compute.Admin/locations/features"
    location: str
    properties: FeatureProperties


class FeaturesAnswer(Shape):
    value: list[FeatureAnswer]


# what Azure's clients ask before anything else


class SubscriptionAnswer(Shape):
    id: str
    subscription_id: Guid
    tenant_id: Guid
    display_name: str
    state: Literal["Enabled"] = "Enabled"
    authorization_source: Literal["RoleBased"] = "RoleBased"
    managed_by_tenants: tuple[str, ...] = ()


class SubscriptionsAnswer(Shape):
    value: list[SubscriptionAnswer]


class TenantAnswer(Shape):
    id: str
    tenant_id: Guid
    display_name: str
    tenant_category: Literal["Home"] = "Home"


class TenantsAnswer(Shape):
    value: list[TenantAnswer]


class ResourceTypeShape(Shape):
    resource_type: str
    locations: list[str]
    api_versions: list[str]
    capabilities: Literal["None"] = "None"


class ProviderAnswer(Shape):
    id: str
    namespace: str
    registration_state: Literal["Registered"] = "Registered"
    registration_policy: Literal["RegistrationFree"] = "RegistrationFree"
    resource_types: list[ResourceTypeShape]


class ProvidersAnswer(Shape):
    value: list[ProviderAnswer]


class OldAuthentication(Shape):
    login_endpoint: str
    audiences: list[str]


class OldMetadataAnswer(Shape):
    """As Azure Stack Hub answers api-version 2015-01-01 and 1.0; its clients want none of these empty."""

    gallery_endpoint: str
    graph_endpoint: str
    portal_endpoint: str
    authentication: OldAuthentication


class Authentication(Shape):
    login_endpoint: str
    audiences: list[str]
    tenant: str
    identity_provider: str


class MetadataAnswer(Shape):
    """As `az cloud register` reads api-version 2022-09-01. `suffixes` it wants to be there; this cloud has none of them."""

    name: str
    resource_manager: str
    portal: str
    gallery: str
    graph: str
    graph_audience: str
    authentication: Authentication
    suffixes: dict[str, str]
