"""docker-compose.yml as the real Compose client reads it, and its services in containers of `servers.containers`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from postroom.front.local_redis import find_server
from servers import containers
from servers.command import wait_until
from servers.containers import Container, Mount, Network, Spec
from servers.postgresql import PostgresqlServer, find_programs

ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = Path(sys.executable).with_name("docker-compose")
ENTRYPOINT: Final = ("postroom",)
"""Of the Dockerfile."""

Service = dict[str, Any]


def client(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the Compose client in the checkout, with no setting of ours around it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("POSTROOM_", "COMPOSE_"))}
    return subprocess.run([str(CLIENT), *words], cwd=ROOT, env=clean, capture_output=True, text=True, check=False)


def resolved() -> dict[str, Any]:
    """The whole file, every profile, with nothing left to interpolate."""
    told = client("--profile", "*", "config", "--format", "json")
    assert told.returncode == 0, told.stderr
    # it writes a dollar as it would have to stand in the file
    whole: dict[str, Any] = json.loads(told.stdout.replace("$$", "$"))
    return whole


def argv(service: Service) -> list[str]:
    """What a container of our image would run."""
    return [*(service["entrypoint"] or ENTRYPOINT), *(service["command"] or ())]


def seconds(duration: str) -> float:
    """Of a duration as Compose writes it, such as 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


class House:
    """The services of the file, as a context manager: keys made, Redis and PostgreSQL up, the database migrated.

    Args:
        folder: for secrets, data and logs.
        image: what the Dockerfile installs into /opt/postroom.
    """

    def __init__(self, folder: Path, image: Path) -> None:
        self.file = resolved()
        self.services: dict[str, Service] = self.file["services"]
        self.secrets = folder / "secrets"
        self.network = Network()
        self.running: list[Container] = []
        self._folder = folder
        self._image = image

    def __enter__(self) -> Self:
        self.secrets.mkdir(mode=0o700)
        hosts = " ".join(self.services)
        (self._folder / "hosts").write_text(f"127.0.0.1 localhost {hosts} smtp.shop.example\n")
        self._make_programs()
        self.network.__enter__()
        made = self.run("keys")
        assert made.returncode == 0, made.stderr
        self._postgresql = PostgresqlServer(durable=True, listen_addresses="127.0.0.1", port="5432")
        with self.network.inside():
            self._postgresql.__enter__()
            self._like_the_image_of_postgres()
        self.start("redis")
        wait_until(lambda: self.healthy("redis"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for container in reversed(self.running):
            container.end()
        with self.network.inside():
            self._postgresql.__exit__(None, None, None)
        self.network.__exit__(None, None, None)

    def spec(self, name: str, *words: str, host_name: str = "") -> Spec:
        """A service's container; `words` instead of its command, as `docker compose run` takes them."""
        service = self.services[name]
        ours = service["image"].startswith("postroom:")
        command = [*(service["entrypoint"] or (ENTRYPOINT if ours else ())), *(words or service["command"] or ())]
        mounts = [Mount(self._folder / "hosts", "/etc/hosts"), *self._secrets(service), *self._volumes(service)]
        if ours:
            mounts.append(Mount(self._image, "/opt/postroom"))
        else:
            mounts.append(Mount(self._folder / "bin", "/opt/postroom/bin"))  # on the PATH
        return Spec(
            name=host_name or name,
            argv=command,
            user=service["user"],
            capabilities=service.get("cap_add", ()),
            mounts=mounts,
            tmpfs=service.get("tmpfs", ()),
            environment=service.get("environment", {}),
            working_dir="/data" if name == "redis" else "/",  # as in the images
            read_only=service["read_only"],
        )

    def start(self, name: str, *, host_name: str = "") -> Container:
        """Start a service's container."""
        log = self._folder / f"{host_name or name}.log"
        container = containers.start(self.spec(name, host_name=host_name), self.network, log)
        self.running.append(container)
        return container

    def run(self, name: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """`docker compose run --rm NAME WORDS`."""
        return containers.run(self.spec(name, *words), self.network, given)

    def execute(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker compose exec NAME WORDS`, in the container of that service that was started last."""
        return containers.execute(self.container(name), words, self.spec(name))

    def container(self, name: str) -> Container:
        """The container of a service that was started last."""
        return next(each for each in reversed(self.running) if each.name == name)

    def healthy(self, name: str) -> bool:
        """What the health check of a service says; PostgreSQL's is asked from a container beside it."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        command = ["/bin/sh", "-c", *test] if kind == "CMD-SHELL" else test
        if name == "postgres":
            return self.run(name, *command).returncode == 0
        return self.container(name).process.poll() is None and self.execute(name, *command).returncode == 0

    def _secrets(self, service: Service) -> list[Mount]:
        found = []
        for each in service.get("secrets", ()):
            source = Path(self.file["secrets"][each["source"]]["file"]).relative_to(ROOT / "secrets")
            target = each["target"] if each["target"].startswith("/") else f"/run/secrets/{each['target']}"
            found.append(Mount(self.secrets / source, target))
        return found

    def _volumes(self, service: Service) -> list[Mount]:
        found = []
        for each in service.get("volumes", ()):
            if each["type"] == "volume":
                folder = self._folder / "volumes" / each["source"]
                if not folder.exists():  # the image's folder belongs to its user
                    folder.mkdir(parents=True)
                    os.chown(folder, *map(int, service["user"].split(":")))
            else:
                given = Path(each["source"])
                folder = self.secrets if given == ROOT / "secrets" else given
            found.append(Mount(folder, each["target"], read_only=each.get("read_only", False)))
        return found

    def _make_programs(self) -> None:
        """Programs of the images that are not ours, by their names there."""
        folder = self._folder / "bin"
        folder.mkdir()
        shutil.copy(find_server(), folder / "valkey-server")
        shutil.copy("/usr/bin/redis-cli", folder / "valkey-cli")
        postgresql = find_programs()
        if postgresql is not None:
            shutil.copy(postgresql / "pg_isready", folder)

    def _like_the_image_of_postgres(self) -> None:
        environment: Mapping[str, str] = self.services["postgres"]["environment"]
        user, database = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
        password = (self.secrets / "postgres" / "password").read_text()
        rules = self._postgresql.folder / "data" / "pg_hba.conf"
        rules.write_text("local all all trust\nhost all all all scram-sha-256\n")
        for statement in (
            f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'",
            f"CREATE DATABASE {database} OWNER {user}",
            "SELECT pg_reload_conf()",
        ):
            self._postgresql.run(statement)
