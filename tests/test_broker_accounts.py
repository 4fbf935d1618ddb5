"""broker/accounts.py: the users file is read strictly, and a sign-in proves who someone is without telling who exists."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import argon2
import pytest

from broker.accounts import Accounts, BadPassword, Certificate, hash_password
from eva.control import MAX_SECRET
from eva.strict_yaml import BadSettings

PASSWORD = "correct horse battery staple"
LEAST = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
WEAK = argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(PASSWORD, salt=b"0" * 16)
HASH = LEAST.hash(PASSWORD, salt=b"0" * 16)  # fixed, so that the names below always meet the same decoys
FINGERPRINT = "9f" * 32
EXAMPLE = Path(__file__).parent.parent / "config" / "users.yaml"


def users(*entries: str) -> str:
    return "accounts:\n" + "".join(f"  - {entry}\n" for entry in entries)


def person(name: str = "alice", password: str = HASH, more: str = "") -> str:
    return f'{{name: "{name}", groups: [cloudadmin], password: "{password}"{more}}}'


def bearer(name: str, *certificates: str) -> str:
    return f"{{name: {name}, certificates: [{', '.join(map(repr, certificates))}]}}"


def fault(text: str) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        Accounts.parse(text, "users.yaml")
    return caught.value


@pytest.fixture(scope="module")
def accounts() -> Accounts:
    return Accounts.parse(
        users(person(), person("no_groups").replace("groups: [cloudadmin], ", ""), bearer("carol", "cn:carol")), "u"
    )


# Who is proved


def test_the_right_password_proves_the_account(accounts: Accounts) -> None:
    found = accounts.verify("alice", PASSWORD)
    assert found is not None
    assert (found.name, found.groups) == ("alice", frozenset({"cloudadmin"}))


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        (users(person("alice")), False),
        (users(person("alice"), person("bob")), False),
        (users(bearer("alice", "cn:alice")), True),
        ("accounts: []", True),
    ],
    ids=["as it was", "others", "another proof", "gone"],
)
def test_whether_an_account_has_changed(after: str, changed: bool) -> None:
    before = Accounts.parse(users(person("alice")), "users.yaml")
    assert Accounts.parse(after, "users.yaml").has_changed("alice", before) is changed


@pytest.mark.parametrize(("name", "changed"), [("olivia", True), ("Olivia", True), ("oliver", False)])
def test_an_account_of_the_issuers_is_none_once_the_file_has_one_like_it(name: str, changed: bool) -> None:
    before, after = (Accounts.parse(text, "users.yaml") for text in ("accounts: []", users(person("olivia"))))
    assert after.has_changed(name, before) is changed


@pytest.mark.parametrize(("name", "found"), [("alice", True), ("ALICE", True), ("carol", True), ("alice2", False), ("", False)])
def test_a_name_that_could_be_taken_for_an_accounts(accounts: Accounts, name: str, found: bool) -> None:
    assert accounts.resembles(name) is found


@pytest.mark.parametrize(
    "password", ["", PASSWORD + " ", PASSWORD.upper(), PASSWORD + "\0", HASH, "\ud800", "x" * (MAX_SECRET + 1)]
)
def test_another_password_proves_nobody(accounts: Accounts, password: str) -> None:
    assert accounts.verify("alice", password) is None


@pytest.mark.parametrize("name", ["bob", "", "ALICE", "alice ", "\ud800", "a" * 100_000])
def test_an_unknown_name_proves_nobody(accounts: Accounts, name: str) -> None:
    assert accounts.verify(name, PASSWORD) is None


@pytest.mark.parametrize("password", ["", PASSWORD, "carol"])
def test_an_account_without_a_password_is_proved_by_none(accounts: Accounts, password: str) -> None:
    assert accounts.verify("carol", password) is None


def test_one_password_typed_in_two_spellings_is_one() -> None:
    composed, decomposed = "\u00e9tage du milieu", "e\u0301tage du milieu"  # as Linux and macOS keyboards give it
    found = Accounts.parse(users(person(password=LEAST.hash(composed))), "u")
    assert found.verify("alice", decomposed) is not None


def test_the_longest_password_of_the_protocol_works() -> None:
    longest = "p" * MAX_SECRET
    assert Accounts.parse(users(person(password=LEAST.hash(longest))), "u").verify("alice", longest) is not None


def test_a_longer_one_is_wrong_whatever_the_file_holds() -> None:
    longer = "p" * (MAX_SECRET + 1)
    assert Accounts.parse(users(person(password=LEAST.hash(longer))), "u").verify("alice", longer) is None


def test_an_account_without_groups_is_in_none(accounts: Accounts) -> None:
    found = accounts.get("no_groups")
    assert found is not None
    assert found.groups == frozenset()


# The same cost for known and unknown (processor time: another's load on this machine does not count)


def cost(verify: Callable[[], object], times: int = 4) -> float:
    """The least processor seconds of so many times."""
    spent: list[float] = []
    for _ in range(times):
        before = time.process_time()
        verify()
        spent.append(time.process_time() - before)
    return min(spent)


@pytest.mark.parametrize("name", ["nobody", "carol"])
def test_a_name_that_no_password_proves_costs_what_a_known_one_does(accounts: Accounts, name: str) -> None:
    known = cost(lambda: accounts.verify("alice", "wrong"))
    assert known > 0.005
    assert 0.6 < cost(lambda: accounts.verify(name, "wrong")) / known < 1.7


def test_unknown_names_meet_each_cost_that_the_file_has_and_each_name_always_the_same() -> None:
    dear = argon2.PasswordHasher(time_cost=6, memory_cost=19 * 1024, parallelism=1).hash(PASSWORD, salt=b"1" * 16)
    mixed = Accounts.parse(users(person(), person("bob", dear)), "u")
    split = (cost(lambda: mixed.verify("alice", "x")) + cost(lambda: mixed.verify("bob", "x"))) / 2
    names = [f"ghost{i}" for i in range(8)]
    first = [cost(lambda n=name: mixed.verify(n, "x"), 2) > split for name in names]
    assert set(first) == {True, False}
    assert [cost(lambda n=name: mixed.verify(n, "x"), 2) > split for name in names] == first


def test_a_file_without_passwords_costs_as_much_as_a_new_hash() -> None:
    nobody = Accounts.parse("accounts: []", "u")
    new = Accounts.parse(users(person(password=hash_password(PASSWORD))), "u")
    assert 0.6 < cost(lambda: nobody.verify("alice", "x")) / cost(lambda: new.verify("alice", "x")) < 1.7


# Certificates


def test_a_common_name_proves_its_account(accounts: Accounts) -> None:
    found = accounts.by_certificate("carol", FINGERPRINT)
    assert found is not None
    assert found.name == "carol"


@pytest.mark.parametrize("common_name", [None, "", "CAROL", "carol ", "alice", FINGERPRINT, f"sha256:{FINGERPRINT}", "cn:carol"])
def test_another_common_name_proves_nobody(accounts: Accounts, common_name: str | None) -> None:
    assert accounts.by_certificate(common_name, FINGERPRINT) is None


@pytest.mark.parametrize("spelling", [FINGERPRINT, FINGERPRINT.upper(), ":".join(["9F"] * 32)])
def test_a_fingerprint_proves_its_account_whatever_the_common_name(spelling: str) -> None:
    found = Accounts.parse(users(bearer("dave", f"sha256:{spelling}")), "u").by_certificate("somebody", FINGERPRINT)
    assert found is not None
    assert found.name == "dave"


def test_a_common_name_that_looks_like_a_fingerprint_is_none() -> None:
    assert Accounts.parse(users(bearer("dave", f"sha256:{FINGERPRINT}")), "u").by_certificate(FINGERPRINT, "00" * 32) is None


def test_a_certificate_of_two_accounts_proves_neither() -> None:
    both = Accounts.parse(users(bearer("dave", f"sha256:{FINGERPRINT}"), bearer("erin", "cn:erin")), "u")
    assert both.by_certificate("erin", FINGERPRINT) is None


def test_a_certificate_that_names_one_account_twice_proves_it() -> None:
    one = Accounts.parse(users(bearer("dave", f"sha256:{FINGERPRINT}", "cn:dave")), "u")
    assert one.by_certificate("dave", FINGERPRINT) is one.get("dave")


@pytest.mark.parametrize(
    "text",
    [
        "carol",
        "cn:",
        "cn: carol",
        "cn:a\u202eb",
        "cn:" + "x" * 65,
        "sha256:",
        "sha256:" + "9f" * 31,
        "sha256:" + "9g" * 32,
        "sha1:" + "9f" * 20,
    ],
)
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cn:NAME or sha256:FINGERPRINT"):
        Certificate.parse(text)


# The file


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("", 1, "accounts"),
        ("accounts:\n", 1, "accounts"),
        ("accounts: []\nmore: 1\n", 2, "more"),
        (users(person(), person()), 3, "accounts[1].name"),
        (users("{name: alice}"), 2, "accounts[0].name"),
        (users("{name: 'a b', certificates: ['cn:a']}"), 2, "accounts[0].name"),
        (users("{name: '', certificates: ['cn:a']}"), 2, "accounts[0].name"),
        (users(person(more=", group: x")), 2, "accounts[0].group"),
        (users("{name: a, groups: [x, x], certificates: ['cn:a']}"), 2, "accounts[0].groups"),
        (users("{name: a, groups: ['x:y'], certificates: ['cn:a']}"), 2, "accounts[0].groups"),
        (users(bearer("a", "cn:x"), bearer("b", "cn:x")), 3, "accounts[1].certificates"),
        (users(bearer("a", "sha256:" + "AB" * 32), bearer("b", "sha256:" + "ab" * 32)), 3, "accounts[1].certificates"),
        (users(person(password="")), 2, "accounts[0].password"),
    ],
)
def test_a_fault_is_named_by_line_and_key(text: str, line: int, key: str) -> None:
    found = fault(text)
    assert (found.file, found.line, found.key) == ("users.yaml", line, key)


SALT, TAG = HASH.split("$")[4:]


@pytest.mark.parametrize(
    "phc",
    [
        WEAK,
        HASH.replace("m=19456", "m=19455"),
        HASH.replace("t=2", "t=1"),
        HASH.replace("p=1", "p=0"),
        HASH.replace("m=19456", "m=99999999"),
        HASH.replace("t=2", "t=1000"),
        HASH.replace("p=1", "p=255"),
        HASH.replace("m=19456", "m=019456"),
        HASH.replace("m=19456", "m=\uff11\uff19\uff14\uff15\uff16"),
        HASH.replace("argon2id", "argon2i"),
        HASH.replace("argon2id", "argon2d"),
        HASH.replace("v=19", "v=16"),
        HASH.replace(SALT, SALT[:10]),
        HASH.replace(SALT, SALT[:-1] + "B"),  # stray bits: libargon2 would refuse it at every sign-in
        HASH.replace(TAG, TAG[:8]),
        HASH.replace(TAG, TAG + "="),
        HASH + " ",
        HASH + "$x",
        "$2b$12$abcdefghijklmnopqrstuuu",
    ],
)
def test_a_hash_that_is_weak_too_dear_or_none_is_refused_with_its_line(phc: str) -> None:
    found = fault(users(bearer("z", "cn:z"), person(password=phc)))
    assert (found.line, found.key) == (3, "accounts[1].password")


def test_a_weak_hash_is_told_what_is_weak_in_it() -> None:
    assert "m=8192, least 19456" in fault(users(person(password=WEAK))).why


@pytest.mark.parametrize(
    "plain", ["'hunter2-plain'", "12345678", "0x1234", "1.5e3", "2024-01-01", "[hunter2-plain]", "{hunter2-plain: 1}", "true"]
)
def test_a_password_written_in_plain_is_not_quoted_back(plain: str) -> None:
    found = fault(users(f"{{name: alice, password: {plain}}}"))
    assert plain.strip("'[{}]: 1") not in str(found)


def test_no_hash_is_in_an_error_or_a_repr(accounts: Accounts) -> None:
    seen = str(fault(users(person(password=WEAK)))) + repr(accounts.get("alice")) + repr(accounts)
    assert WEAK.rsplit("$", 1)[1] not in seen
    assert TAG not in seen
    assert SALT not in seen


# New passwords


def test_a_new_hash_is_taken_by_a_users_file() -> None:
    assert Accounts.parse(users(person(password=hash_password(PASSWORD))), "u").verify("alice", PASSWORD) is not None


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password(PASSWORD) != hash_password(PASSWORD)


@pytest.mark.parametrize("password", ["", "elevenchars", "p" * (MAX_SECRET + 1)])
def test_a_short_or_overlong_new_password_is_refused_and_not_quoted(password: str) -> None:
    with pytest.raises(BadPassword) as caught:
        hash_password(password)
    assert not password or password not in str(caught.value)


# The shipped example


def test_the_shipped_file_lets_nobody_in() -> None:
    assert len(Accounts.parse(EXAMPLE.read_text(), "users.yaml")) == 0


def test_the_shipped_example_is_taken_once_it_is_uncommented() -> None:
    _, _, block = EXAMPLE.read_text().partition("accounts: []\n")
    accounts = Accounts.parse(re.sub(r"^# ?", "", block, flags=re.MULTILINE), "users.yaml")
    assert accounts.get("alice") is not None
    assert accounts.by_certificate("night.shift@cloud.example", "00" * 32) is accounts.get("night.shift")
