"""docker-compose.yml and the Dockerfile as they are written: what each container may read, be and reach."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom.front.up import COMMANDS
from servers.compose import CLIENT, ROOT, Service, client, resolved, seconds

PARTS = {"accept", "drain", "care", "scheduler", "flower"}
WORKERS = {"accept", "drain", "care"}
OURS = PARTS | {"migrate", "postroom", "keys"}
STOPS_IN_SECONDS = 15

pytestmark = pytest.mark.skipif(not CLIENT.exists(), reason="the Compose client is not installed (make install)")


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return resolved()


@pytest.fixture(scope="module")
def services(file: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = file["services"]
    return found


def sources(service: Service) -> set[str]:
    return {each["source"] for each in service.get("secrets", ())}


def test_the_compose_client_takes_it() -> None:
    for words in (["config", "-q"], ["--profile", "*", "config", "-q"]):
        told = client(*words)
        assert (told.returncode, told.stderr) == (0, "")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed (make install)")
    told = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


def test_the_parts_are_those_of_up_by_the_same_commands(services: dict[str, Service]) -> None:
    assert services.keys() == OURS | {"redis", "postgres"}
    told = {name: tuple(services[name]["command"]) for name in PARTS}
    assert told == COMMANDS


def test_every_container_is_closed(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"\d+:\d+", service["user"]), name
        assert "privileged" not in service, name
        assert service["user"].startswith("0:") == (name == "keys"), name
    assert services["keys"]["network_mode"] == "none"


def test_images_are_pinned_and_ours_is_this_version(services: dict[str, Service]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {name: service["image"] for name, service in services.items()}
    assert {images[name] for name in OURS} == {f"postroom:{version}"}
    for image in images.values():
        assert re.search(r":\d", image), image
    for base in re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        assert re.search(r":\d+\.\d+-slim-\w+$", base), base


def test_the_private_ring_is_mounted_in_the_workers_alone(services: dict[str, Service]) -> None:
    assert {name for name in services if "worker_private_ring" in sources(services[name])} == WORKERS
    workers = {services[name]["user"] for name in WORKERS}
    others = {service["user"] for name, service in services.items() if name not in WORKERS}
    assert len(workers) == 1
    assert not workers & others
    for name, service in services.items():  # nobody has a secret of another reader
        reader = {"redis": "redis", "postgres": "postgres"}.get(name, "worker" if name in WORKERS else "front")
        assert all(source.startswith(f"{reader}_") for source in sources(service)), name
        folders = [each["source"] for each in service.get("volumes", ()) if "secrets" in each["source"]]
        assert bool(folders) == (name == "keys"), name


def test_each_part_has_the_secrets_that_it_needs_and_no_more(services: dict[str, Service]) -> None:
    assert sources(services["flower"]) == {"front_broker_url", "front_flower_auth"}
    assert sources(services["scheduler"]) == {"front_broker_url"}
    assert sources(services["migrate"]) == {"front_database_url"}


def test_no_secret_stands_in_an_environment_or_a_command(services: dict[str, Service]) -> None:
    def words(service: Service) -> Iterator[str]:
        yield from (service["command"] or ()) if service.get("command") else ()
        yield from service.get("environment", {}).values()
        yield from service.get("build", {}).get("args", {}).values()

    for name, service in services.items():
        for word in words(service):
            assert not re.search(r"://[^/]*:[^/]*@", word), name
        for variable, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET|AUTH|_KEY", variable)
            assert not secret or value.startswith("/run/secrets/"), (name, variable)


def test_only_what_sends_reaches_the_outside_and_only_loopback_is_published(file: dict[str, Any]) -> None:
    services: dict[str, Service] = file["services"]
    networks = {name: set(service.get("networks") or ()) for name, service in services.items()}
    assert file["networks"]["backend"]["internal"] is True
    assert {name for name, found in networks.items() if "outside" in found} == {"drain", "care"}
    assert {name for name, found in networks.items() if "published" in found} == {"flower"}
    for name, service in services.items():
        assert {each["host_ip"] for each in service.get("ports", ())} <= {"127.0.0.1"}, name
        assert "container_name" not in service, name  # or it could not be scaled


def test_nothing_is_killed_before_its_warm_stop(services: dict[str, Service]) -> None:
    grace = {name: seconds(service["stop_grace_period"]) for name, service in services.items() if name in PARTS}
    assert grace["drain"] >= 2 * STOPS_IN_SECONDS
    assert grace["care"] > 60
    assert grace["accept"] >= 60
    for name in PARTS:
        assert services[name]["init"] is True
        assert services[name]["restart"] == "unless-stopped"


def test_every_part_waits_for_what_it_needs(services: dict[str, Service]) -> None:
    for name in PARTS - {"flower"}:
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert services[name]["depends_on"]["redis"]["condition"] == "service_healthy"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in PARTS | {"redis", "postgres"}:
        assert services[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_redis_keeps_what_it_has_taken(services: dict[str, Service]) -> None:
    words = services["redis"]["command"]
    told = dict(zip(words[2::2], words[3::2], strict=True))
    assert told["--appendonly"] == "yes"
    assert told["--maxmemory-policy"] == "noeviction"
    assert told["--dir"] == "/data"
    assert [each["target"] for each in services["redis"]["volumes"]] == ["/data"]


def test_what_the_page_shows_for_compose_is_taken_by_the_client(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert shown
    for number, text in enumerate(shown):
        override = tmp_path / f"{number}.yml"
        override.write_text(text)
        told = client("-f", "docker-compose.yml", "-f", str(override), "config", "--format", "json")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["services"]["drain"]["command"] == ["worker", "drain"]
