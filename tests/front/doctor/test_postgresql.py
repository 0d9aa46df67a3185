"""The doctor on PostgreSQL: well, without a schema, of another release, away, and silent."""

import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from postroom.config.database import Database
from postroom.config.settings import Settings
from postroom.front.doctor import Check, Report
from servers.databases import Databases, on_postgresql

Examine = Callable[[Settings], Report]


def look(settings: Settings, examine: Examine, url: str) -> Check:
    report = examine(settings.model_copy(update={"database_url": url}))
    [check] = [check for check in report.checks if check.name == "database"]
    return check


@on_postgresql
def test_a_database_that_is_well_and_then_of_another_release(
    settings: Settings, examine: Examine, database_url: str
) -> None:
    check = look(settings, examine, database_url)
    assert check.ok, check
    assert "postgresql, revision" in check.message
    for revision, action in (("0001", "postroom migrate"), ("9999", "Install the release")):
        database = Database(database_url)
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        database.close()
        check = look(settings, examine, database_url)
        assert not check.ok
        assert f"revision {revision}" in check.message
        assert action in check.action


def test_a_database_without_a_schema(
    settings: Settings, examine: Examine, databases: Databases, tmp_path: Path
) -> None:
    with databases.empty("postgresql", tmp_path) as url:
        check = look(settings, examine, url)
    assert not check.ok
    assert "has no schema" in check.message
    assert "migrate" in check.action


def test_a_server_that_is_away_or_silent(settings: Settings, examine: Examine, silent_port: int) -> None:
    for where in ("@/postroom?host=/nowhere", f"@127.0.0.1:{silent_port}/postroom"):
        began_at = time.monotonic()
        check = look(settings, examine, f"postgresql://postroom:s3cret{where}")
        assert not check.ok, where
        assert "s3cret" not in str(check)
        assert time.monotonic() - began_at < 10
