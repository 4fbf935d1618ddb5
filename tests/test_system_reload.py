"""SIGHUP: the real daemon takes its users and its certificate anew, and nothing that is wrong."""

import asyncio
import contextlib
import shutil
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from eva.control import Method, Refusal, Refused
from lab.certificates import Authority, KeyPair
from lab.cloud import PASSWORD, Cloud, Ercs
from lab.libvirt_host import Guest, LibvirtHost
from tests.system_operator import NODE, PATIENCE, Operator, signed_in, trusting
from tests.system_parts import consented, end_of, ends, tell_provider, well

HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
EVERYBODY: Mapping[str, Sequence[str]] = {"alice": ("cloudadmin",), "bob": ("cloudadmin",)}


@pytest.fixture(scope="module")
def cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    """Give a cloud whose users and certificates these tests may change."""
    with Cloud({"host1": libvirt_host.uri}, accounts=EVERYBODY) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def hashes() -> dict[str, str]:
    """Give the accounts' hashes: one that is hashed again is a changed account."""
    return {name: HASHER.hash(PASSWORD) for name in (*EVERYBODY, "carol")}


Write = Callable[[Mapping[str, Sequence[str]]], None]


@pytest.fixture
async def write_users(cloud: Cloud, vm: Guest, hashes: dict[str, str]) -> AsyncIterator[Write]:
    """Give what writes the users file, with a consent for the guest and the users as they were; all is so again afterwards."""
    node = cloud.nodes[NODE]
    users = node.directory / "users.yaml"

    def write(accounts: Mapping[str, Sequence[str]]) -> None:
        lines = (
            f'  - {{name: {name}, groups: [{", ".join(to)}], password: "{hashes[name]}"}}\n' for name, to in accounts.items()
        )
        users.write_text(f"accounts:\n{''.join(lines)}")

    write(EVERYBODY)
    await reload(node)
    await well(cloud)
    await consented(cloud, vm)
    yield write
    with contextlib.suppress(AssertionError):  # none was left
        await tell_provider(cloud, "/revoke", {"resource_id": vm.resource_id})


async def reload(node: Ercs, says: str = "users re-read") -> str:
    """Send SIGHUP; give what the daemon logged from then until it said this."""
    transcript = node.program.transcript
    before = transcript.size()
    node.program.signal(signal.SIGHUP)
    await transcript.seen(says, after=before)
    # the whole reload is one step of the loop: who is answered after it sees all of it, and its log
    async with asyncio.timeout(PATIENCE):
        await presented(node)
    return transcript.text(before)


async def presented(node: Ercs) -> bytes:
    """The certificate (DER) that a new connection is shown, whoever signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown


async def assert_refused(cloud: Cloud, account: str) -> None:
    """Hold that nobody signs in so with the lab's password."""
    with pytest.raises(Refused) as caught:
        async with signed_in(cloud, account, grant=False):
            pass
    assert caught.value.refusal is Refusal.WRONG_CREDENTIALS


async def is_over(operator: Operator) -> None:
    """Returns when the node has ended his control connection."""
    async with asyncio.timeout(PATIENCE):
        while not operator.over:
            await asyncio.sleep(0.02)  # its reader's end is no event


# -- users -----------------------------------------------------------------------------------------------------------


async def test_who_was_removed_is_cut_and_signed_out_and_nobody_else(cloud: Cloud, vm: Guest, write_users: Write) -> None:
    node = cloud.nodes[NODE]
    async with signed_in(cloud, "bob") as bob, signed_in(cloud, "alice") as alice:
        his = await bob.console(vm.resource_id)
        hers = [await alice.console(vm.resource_id), await alice.console(vm.resource_id, "graphics")]
        write_users({"bob": EVERYBODY["bob"]})
        assert "users re-read: 1 accounts, 1 signed out" in await reload(node)
        assert [await console.ended() for console in hers] == [4000, 4000]
        await is_over(alice)
        assert await his.ask("echo $((40+2))") == b"42\n"
        assert not bob.over
        assert {(await end_of(node, console.opened))["reason"] for console in hers} == {"operator-left"}
        assert his.opened.session not in ends(node)
    await assert_refused(cloud, "alice")


