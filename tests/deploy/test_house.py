"""The services of docker-compose.yml run for real: exactly their commands, users, mounts and health checks, in
containers that need no engine (`servers.containers`), on what the Dockerfile installs.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from servers.command import wait_until
from servers.compose import House, seconds
from servers.containers import Container
from servers.scripted_smtp import ScriptedSMTP, Wait

pytestmark = pytest.mark.timeout(400)  # the first of them waits for the image

PARTS = ("accept", "drain", "care", "scheduler", "flower")
LOGIN = "info@shop.example"
PASSWORD = "correct-horse-battery"  # no mailbox of this world
_LONG_AGO = (0, 0)


@pytest.fixture(scope="module")
def up(house: House) -> House:
    """Everything up and healthy, as after `docker compose up --wait`."""
    migrated = house.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    for name in PARTS:
        house.start(name)
    for name in PARTS:
        wait_until(lambda name=name: house.healthy(name), 60)  # type: ignore[misc]
    return house


@pytest.fixture(scope="module")
def smtp(up: House) -> Iterator[ScriptedSMTP]:
    """A mail server on the house's network, and an account there that signs in."""
    server = ScriptedSMTP(login=LOGIN, password=PASSWORD, auth_before_tls=True)
    with up.network.inside():
        server.__enter__()
    added = up.run(
        *("postroom", "account", "add", "--address", LOGIN, "--host", "smtp.shop.example", "--port", str(server.port)),
        *("--security", "none", "--auth", "plain", "--login", LOGIN, "--allow-cleartext", "--password-stdin"),
        given=PASSWORD,
    )
    assert added.returncode == 0, added.stderr
    yield server
    server.stop()


def send(up: House, subject: str, *words: str) -> str:
    sent = up.run("postroom", "send", "--from", LOGIN, "--to", "anna@client.example", "--subject", subject, *words)
    assert sent.returncode == 0, sent.stderr
    return sent.stdout


def letters(smtp: ScriptedSMTP, subject: str) -> int:
    return sum(f"Subject: {subject}\r\n".encode() in each.content for each in smtp.accepted)


def environment_and_command(container: Container) -> str:
    return "".join(Path(f"/proc/{container.pid}/{name}").read_text() for name in ("environ", "cmdline"))


def test_a_mail_goes_through_and_the_doctor_finds_all_well(up: House, smtp: ScriptedSMTP) -> None:
    send(up, "from a container", "--text", "Hello", "--wait")
    assert letters(smtp, "from a container") == 1
    assert smtp.accepted[-1].login == LOGIN
    doctor = up.execute("care", "postroom", "doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout
    assert all(check["ok"] for check in json.loads(doctor.stdout)["checks"])


def test_flower_answers_to_its_password_alone(up: House) -> None:
    user, _, password = (up.secrets / "front" / "postroom_flower_auth").read_text().partition(":")
    with up.network.inside():
        assert httpx.get("http://127.0.0.1:5555/api/workers").status_code == 401
        assert httpx.get("http://127.0.0.1:5555/api/workers", auth=(user, password)).status_code == 200


def test_redis_and_postgresql_want_their_passwords(up: House) -> None:
    unknown = up.execute("redis", "valkey-cli", "ping")
    assert "NOAUTH" in unknown.stdout
    assert up.healthy("redis")
    assert up.healthy("postgres")


def test_no_secret_can_be_seen_from_outside_a_container(up: House) -> None:
    hidden = [path.read_text().split()[-1] for path in up.secrets.rglob("*") if path.is_file()]
    hidden += [re.sub(r"^.*://[^:]*:([^@]*)@.*$", r"\1", value) for value in hidden]
    for container in up.running:
        told = environment_and_command(container)
        assert not [value for value in hidden if value in told], container.name
        assert not [value for value in hidden if value in container.log.read_text()], container.name


@pytest.mark.parametrize("name", PARTS)
def test_a_container_can_write_nothing_and_may_nothing(up: House, name: str) -> None:
    status = Path(f"/proc/{up.container(name).pid}/status").read_text()
    told = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {told[each] for each in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"
    assert told["Uid"].split()[0] == up.services[name]["user"].partition(":")[0]
    tried = up.execute(name, "sh", "-c", "touch /opt/postroom/x || touch /etc/x || touch /run/secrets/x || touch /x")
    assert tried.stderr.count("Read-only file system") + tried.stderr.count("Permission denied") == 4


def test_the_front_holds_nothing_that_opens_a_password_or_a_letter(up: House) -> None:
    for name in ("scheduler", "flower"):
        assert "private.ring" not in up.execute(name, "ls", "/run/secrets").stdout
    ring = up.secrets / "worker" / "private.ring"
    assert ring.stat().st_uid == int(up.services["drain"]["user"].partition(":")[0])
    assert ring.stat().st_uid != int(up.services["flower"]["user"].partition(":")[0])


def test_a_second_drain_has_a_name_of_its_own(up: House) -> None:
    second = up.start("drain", host_name="drain-2")
    try:
        wait_until(lambda: "drain@drain-2 ready" in second.log.read_text())
        doctor = up.execute("care", "postroom", "doctor", "--json")
        found = {check["name"]: check["message"] for check in json.loads(doctor.stdout)["checks"]}
        assert "drain@" in found["worker_drain"]
    finally:
        second.stop()
        assert second.ends(30) == 0


def test_health_follows_redis(up: House) -> None:
    beating = [name for name in PARTS if "POSTROOM_ALIVE_FILE" in up.services[name]["environment"]]
    files = [up.container(name).path(up.services[name]["environment"]["POSTROOM_ALIVE_FILE"]) for name in beating]
    up.container("redis").end()
    wait_until(lambda: not up.healthy("redis"))
    renewed_at: list[float] = []
    while renewed_at != (renewed_at := [file.stat().st_mtime for file in files]):
        time.sleep(7)  # more than a beat
    for file in files:
        os.utime(file, _LONG_AGO)
    assert not [name for name in beating if up.healthy(name)]
    up.start("redis")
    for name in ("redis", *beating):
        wait_until(lambda name=name: up.healthy(name), 60)  # type: ignore[misc]


def test_a_stop_waits_for_the_mail_whose_final_dot_went(up: House, smtp: ScriptedSMTP) -> None:
    smtp.script({".": [Wait(3)]})
    send(up, "slow", "--text", "Hello")
    wait_until(lambda: letters(smtp, "slow") == 1)  # the server has it, and keeps its reply for 3 s
    began_at = time.monotonic()
    for name in PARTS:
        up.container(name).stop()
    for name in PARTS:
        grace = seconds(up.services[name]["stop_grace_period"])
        assert up.container(name).ends(max(0.1, min(grace, 30) - (time.monotonic() - began_at))) == 0, name
    assert time.monotonic() - began_at > 2
    found = json.loads(up.run("postroom", "mail", "list", "--json").stdout)
    slow = next(mail for mail in found if mail["subject"] == "slow")
    assert (slow["state"], slow["copies_possible"]) == ("sent", 1)

    for name in PARTS:
        up.start(name)
    send(up, "after", "--text", "Hello", "--wait")
    assert (letters(smtp, "slow"), letters(smtp, "after")) == (1, 1)
