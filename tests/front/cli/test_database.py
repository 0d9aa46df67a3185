"""A database that is not there, empty, or of another release: said, and none is made by looking."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from postroom.config.database import Database

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
def test_an_empty_database_is_said(house: Any, words: list[str]) -> None:
    _remove(house).touch()
    result = house.run(*words)
    assert result.code == 1
    assert "empty" in result.err
    assert "postroom migrate" in result.err


def test_another_releases_schema_is_said(house: Any) -> None:
    database = Database(house.settings.database)
    with database.write() as connection:
        connection.execute(text("ALTER TABLE mails DROP COLUMN tags"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    database.close()
    result = house.run("mail", "list")
    assert result.code == 1
    assert "0000" in result.err
    assert "postroom migrate" in result.err


def test_a_file_that_is_no_database_is_said(house: Any) -> None:
    _remove(house).write_bytes(b"not a database at all, but long enough to be looked at\n" * 100)
    result = house.run("mail", "list")
    assert result.code == 1
    assert "POSTROOM_DATABASE_URL" in result.err


def test_a_folder_that_cannot_be_written_is_said(house: Any, smtp: Any) -> None:
    house.add(smtp)
    house.process.close()
    lock = house.folder / "postroom.db.write-lock"
    lock.unlink()
    lock.mkdir()  # root may write anywhere, but not this
    result = house.run("account", "deactivate", "shop@shop.example")
    assert result.code == 1
    assert str(lock) in result.err
