"""The conventions of Azure Resource Manager that its clients lean on: errors, api-versions, request ids, resource types. Pure.

Codes and wording are ARM's own where ARM has one for the case. Errors:

    ArmError        an answer that is an error: status, code, message, `target` (what of the request it is about), headers
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from provider.consent.features import FEATURE

JSON = "application/json; charset=utf-8"

COMPUTE = "Microsoft.Compute"
COMPUTE_ADMIN = "Microsoft.Compute.Admin"
VM_TYPE = "virtualMachines"
FEATURE_TYPE = "locations/features"

VM_VERSIONS = ("2020-06-01",)
ADMIN_VERSIONS = ("2020-11-01",)
# What Azure's clients of all years ask subscriptions, tenants and providers with; the answers have kept their shape.
_SINCE_2015 = """
    2025-04-01 2025-03-01 2024-11-01 2024-08-01 2024-07-01 2024-03-01 2023-07-01 2022-12-01 2022-09-01 2022-06-01 2022-05-01
    2022-01-01 2021-04-01 2021-01-01 2020-10-01 2020-09-01 2020-08-01 2020-07-01
    2020-06-01 2020-05-01 2020-01-01 2019-11-01 2019-10-01 2019-09-01 2019-08-01 2019-07-01 2019-06-01 2019-05-10 2019-05-01
    2019-03-01 2018-11-01 2018-09-01 2018-08-01 2018-07-01 2018-06-01 2018-05-01 2018-02-01 2018-01-01 2017-12-01 2017-08-01
    2017-06-01 2017-05-10 2017-05-01 2017-03-01 2016-09-01 2016-07-01 2016-06-01 2016-02-01 2015-11-01 2015-01-01"""
ARM_VERSIONS = tuple(_SINCE_2015.split())
# Add-AzureRmEnvironment and Add-AzEnvironment ask with 1.0, Azure Stack Hub's documents with 2015-01-01, `az cloud` the newest
OLD_METADATA_VERSIONS = ("2015-01-01", "1.0")
METADATA_VERSIONS = ("2022-09-01", *OLD_METADATA_VERSIONS)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class ArmError(Exception):
    def __init__(
        self, status: int, code: str, message: str, target: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.target = target
        self.headers = dict(headers or {})
        super().__init__(f"{status} {code}: {message}")

    def body(self) -> bytes:
        error = {"code": self.code, "message": self.message}
        if self.target is not None:
            error["target"] = self.target
        return json.dumps({"error": error}).encode()


# api-versions


def api_version(query: Iterable[tuple[str, str]]) -> str:
    """The one api-version of a query; names compare without regard to case. Raises ArmError."""
    found = [value for name, value in query if name.lower() == "api-version"]
    if not found or not found[0]:
        raise ArmError(
            400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests."
        )
    if len(found) > 1:
        raise ArmError(
            400, "InvalidApiVersionParameter", "The api-version query parameter is given more than once.", "api-version"
        )
    return found[0]


@dataclass(frozen=True, slots=True)
class Versions:
    """The api-versions of one resource type; `namespace` None: of ARM itself."""

    supported: tuple[str, ...]
    namespace: str | None = None
    resource_type: str = ""

    def check(self, version: str, region: str) -> None:
        """Raises ArmError, which lists what is supported."""
        if version in self.supported:
            return
        if self.namespace is None:
            listed = ",".join(self.supported)
            message = f"The api-version '{version[:32]}' is invalid. The supported versions are '{listed}'."
            raise ArmError(400, "InvalidApiVersionParameter", message, "api-version")
        raise ArmError(
            400,
            "NoRegisteredProviderFound",
            f"No registered resource provider found for location '{region}' and API version '{version[:32]}' for type "
            f"'{self.resource_type}'. The supported api-versions are '{', '.join(self.supported)}'. "
            f"The supported locations are '{region}'.",
            "api-version",
        )


METADATA = Versions(METADATA_VERSIONS)
ARM = Versions(ARM_VERSIONS)
VM = Versions(VM_VERSIONS, COMPUTE, VM_TYPE)
ADMIN = Versions(ADMIN_VERSIONS, COMPUTE_ADMIN, FEATURE_TYPE)


# request ids


@dataclass(slots=True)
class Exchange:
    """One request's ids, the headers its answer shall have besides, and who called, for the log."""

    request_id: str
    correlation_id: str
    echoed: dict[str, str]
    headers: dict[str, str] = field(default_factory=dict)
    caller: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str], new_id: str) -> Exchange:
        """`headers` by their names in small letters. What is no id is not repeated: it would be the client's word in our log."""
        given = headers.get("x-ms-correlation-request-id", "")
        wanted = headers.get("x-ms-return-client-request-id", headers.get("return-client-request-id", "true")).lower() != "false"
        names = ("x-ms-client-request-id", "client-request-id")
        echoed = {name: headers[name] for name in names if wanted and _REQUEST_ID.fullmatch(headers.get(name, ""))}
        return cls(new_id, given if _REQUEST_ID.fullmatch(given) else new_id, echoed)

    def answer_headers(self) -> dict[str, str]:
        return {
            "x-ms-request-id": self.request_id,
            "x-ms-correlation-request-id": self.correlation_id,
            **self.echoed,
            "cache-control": "no-cache",
            "pragma": "no-cache",
            "expires": "-1",
            "strict-transport-security": "max-age=31536000; includeSubDomains",
            "x-content-type-options": "nosniff",
            **self.headers,
        }


# what is where


def nothing_at(path: str) -> ArmError:
    """The 404 for a path that means nothing here."""
    parts = path.lower().split("/")
    for i, part in enumerate(parts[:-1]):
        if part == "providers":
            namespace = path.split("/")[i + 1]
            if namespace.lower() not in (COMPUTE.lower(), COMPUTE_ADMIN.lower()):
                return ArmError(404, "InvalidResourceNamespace", f"The resource namespace '{namespace[:64]}' is invalid.")
            return ArmError(
                404, "InvalidResourceType", f"The resource type could not be found in the namespace '{namespace}' here."
            )
    return ArmError(404, "NotFound", "No resource or action has this path.")


def subscription_not_found(guid: str) -> ArmError:
    why = f"The subscription '{guid}' could not be found: here it is the platform's own."
    return ArmError(404, "SubscriptionNotFound", why, "subscriptionId")


def feature_id(subscription: str, region: str) -> str:
    return f"/subscriptions/{subscription}/providers/{COMPUTE_ADMIN}/{FEATURE_TYPE.replace('/', f'/{region}/')}/{FEATURE}"


def not_authorized(name: str, object_id: str, action: str, scope: str) -> ArmError:
    return ArmError(
        403,
        "AuthorizationFailed",
        f"The client '{name or object_id}' with object id '{object_id}' does not have authorization to perform action '{action}' "
        f"over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials.",
    )


def throttled(subscription: str, operation: str, caller: str, seconds: int) -> ArmError:
    return ArmError(
        429,
        "SubscriptionRequestsThrottled",
        f"Number of '{operation}' requests for subscription '{subscription}' actor '{caller}' exceeded. Please try again after "
        f"'{seconds}' seconds after additional tokens are available.",
        headers={"retry-after": str(seconds)},
    )
