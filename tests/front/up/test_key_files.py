"""A lost key is never replaced by a new one while the ledger needs it."""

from pathlib import Path
from uuid import uuid4

import pytest

from postroom.config import accounts
from postroom.config.accounts import Account
from postroom.config.database import Database, migrate
from postroom.config.settings import Settings
from postroom.config.states import Auth, Security
from postroom.front import key_files
from postroom.producer.errors import KeyUnusable


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    assert len(key_files.make(settings)) == 3
    migrate(settings.database)
    return settings


def store_a_password(settings: Settings) -> None:
    database = Database(settings.database)
    with database.write() as connection:
        sealed = Account(uuid4(), "a@b.example", "localhost", 25, Security.NONE, Auth.PLAIN, password=b"sealed")
        accounts.add(connection, sealed)
    database.close()


@pytest.mark.parametrize("lost", ["ring_file", "front_file"])
def test_a_lost_key_is_not_replaced_while_the_ledger_needs_it(settings: Settings, lost: str) -> None:
    store_a_password(settings)
    path: Path = getattr(settings, lost)
    path.unlink()
    settings.public_file.unlink()
    with pytest.raises(KeyUnusable, match="Restore it from its backup") as refused:
        key_files.make(settings)
    assert str(path) in str(refused.value)
    assert not path.exists()
    assert not settings.public_file.exists()


def test_an_empty_ledger_needs_none(settings: Settings) -> None:
    settings.ring_file.unlink()
    settings.public_file.unlink()
    assert key_files.make(settings) == [settings.ring_file, settings.public_file]


def test_a_front_key_that_others_may_read_is_refused_before_anything_runs(settings: Settings) -> None:
    settings.front_file.chmod(0o644)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        key_files.make(settings)
