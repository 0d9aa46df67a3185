"""A database that is not there, empty, or of another release: said, and none is made by looking."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import make_url, text

from postroom.config.database import Database
from servers.databases import Databases, on_postgresql, on_sqlite

COMMANDS = [
    ["account", "list"],
    ["account", "activate", "a@b.example"],
    ["mail", "list"],
    ["mail", "cancel", str(UUID(int=7))],
    ["explain", "--from", "a@b.example"],
    ["reject", "list"],
]


def _remove(house: Any) -> Any:
    house.process.close()
    path = house.folder / "postroom.db"
    for file in house.folder.glob("postroom.db*"):
        file.unlink()
    return path


@on_sqlite
@pytest.mark.parametrize("words", COMMANDS)
def test_without_a_database_it_is_said_and_none_is_made(house: Any, words: list[str]) -> None:
    path = _remove(house)
    result = house.run(*words)
    assert (result.code, result.out) == (1, "")
    assert "postroom up" in result.err
    assert "postroom migrate" in result.err
    assert list(house.folder.glob("postroom.db*")) == []
    assert not path.exists()


@pytest.mark.parametrize("words", COMMANDS)
def test_an_empty_database_is_said(
    house: Any, words: list[str], database_url: str, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database_url.startswith("sqlite"):
        _remove(house).touch()
        result = house.run(*words)
    else:
        with databases.empty("postgresql", house.folder) as url:
            monkeypatch.setenv("POSTROOM_DATABASE_URL", url)
            result = house.run(*words)
    assert result.code == 1
    assert "empty" in result.err
    assert "postroom migrate" in result.err


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("0001", "(0001); `postroom up` or `postroom migrate`"),
        ("9999", "install that release"),
    ],
)
def test_another_releases_schema_is_said(house: Any, revision: str, said: str) -> None:
    database = Database(house.settings.database)
    with database.write() as connection:
        connection.execute(text("ALTER TABLE mails DROP COLUMN tags"))
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    database.close()
    result = house.run("mail", "list")
    assert result.code == 1
    assert said in result.err


def test_a_newer_releases_database_is_not_migrated(house: Any) -> None:
    with house.process.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    result = house.run("migrate")
    assert (result.code, result.out) == (1, "")
    assert "the database is of a newer release (revision 9999); install that release, or restore a backup" in result.err


@on_postgresql
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_letter_is_refused(
    house: Any, databases: Databases, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    databases.server.run(f"CREATE DATABASE other TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    monkeypatch.setenv("POSTROOM_DATABASE_URL", databases.server.url("other"))
    result = house.run("migrate")
    databases.server.run("DROP DATABASE other WITH (FORCE)")
    assert (result.code, result.out) == (1, "")
    assert f"the database's encoding is {encoding}" in result.err


@on_sqlite
def test_a_file_that_is_no_database_is_said(house: Any) -> None:
    _remove(house).write_bytes(b"not a database at all, but long enough to be looked at\n" * 100)
    result = house.run("mail", "list")
    assert result.code == 1
    assert "POSTROOM_DATABASE_URL" in result.err


@on_sqlite
def test_a_folder_that_cannot_be_written_is_said(house: Any, smtp: Any) -> None:
    house.add_account(smtp)
    house.process.close()
    lock = house.folder / "postroom.db.write-lock"
    lock.unlink()
    lock.mkdir()  # root may write anywhere, but not this
    for words in (["account", "deactivate", "shop@shop.example"], ["migrate"]):
        result = house.run(*words)
        assert result.code == 1
        assert str(lock) in result.err


@on_postgresql
@pytest.mark.parametrize(
    ("words", "wrong", "said"),
    [
        *((words, {"query": {"host": "/nowhere"}}, "/nowhere") for words in COMMANDS),
        (["migrate"], {"query": {"host": "/nowhere"}}, "/nowhere"),
        (["mail", "list"], {"database": "postroom_none"}, '"postroom_none" does not exist'),
        (["mail", "list"], {"username": "nobody", "password": "s3cret"}, '"nobody" does not exist'),
        (["mail", "list"], {"query": {"host": "no-such-host.invalid"}}, "no-such-host.invalid"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_server_that_cannot_be_used_is_said(
    house: Any, monkeypatch: pytest.MonkeyPatch, words: list[str], wrong: dict[str, Any], said: str
) -> None:
    url = make_url(house.settings.database).set(**wrong).render_as_string(hide_password=False)
    monkeypatch.setenv("POSTROOM_DATABASE_URL", url)
    result = house.run(*words)
    assert (result.code, result.out) == (1, "")
    assert "POSTROOM_DATABASE_URL" in result.err
    assert said in result.err
    assert "Traceback" not in result.err
    assert "s3cret" not in result.err
