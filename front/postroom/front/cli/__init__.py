"""The command line. `root` holds the app; each other file holds the commands of one subject."""

import sys


def main() -> None:
    """Console script `postroom`: exit 0 done, 1 refused with the reason on stderr, 2 usage, 130 interrupted."""
    try:
        _run()
    except KeyboardInterrupt:  # such as one while importing
        sys.exit(130)


def _run() -> None:
    from postroom.producer.errors import PostroomError  # noqa: PLC0415 - whatever takes its time can be interrupted

    try:
        from postroom.front.cli.root import app  # noqa: PLC0415 - a bare install has no typer: said below

        app()
    except PostroomError as error:
        sys.exit(f"postroom: {error}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "postroom":
            raise
        sys.exit(f"postroom: {missing} is not installed; run: pip install 'postroom[front]'")
