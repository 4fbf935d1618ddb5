"""provider/store/place.py: paths and URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from provider.store.place import PostgresqlServer, parse_place

AWAY = "postgresql+psycopg://eva@db.example/eva"


def test_a_path_is_a_file():
    assert parse_place("/var/lib/eva-provider/provider.db") == Path("/var/lib/eva-provider/provider.db")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg://eva@localhost/eva",
        "postgresql+psycopg://eva@127.0.0.1:5433/eva",
        "postgresql+psycopg://eva@[::1]/eva",
        "postgresql+psycopg://eva@/eva?host=/run/postgresql",
        "postgresql+psycopg:///eva?host=/run/postgresql",
        f"{AWAY}?sslmode=verify-full&sslrootcert=/etc/eva/tls/ca.pem",
    ],
)
def test_a_url_is_a_server(text: str):
    found = parse_place(text)
    assert isinstance(found, PostgresqlServer)
    assert (found.url.database, found.password_file) == ("eva", None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("provider.db", "begin it with /"),
        ("postgresql://eva@localhost/eva", "begin a URL with postgresql"),
        ("sqlite:////var/lib/eva.db", "give the file's path alone"),
        ("mysql://localhost/eva", "begin a URL with postgresql"),
        ("postgresql+psycopg://eva:hunter2@localhost/eva", "store_password_file"),
        ("postgresql+psycopg://eva@localhost", "names no database"),
        ("postgresql+psycopg://eva@localhost/", "names no database"),
        ("postgresql+psycopg:///eva", "names no host"),
        ("postgresql+psycopg://localhost/eva?host=/run/postgresql", "no other host"),
        ("postgresql+psycopg:///eva?host=db.example", "directory of a UNIX socket"),
        ("postgresql+psycopg:///eva?host=/a&host=/b", "twice"),
        ("postgresql+psycopg://localhost/eva?password=hunter2", "password is no parameter"),
        ("postgresql+psycopg://localhost/eva?hostaddr=192.0.2.1", "hostaddr is no parameter"),
        ("postgresql+psycopg://localhost/eva?options=-csynchronous_commit%3Doff", "options is no parameter"),
        (AWAY, "needs TLS"),
        (f"{AWAY}?sslmode=require", "needs TLS"),
        (f"{AWAY}?sslmode=verify-ca&sslrootcert=/ca", "needs TLS"),
        (f"{AWAY}?sslmode=verify-full", "sslrootcert"),
        ("postgresql+psycopg://127.0.0.1,db.example/eva", "needs TLS|begin it with"),
    ],
)
def test_what_is_refused_says_what_to_do_and_shows_no_secret(text: str, why: str):
    with pytest.raises(ValueError, match=why) as caught:
        parse_place(text)
    assert "hunter2" not in str(caught.value)


def test_it_is_shown_as_it_was_written():
    assert str(parse_place(f"{AWAY}?sslmode=verify-full&sslrootcert=/ca")) == f"{AWAY}?sslmode=verify-full&sslrootcert=%2Fca"