async def test_who_was_added_signs_in_and_opens_a_console(cloud: Cloud, vm: Guest, write_users: Write) -> None:
    await assert_refused(cloud, "carol")
    write_users({**EVERYBODY, "carol": ("cloudadmin",)})
    assert "users re-read: 3 accounts, 0 signed out" in await reload(cloud.nodes[NODE])
    async with signed_in(cloud, "carol") as carol:
        console = await carol.console(vm.resource_id)
        assert await console.ask("echo $((40+2))") == b"42\n"


async def test_who_left_the_group_is_cut_and_may_sign_in_for_nothing(cloud: Cloud, vm: Guest, write_users: Write) -> None:
    async with signed_in(cloud, "alice") as alice:
        console = await alice.console(vm.resource_id)
        write_users({**EVERYBODY, "alice": ("helpdesk",)})
        await reload(cloud.nodes[NODE])
        assert await console.ended() == 4000
        await is_over(alice)
    async with signed_in(cloud, "alice") as alice:
        with pytest.raises(Refused) as caught:
            await alice.open(vm.resource_id)
        assert caught.value.refusal is Refusal.NO_CONSENT


async def test_a_new_password_ends_what_the_old_one_opened(
    cloud: Cloud, vm: Guest, write_users: Write, hashes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hashes, "alice", HASHER.hash("another word of hers"))
    async with signed_in(cloud, "alice") as alice:
        console = await alice.console(vm.resource_id)
        write_users(EVERYBODY)
        await reload(cloud.nodes[NODE])
        assert await console.ended() == 4000
    await assert_refused(cloud, "alice")


async def test_an_unchanged_file_changes_nothing(cloud: Cloud, vm: Guest, write_users: Write) -> None:
    async with signed_in(cloud, "alice") as alice:
        console = await alice.console(vm.resource_id)
        write_users(EVERYBODY)
        assert "2 accounts, 0 signed out" in await reload(cloud.nodes[NODE])
        assert await console.ask("echo $((40+2))") == b"42\n"
        assert not alice.over


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('accounts:\n  - {name: alice, groups: [cloudadmin], password: "open-sesame"}\n', "users.yaml:2: accounts[0].password"),
        ("accounts:\n  - name: alice\n    grups: [cloudadmin]\n", "users.yaml:3: accounts[0].grups"),
        ("accounts: [", "users.yaml:1: not YAML"),
        ("", "users.yaml:1: accounts"),
        (None, "no users file"),
    ],
    ids=["a password in the clear", "an unknown key", "no YAML", "empty", "missing"],
)
async def test_a_broken_file_keeps_the_old_users_and_is_told(
    cloud: Cloud, vm: Guest, write_users: Write, text: str | None, told: str
) -> None:
    node = cloud.nodes[NODE]
    users = node.directory / "users.yaml"
    async with signed_in(cloud, "alice") as alice:
        console = await alice.console(vm.resource_id)
        if text is None:
            users.unlink()
        else:
            users.write_text(text)
        said = await reload(node, "users not re-read, the old ones stand: ")
        assert told in said
        assert "open-sesame" not in said
        assert await console.ask("echo $((40+2))") == b"42\n"
        assert not alice.over
    async with signed_in(cloud, "alice") as again:
        await again.ask(Method.CONSENTS_LIST)


async def test_after_a_broken_file_a_mended_one_is_taken(cloud: Cloud, write_users: Write) -> None:
    (cloud.nodes[NODE].directory / "users.yaml").write_text("accounts: [")
    await reload(cloud.nodes[NODE], "users not re-read")
    write_users({"bob": ("cloudadmin",)})
    assert "users re-read: 1 accounts" in await reload(cloud.nodes[NODE])
    await assert_refused(cloud, "alice")


