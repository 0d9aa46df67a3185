"""A name that looks like a setting and is none is told once, by every command, and stops none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from postroom.config.settings import Settings
from postroom.producer.errors import SettingsInvalid
from postroom.worker.process import smtp_client


def test_a_command_tells_it_on_stderr_and_does_its_work(tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")},
        "POSTROOM_FLOWR_AUTH": "me:s3cret",
    }
    words = [sys.executable, "-P", "-m", "postroom.front.cli", "reply", "250 2.0.0 ok", "--json"]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["outcome"] == "accepted"
    assert done.stderr == (
        "postroom: POSTROOM_FLOWR_AUTH (environment) is no setting and has no effect; "
        "did you mean POSTROOM_FLOWER_AUTH?\n"
    )


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"no PEM", "certificate")])
def test_a_worker_names_the_file_of_certificates_that_it_cannot_use(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsInvalid, match=f"^POSTROOM_SMTP_CA_FILE: {file}: .*{why}.*must be a file of PEM"):
        smtp_client(Settings(_env_file=None, data_dir=tmp_path, smtp_ca_file=file))


def test_an_env_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"POSTROOM_LOG_LEVEL=\xff\n")
    words = [sys.executable, "-P", "-m", "postroom.front.cli", "broker-url"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "postroom: .env: is not UTF-8 text\n"
