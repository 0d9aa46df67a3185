"""Makes what docker-compose.yml reads from ./secrets, once: keys, passwords, and the URLs that hold them.

A file secret is mounted as it lies on the host, with its owner and mode: so each reader has a folder, and every file in
it belongs to the user that its containers run as, mode 0400 or 0600. `make compose-keys` runs this: as root by itself,
else in a container that is root, since only root can give files away.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from postroom.config import vault
from postroom.config.settings import Settings
from postroom.producer.errors import PostroomError, Refused

OWNERS: Final[Mapping[str, tuple[int, int]]] = {
    "worker": (10001, 10001),
    "front": (10002, 10002),
    "redis": (999, 1000),
    "postgres": (999, 999),
}
"""Folder → user and group: of the image of the Dockerfile, of valkey's and of postgres's."""

FILES: Final = (
    "worker/private.ring",
    "worker/public.key",
    "worker/front.key",
    "worker/postroom_database_url",
    "worker/postroom_broker_url",
    "front/public.key",
    "front/front.key",
    "front/postroom_database_url",
    "front/postroom_broker_url",
    "front/postroom_flower_auth",
    "redis/redis.conf",
    "postgres/password",
)


def main() -> None:
    """Make them all, or say why not."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "secrets")
    try:
        made = make(folder)
    except PostroomError as error:
        sys.exit(f"compose-keys: {error}")
    if not made:
        print(f"{folder}: everything is there already; nothing was changed")  # noqa: T201 - it is a command
        return
    print(*(f"made {folder / name}" for name in FILES), sep="\n")  # noqa: T201 - as above
    print(f"Back up {folder / 'worker'}: without its ring no stored password and no letter opens again.")  # noqa: T201


def make(folder: Path) -> bool:
    """Make every file, or none.

    Returns:
        Whether they were made; False if all were there.

    Raises:
        Refused: only some are there, or this user cannot give files to others. Nothing was made.
    """
    missing = [name for name in FILES if not (folder / name).exists()]
    if not missing:
        return False
    there = [name for name in OWNERS if (folder / name).exists()]
    if there:
        raise Refused(
            f"{folder} holds {', '.join(there)}, but not {', '.join(missing)}. Restore what is lost from its backup; "
            "to begin anew, remove the folder and the volumes of what was sealed with it (docker compose down -v)"
        )
    if os.geteuid() != 0:
        raise Refused("only root can give each file to the user that reads it: docker compose run --rm keys, or sudo")
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    scratch = folder / ".new"
    shutil.rmtree(scratch, ignore_errors=True)
    for name, text in _texts().items():
        vault.write_new(scratch / name, text, 0o400)
    _keys(scratch)
    for reader, (user, group) in OWNERS.items():
        for path in (scratch / reader, *(scratch / reader).iterdir()):
            os.chown(path, user, group)
    for reader in OWNERS:
        (scratch / reader).rename(folder / reader)
    scratch.rmdir()
    return True


def _texts() -> dict[str, str]:
    """All but the keys. `token_urlsafe` needs no quoting in a URL."""
    database, redis, flower = (secrets.token_urlsafe(32) for _ in range(3))
    database_url = f"postgresql+psycopg://postroom:{database}@postgres:5432/postroom"
    broker_url = f"redis://:{redis}@redis:6379/0"
    return {
        "worker/postroom_database_url": database_url,
        "worker/postroom_broker_url": broker_url,
        "front/postroom_database_url": database_url,
        "front/postroom_broker_url": broker_url,
        "front/postroom_flower_auth": f"postroom:{flower}",
        "redis/redis.conf": f"requirepass {redis}\n",
        "postgres/password": database,
    }


def _keys(scratch: Path) -> None:
    """As `postroom keygen` makes them; the front has copies of what is its own, too."""
    worker, front = scratch / "worker", scratch / "front"
    settings = Settings.model_construct(  # these and no others, whatever the environment says
        keys_file=worker / "private.ring",
        public_key_file=worker / "public.key",
        front_key_file=worker / "front.key",
    )
    vault.keygen(settings)
    for name, mode in (("public.key", 0o644), ("front.key", 0o600)):
        vault.write_new(front / name, (worker / name).read_text("ascii"), mode)


if __name__ == "__main__":
    main()
