"""The operators' endpoint: which subscriptions may consent at all. Nobody can consent here."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from provider.consent.features import FEATURE, Feature, GlobalState
from provider.consent.registrar import Registrar
from provider.rest.admission import Admission, Keychain, body, subscription_scope
from provider.rest.arm import ADMIN, ArmError, feature_id, subscription_not_found
from provider.rest.cloud_shapes import FeatureAnswer, FeatureProperties, FeaturesAnswer, GlobalSettings
from provider.rest.front import plain_app
from provider.rest.metadata_api import ADMIN_PROVIDERS, Directory, serve_metadata
from provider.rest.openapi import FEATURE_NAME, GLOBAL_BODY, SUBSCRIPTION_BODY, one_of, operation, serve_document
from provider.rest.request_body import Body
from provider.rest.roles import Action
from provider.rest.scope import CLOUD
from provider.rest.settings import Rest
from provider.rest.shapes import answer
from provider.store.store import StoreThread

FEATURES_PATH = "/subscriptions/{subscriptionId}/providers/Microsoft.Compute.Admin/locations/{location}/features"
FEATURE_PATH = f"{FEATURES_PATH}/{{featureName}}"


def admin_app(rest: Rest, registrar: Registrar, store: StoreThread, keychain: Keychain) -> FastAPI:
    app = plain_app("Emergency VM Access: operators", "Which subscriptions may consent to the use of their consoles.")
    admission = Admission(rest.admin.listener, rest.region, keychain, store)
    serve_metadata(app, Directory(rest, rest.admin.listener, admission, store, ADMIN_PROVIDERS, rest.admin.subscription))
    _serve_features(app, rest, admission, registrar)
    _serve_actions(app, rest, admission, registrar)
    serve_document(app, rest.admin.listener.url)
    return app


class _Path:
    """The parts of a path that this cloud has one of each."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self.parameters = [one_of("subscriptionId", rest.admin.subscription), one_of("location", rest.region)]

    def check(self, request: Request) -> str:
        """The subscription as the caller spelled it, once the caller is known to be an administrator. Raises ArmError."""
        found = request.path_params
        guid = str(found["subscriptionId"])
        if guid.lower() != self._rest.admin.subscription.lower():
            raise subscription_not_found(guid)
        place, name = str(found["location"]), str(found.get("featureName", FEATURE))
        if place.lower() != self._rest.region or name.lower() != FEATURE.lower():
            raise ArmError(404, "ResourceNotFound", f"The Resource '{request.scope['path']}' was not found.")
        return guid

    def shown(self, feature: Feature, subscription: str) -> FeatureAnswer:
        return FeatureAnswer(
            id=feature_id(subscription, self._rest.region),
            name=feature.name,
            location=self._rest.region,
            properties=FeatureProperties(
                feature_name=feature.name,
                global_feature_settings=GlobalSettings(global_feature_state=feature.state.value),
                enabled_tenant_subscription_ids=[one.subscription for one in feature.subscriptions],
            ),
        )


def _serve_features(app: FastAPI, rest: Rest, admission: Admission, registrar: Registrar) -> None:
    path = _Path(rest)

    @app.get(FEATURES_PATH, **operation("listFeatures", "The features there are: one.", ADMIN, path.parameters, FeaturesAnswer))
    async def features(request: Request) -> Response:
        subscription_scope(request)
        await admission.admit(request, ADMIN, Action.FEATURES_READ, CLOUD)
        subscription = path.check(request)
        return answer(FeaturesAnswer(value=[path.shown(one, subscription) for one in await registrar.features()]))

    described = operation("getFeature", "Who may consent.", ADMIN, [*path.parameters, FEATURE_NAME], FeatureAnswer)

    @app.get(FEATURE_PATH, **described)
    async def feature(request: Request) -> Response:
        subscription_scope(request)
        await admission.admit(request, ADMIN, Action.FEATURES_READ, CLOUD)
        subscription = path.check(request)
        return answer(path.shown((await registrar.features())[0], subscription))


def _serve_actions(app: FastAPI, rest: Rest, admission: Admission, registrar: Registrar) -> None:
    path = _Path(rest)
    place = [*path.parameters, FEATURE_NAME]

    described = operation(
        "enableTenantSubscriptionFeature", "Lets a subscription's owners consent.", ADMIN, place, None, body=SUBSCRIPTION_BODY
    )

    @app.post(f"{FEATURE_PATH}/enableTenantSubscriptionFeature", **described)
    async def enable(request: Request) -> Response:
        subscription_scope(request)
        admitted = await admission.admit(request, ADMIN, Action.ENABLE_SUBSCRIPTION, CLOUD)
        path.check(request)
        await registrar.enable_subscription(await _tenant_subscription(request), admitted.caller.giver)
        return Response()

    described = operation(
        "disableTenantSubscriptionFeature",
        "Ends that, and every consent and session of the subscription with it.",
        ADMIN,
        place,
        None,
        body=SUBSCRIPTION_BODY,
    )

    @app.post(f"{FEATURE_PATH}/disableTenantSubscriptionFeature", **described)
    async def disable(request: Request) -> Response:
        subscription_scope(request)
        await admission.admit(request, ADMIN, Action.DISABLE_SUBSCRIPTION, CLOUD)
        path.check(request)
        await registrar.disable_subscription(await _tenant_subscription(request))
        return Response()

    described = operation(
        "updateGlobalFeatureSettings",
        "For everybody, for nobody, or by the list. What is no longer permitted ends.",
        ADMIN,
        place,
        None,
        body=GLOBAL_BODY,
    )

    @app.post(f"{FEATURE_PATH}/updateGlobalFeatureSettings", **described)
    async def update(request: Request) -> Response:
        subscription_scope(request)
        await admission.admit(request, ADMIN, Action.UPDATE_GLOBAL, CLOUD)
        path.check(request)
        found = Body.parse(await body(request))
        state = found.choice("globalFeatureState", GlobalState)
        found.nothing_else()
        await registrar.set_global_state(state)
        return Response()


async def _tenant_subscription(request: Request) -> str:
    """Raises ArmError: Azure Stack Hub answers 200 to what is no GUID, and enables nothing."""
    found = Body.parse(await body(request))
    subscription = found.guid("tenantSubscriptionId")
    found.nothing_else()
    return subscription
