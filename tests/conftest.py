"""The lab's parts as fixtures: a real libvirtd, real guests, a real mosquitto."""

import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from playwright.async_api import expect

from lab.certificates import Authority
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from lab.mosquitto import Mosquitto
from lab.postgresql import Postgresql
from provider.store.place import Place
from provider.store.store import Store
from tests import provider_parts
from tests.provider_office import Office
from tests.store_parts import place_on
from tests.system_parts import brought_to_its_shell
from tests.watch_parts import WatchedCloud, watched_cloud

# an example may take its time on a busy machine; pytest-timeout bounds the test
settings.register_profile("eva", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("eva")

expect.set_options(timeout=60_000)  # what a page shows in the end is the verdict, not when

# A run that a shell started in its background has SIGINT ignored, and so would have every program that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files of whole systems and browsers take minutes each: begun first, they do not end alone behind all the others.
LONG_FILES = ("test_web_", "test_system_", "test_rest_", "test_benchmarks", "test_demo", "test_stock_", "test_model")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs Azure's command line runs where it is asked for by its mark, and there nothing is skipped."""
    items.sort(key=lambda item: not item.path.name.startswith(LONG_FILES))
    if "azure" not in config.option.markexpr.replace("not azure", ""):
        reason = pytest.mark.skip(reason="make test-azure")
        for item in items:
            if item.get_closest_marker("azure"):
                item.add_marker(reason)


SUBSCRIPTION = "7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"


def resource_id_of(vm: str) -> str:
    """Give a resource ID for a VM's name."""
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/{vm}"


@pytest.fixture(scope="session")
def libvirt_host() -> Iterator[LibvirtHost]:
    """Give a private libvirtd; a test may freeze, kill or restart it, the next guest finds it well again."""
    with LibvirtHost() as host:
        yield host


def _fresh_guest(host: LibvirtHost) -> Guest:
    host.revive()
    name = f"vm-{uuid4().hex[:8]}"
    return host.start_guest(name, resource_id=resource_id_of(name))


@pytest.fixture(scope="session")
def shared_guest(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    """Give one guest for all tests that only look at it or type into it: never stop, pause, reset or re-define it."""
    guest = _fresh_guest(libvirt_host)
    yield guest
    guest.discard()


@pytest.fixture
def guest(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    """Give a guest of the test's own, booted to its serial shell."""
    guest = _fresh_guest(libvirt_host)
    yield guest
    guest.discard()


@pytest.fixture
def other_guest(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    """Give a second one beside `guest`."""
    guest = _fresh_guest(libvirt_host)
    yield guest
    guest.discard()


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    """Give an MQTT 5 broker without TLS, persistence or ACL."""
    with Mosquitto() as broker:
        yield broker


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """Give a PostgreSQL server for the run, with a database `empty_store` to copy; who stops it needs one of his own."""
    with Postgresql() as server:
        Store(place_on(server, "empty_store"), create=True).close()
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give a place for a store of the test's own, on each kind of database: `Store(place, create=True)`."""
    if request.param == "sqlite":
        yield tmp_path / "provider.db"
        return
    server: Postgresql = request.getfixturevalue("postgresql")
    name = f"store_{uuid4().hex}"
    yield place_on(server, name, template="empty_store")
    server.drop(name)


@pytest.fixture(scope="module")
def running_provider(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[provider_parts.Cloud]:
    """Give a provider's daemon with MQTT, a store and keys of the module's own: no libvirt, no node but what a test plays."""
    with provider_parts.running_cloud(tmp_path_factory.mktemp("provider"), certificates) as cloud:
        yield cloud


@pytest.fixture
def provider(running_provider: provider_parts.Cloud) -> provider_parts.Cloud:
    """Give the module's provider, with a node and a virtual machine of the test's own."""
    running_provider.fresh()
    return running_provider


@pytest.fixture
def still_provider(tmp_path: Path, certificates: Authority) -> Iterator[provider_parts.Cloud]:
    """Give one of the test's own whose daemon does not run."""
    cloud = provider_parts.Cloud(tmp_path, certificates)
    yield cloud
    cloud.close()


@pytest.fixture(scope="session")
def cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    """Give the whole system on that host: what a test kills of it must be its own."""
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def _watched(libvirt_host: LibvirtHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedCloud]:
    """Give a second whole system on that host, at which tenants watch: what a test kills of it must be its own."""
    with watched_cloud(tmp_path_factory.mktemp("watched"), libvirt_host) as cloud:
        yield cloud


@pytest.fixture
def watched(_watched: WatchedCloud) -> Iterator[WatchedCloud]:
    """Give it without any consent."""
    yield _watched
    _watched.tidy()


@pytest.fixture(scope="session")
def _vms(libvirt_host: LibvirtHost) -> Iterator[list[Guest]]:
    """Give the place of the guest that the system's tests hand on, empty before the first."""
    vms: list[Guest] = []
    yield vms
    for guest in vms:
        guest.discard()


@pytest.fixture
def vm(libvirt_host: LibvirtHost, _vms: list[Guest]) -> Guest:
    """Give a guest at its serial shell that the system's tests hand on; where one left it otherwise, another."""
    libvirt_host.revive()
    if _vms and not brought_to_its_shell(_vms[0]):
        _vms.pop().discard()
    if not _vms:
        _vms.append(_fresh_guest(libvirt_host))
    return _vms[0]


@pytest.fixture
def mortal(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    """Give one that a test may take away, and that need not have booted for it."""
    libvirt_host.revive()
    name = f"vm-{uuid4().hex[:8]}"
    guest = libvirt_host.start_guest(name, resource_id=resource_id_of(name), wait=False)
    yield guest
    guest.discard()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a certification authority for the run."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def office(place: Place) -> Iterator[Office]:
    """Give a provider's store with two enrolled nodes, whose desk the test sits at; on each kind of database."""
    office = Office(place)
    yield office
    office.store.close()