# -- the certificate -------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(cloud: Cloud) -> Iterator[KeyPair]:
    """Give the files of the node's certificate; what was in them is put back."""
    tls = cloud.authority.directory
    pair = KeyPair(tls / f"{NODE}-operators.pem", tls / f"{NODE}-operators.key")
    before = pair.certificate.read_bytes(), pair.key.read_bytes()
    yield pair
    pair.certificate.write_bytes(before[0])
    pair.key.write_bytes(before[1])


@pytest.fixture
def renewed(cloud: Cloud, tmp_path: Path) -> KeyPair:
    """Give a new pair for the same names, by the same authority."""
    made = cloud.authority.server("renewed")
    return KeyPair(made.certificate.rename(tmp_path / "renewed.pem"), made.key.rename(tmp_path / "renewed.key"))


def put(new: KeyPair, in_place_of: KeyPair) -> None:
    shutil.copy(new.certificate, in_place_of.certificate)
    shutil.copy(new.key, in_place_of.key)


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


async def test_new_connections_see_a_new_certificate_and_old_ones_go_on(
    cloud: Cloud, vm: Guest, write_users: Write, pair: KeyPair, renewed: KeyPair
) -> None:
    node = cloud.nodes[NODE]
    old = der(pair.certificate)
    assert await presented(node) == old
    async with signed_in(cloud, "alice") as alice:
        console = await alice.console(vm.resource_id)
        put(renewed, pair)
        assert await presented(node) == old  # not before it is told
        assert "certificate not re-read" not in await reload(node)
        assert await presented(node) == der(renewed.certificate) != old
        assert await console.ask("echo $((40+2))") == b"42\n"
        assert console.websocket.transport.get_extra_info("ssl_object").getpeercert(binary_form=True) == old
        # she attaches more, and others sign in, over the new one
        assert (await alice.console(vm.resource_id, "graphics")).opened.kind == "graphics"
    async with signed_in(cloud, "bob"):
        pass


async def test_who_trusts_only_another_authority_does_not_get_in(
    cloud: Cloud, write_users: Write, pair: KeyPair, tmp_path: Path
) -> None:
    """The certificate that is shown is the one that is used: a client that does not know its authority goes away."""
    stranger = Authority(tmp_path, "another CA").server("ercs")
    put(stranger, pair)
    await reload(cloud.nodes[NODE])
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("localhost", cloud.nodes[NODE].port, ssl=trusting(cloud))


@pytest.mark.parametrize("half", ["certificate", "key"])
async def test_half_a_pair_keeps_the_old_one_and_is_told(
    cloud: Cloud, vm: Guest, write_users: Write, pair: KeyPair, renewed: KeyPair, half: str
) -> None:
    node = cloud.nodes[NODE]
    old = der(pair.certificate)
    async with signed_in(cloud, "alice") as alice:
        console = await alice.console(vm.resource_id)
        shutil.copy(getattr(renewed, half), getattr(pair, half))
        said = await reload(node, "certificate not re-read, the old one stands: ")
        assert str(pair.certificate) in said
        assert await presented(node) == old
        assert await console.ask("echo $((40+2))") == b"42\n"
    async with signed_in(cloud, "bob"):  # the key is still the old certificate's
        pass


async def test_a_missing_certificate_keeps_the_old_one_and_is_told(cloud: Cloud, write_users: Write, pair: KeyPair) -> None:
    old = der(pair.certificate)
    pair.certificate.unlink()
    said = await reload(cloud.nodes[NODE], "certificate not re-read, the old one stands: ")
    assert str(pair.certificate) in said
    assert await presented(cloud.nodes[NODE]) == old


async def test_a_broken_users_file_does_not_hold_up_the_certificate(
    cloud: Cloud, write_users: Write, pair: KeyPair, renewed: KeyPair
) -> None:
    node = cloud.nodes[NODE]
    (node.directory / "users.yaml").write_text("accounts: [")
    put(renewed, pair)
    await reload(node, "users not re-read")
    assert await presented(node) == der(renewed.certificate)
