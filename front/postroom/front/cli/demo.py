"""`postroom demo`."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def demo(
    *, keep: Annotated[bool, typer.Option("--keep", help="Leave it running afterwards, until Ctrl-C.")] = False
) -> None:
    """Show the main job end to end, for real: in a scratch folder, against a mail server of its own."""
    from postroom.front.demo import demo as run  # noqa: PLC0415 - commands start fast

    raise typer.Exit(run(keep=keep))
