"""The provider's REST in the lab: where it listens, whom it believes, who may do what, and people's tokens.

The home issuer is the project's own (`eva-provider issuer`, `eva-provider token`); others can stand beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.certificates import KeyPair
from lab.ports import free_port

REGION = "local"
PLATFORM = "00000000-0000-4000-8000-000000000001"  # the platform's own subscription: it stands in the operator's paths
DIRECTORY = "00000000-0000-4000-8000-000000000002"
LOGIN = "https://login.eva.example"
TENANT = "tenant1"
ADMINISTRATOR = "admin1"
TENANT_AUDIENCE = "https://tenant.eva.example"
FEATURE = (
    f"/subscriptions/{PLATFORM}/providers/Microsoft.Compute.Admin/locations/{REGION}/features/Microsoft.Compute.EmergencyVMAccess"
)
VM_VERSION = "2020-06-01"
ADMIN_VERSION = "2020-11-01"


@dataclass(frozen=True)
class Issuer:
    """One beside the home issuer. `ca`: of `jwks_url`'s certificate. `principal_claim`: who its tokens are about."""

    name: str
    jwks_url: str
    ca: Path
    algorithm: str = "RS256"
    principal_claim: str = "oid"

    def lines(self) -> str:
        """Its entry in the settings."""
        return (
            f"    - issuer: {self.name}\n      jwks_url: {self.jwks_url}\n      jwks_ca: {self.ca}\n"
            f"      algorithms: [{self.algorithm}]\n      principal_claim: {self.principal_claim}\n"
        )


@dataclass(frozen=True)
class WatchClient:
    """Where tenants sign in to watch: the provider is a public client of this issuer. `ca`: of the issuer's certificate."""

    issuer: str
    client_id: str
    ca: Path
    resource: str = TENANT_AUDIENCE  # whom its access tokens are asked for

    def lines(self) -> str:
        """Its section of tenant_api's settings."""
        return (
            f"  watch:\n    issuer: {self.issuer}\n    client_id: {self.client_id}\n    ca: {self.ca}\n"
            f"    parameters: {{resource: '{self.resource}'}}\n"
        )


@dataclass(frozen=True)
class Endpoints:
    """One provider's two listeners."""

    tenant_port: int
    admin_port: int

    @classmethod
    def free(cls) -> "Endpoints":
        """On ports that nobody has."""
        return cls(free_port(), free_port())

    @property
    def tenant(self) -> str:
        return f"https://localhost:{self.tenant_port}"

    @property
    def admin(self) -> str:
        return f"https://localhost:{self.admin_port}"

    def machine(self, resource_id: str, action: str) -> str:
        """The URL of a tenant's request about a VM: `enableVmAccess`, `disableVmAccess`, `vmAccess`, `vmAccess/receipt`."""
        return f"{self.tenant}{resource_id}/{action}?api-version={VM_VERSION}"

    def feature(self, action: str) -> str:
        """The URL of an operator's request about the feature, `enableTenantSubscriptionFeature` for one."""
        return f"{self.admin}{FEATURE}/{action}?api-version={ADMIN_VERSION}"


@dataclass(frozen=True)
class Identity:
    """Whom the providers believe. `home`: a directory for the home issuer's key and key set."""

    home: Path
    others: Sequence[Issuer] = ()
    login: str = LOGIN
    watch: WatchClient | None = None

    @property
    def key(self) -> Path:
        return self.home / "issuer.pem"

    def lines(self, endpoints: Endpoints, pair: KeyPair) -> str:
        """The settings of one provider's REST."""
        listeners = (
            ("tenant_api", endpoints.tenant_port, endpoints.tenant, "" if self.watch is None else self.watch.lines()),
            ("admin_api", endpoints.admin_port, endpoints.admin, f"  subscription: {PLATFORM}\n"),
        )
        apis = "".join(
            f"{name}:\n  address: 127.0.0.1\n  port: {port}\n  url: {url}\n  audiences: [https://{name[:-4]}.eva.example]\n"
            f"  certificate: {pair.certificate}\n  key: {pair.key}\n{more}"
            for name, port, url, more in listeners
        )
        return (
            f"region: {REGION}\n{apis}"
            f"identity:\n  login_endpoint: {self.login}\n  tenant: {DIRECTORY}\n  issuers:\n"
            f"    - issuer: https://issuer.eva.example\n      jwks_file: {self.home}/jwks.json\n      signing_key: {self.key}\n"
            f"      algorithms: [EdDSA]\n      home: true\n"
            f"{''.join(issuer.lines() for issuer in self.others)}"
        )


def write_caller(path: Path, token: str, ca: Path) -> None:
    """A file for `curl --config`, so that no secret is on a command line; curl tells the status on standard error."""
    path.touch(mode=0o600)
    path.write_text(
        f'cacert = "{ca}"\nheader = "Authorization: Bearer {token}"\nno-progress-meter\nfail-with-body\n'
        'write-out = "%{stderr}HTTP %{http_code}\\n"\n'
    )
