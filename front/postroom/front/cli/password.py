"""Passwords, by a hidden prompt, stdin or a file; never as an argument, which every user of the machine could read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]
FromFile = Annotated[
    Path | None, typer.Option("--password-file", dir_okay=False, help="Read the password from this file.")
]


def given(from_stdin: bool, from_file: Path | None) -> str | None:
    """The password from where the options say, or None without such an option. A last line end is not part of it.

    Raises:
        typer.BadParameter: both are given, or what is read is no password.
    """
    if from_stdin and from_file is not None:
        raise typer.BadParameter("not together with --password-stdin", param_hint="--password-file")
    if from_stdin:
        return _password(sys.stdin.buffer.read(), "--password-stdin")
    if from_file is None:
        return None
    try:
        return _password(from_file.read_bytes(), "--password-file")
    except OSError as error:
        raise typer.BadParameter(f"{from_file}: {error.strerror}", param_hint="--password-file") from None


def asked() -> str | None:
    """The password that is typed at a hidden prompt, or None without a terminal."""
    if not sys.stdin.isatty():
        return None
    typed: str = typer.prompt("Password", hide_input=True, err=True)
    return typed


def _password(read: bytes, option: str) -> str:
    try:
        password = read.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise typer.BadParameter("the password is no UTF-8", param_hint=option) from None
    if not password:
        raise typer.BadParameter("the password is empty", param_hint=option)
    if "\n" in password or "\0" in password:
        raise typer.BadParameter("the password must be one line", param_hint=option)
    return password
