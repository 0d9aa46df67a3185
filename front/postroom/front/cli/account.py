"""`postroom account …`: the mailboxes that can send."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from postroom.config.states import Auth, Security
from postroom.front.cli import account_limits as limits
from postroom.front.cli import output, password
from postroom.front.cli.opening import opened

if TYPE_CHECKING:
    from rich.text import Text

    from postroom.config.accounts import Account
    from postroom.front.access import Access
    from postroom.worker.verify import Progress

app = typer.Typer(no_args_is_help=True, help="The mailboxes that can send.")

_PORTS: Final = {Security.TLS: 465, Security.STARTTLS: 587, Security.NONE: 25}
_OPTIONS: Final = {
    **limits.OPTIONS,
    "connections": "--connections",
    "allow_cleartext": "--allow-cleartext",
    "password": "--password-stdin",
}

_ADDRESS = typer.Option(help="The From address that it sends as.")
_NAME = typer.Option(help="The name shown beside the address.")
_HOST = typer.Option(help="The SMTP server's name.")
_PORT = typer.Option(min=1, max=65535, metavar="PORT", help="Default: by --security, else 587.", show_default=False)
_SECURITY = typer.Option(
    metavar="HOW", help="tls, starttls or none. Default: by --port: tls for 465, else starttls.", show_default=False
)
_AUTH = typer.Option(metavar="HOW", help="auto (the strongest that is offered), none, plain, login, cram-md5, xoauth2.")
_LOGIN = typer.Option(help="Default: the address.", show_default=False)
_OWNER = typer.Option(help="The CRM user it belongs to. Default: nobody, it is shared.", show_default=False)
_PRIORITY = typer.Option(metavar="N", help="Of several accounts with an address the lowest is taken first.")
_CONNECTIONS = typer.Option(min=1, max=100, metavar="N", help="Connections at once, at most.")
_CLEARTEXT = typer.Option("--allow-cleartext", help="Let the password go over an unencrypted connection.")
_CLEARTEXT_OR_NOT = typer.Option("--allow-cleartext/--no-allow-cleartext", help=_CLEARTEXT.help, show_default=False)
_PIPELINING = typer.Option(
    "--pipelining/--no-pipelining",
    help="Write commands ahead of the replies where the server offers it.",
    show_default=False,
)
_Reference = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its id or address.", show_default=False)]


@app.command()
def add(
    *,
    address: Annotated[str, _ADDRESS],
    host: Annotated[str, _HOST],
    name: Annotated[str, _NAME] = "",
    port: Annotated[int | None, _PORT] = None,
    security: Annotated[Security | None, _SECURITY] = None,
    auth: Annotated[Auth, _AUTH] = Auth.AUTO,
    login: Annotated[str | None, _LOGIN] = None,
    password_stdin: password.FromStdin = False,
    password_file: password.FromFile = None,
    owner: Annotated[str | None, _OWNER] = None,
    priority: Annotated[int, _PRIORITY] = 0,
    connections: Annotated[int, _CONNECTIONS] = 4,
    mails_per_minute: limits.MailsPerMinute = None,
    recipients_per_day: limits.RecipientsPerDay = None,
    allow_cleartext: Annotated[bool, _CLEARTEXT] = False,
    pipelining: Annotated[bool, _PIPELINING] = True,
    as_json: output.Json = False,
) -> None:
    """Prove a mailbox by a test mail to itself, then store it. The password is asked for, or read from stdin or a file.

    A worker connects, signs in and sends; if a step fails, nothing is stored.
    """
    from postroom.config.accounts import Account
    from postroom.front.account_changes import add_account
    from postroom.producer.identifiers import uuid7

    chosen_security, chosen_port = _security_and_port(security, port)
    signs_in = auth is not Auth.NONE
    candidate = Account(
        id=uuid7(),
        address=address,
        name=name,
        owner=owner or None,
        host=host,
        port=chosen_port,
        security=chosen_security,
        auth=auth,
        login=(login or address) if signs_in else "",
        allow_cleartext=allow_cleartext,
        pipelining=pipelining,
        priority=priority,
        connections=connections,
        **limits.given(mails_per_minute=mails_per_minute, recipients_per_day=recipients_per_day),
    )
    secret = password.given(password_stdin, password_file)
    if secret is None and signs_in:
        secret = password.asked()
        if secret is None:
            raise typer.BadParameter(
                "there is no terminal to ask for the password: give --password-stdin or --password-file",
                param_hint="--password-stdin",
            )
    with opened() as access, _named_by_option():
        added = add_account(access, candidate, secret, _tell)
    _show(added, as_json, "proved and added")


@app.command()
def edit(
    *,
    reference: _Reference,
    address: Annotated[str | None, _ADDRESS] = None,
    name: Annotated[str | None, _NAME] = None,
    host: Annotated[str | None, _HOST] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, metavar="PORT")] = None,
    security: Annotated[Security | None, typer.Option(metavar="HOW", help="tls, starttls or none.")] = None,
    auth: Annotated[Auth | None, _AUTH] = None,
    login: Annotated[str | None, typer.Option()] = None,
    password_stdin: password.FromStdin = False,
    password_file: password.FromFile = None,
    owner: Annotated[str | None, typer.Option(help="The CRM user it belongs to; '' makes it shared.")] = None,
    priority: Annotated[int | None, _PRIORITY] = None,
    connections: Annotated[int | None, _CONNECTIONS] = None,
    mails_per_minute: limits.MailsPerMinute = None,
    recipients_per_day: limits.RecipientsPerDay = None,
    allow_cleartext: Annotated[bool | None, _CLEARTEXT_OR_NOT] = None,
    pipelining: Annotated[bool | None, _PIPELINING] = None,
    as_json: output.Json = False,
) -> None:
    """Change what is given. Another address, password, host, port, security, auth or login is proved first.

    All of these but the address need the password again, since they say where it goes.
    """
    from postroom.front.account_changes import edit_account, needs_password

    wanted = {
        "address": address,
        "name": name,
        "host": host,
        "port": port,
        "security": security,
        "auth": auth,
        "login": login,
        "priority": priority,
        "connections": connections,
        "allow_cleartext": allow_cleartext,
        "pipelining": pipelining,
    }
    changes: dict[str, Any] = {field: value for field, value in wanted.items() if value is not None}
    changes |= limits.given(mails_per_minute=mails_per_minute, recipients_per_day=recipients_per_day)
    if owner is not None:
        changes["owner"] = owner or None
    if auth is Auth.NONE:
        changes["login"] = ""
    secret = password.given(password_stdin, password_file)
    if not changes and secret is None:
        raise typer.BadParameter("nothing to change is given", param_hint="account edit")
    with opened() as access, _named_by_option():
        before = _find(access, reference)
        if changes.get("auth", Auth.NONE) is not Auth.NONE and before.auth is Auth.NONE and login is None:
            changes["login"] = changes.get("address", before.address)
        after = replace(before, **changes)
        if secret is None and needs_password(before, after):
            secret = password.asked()
        edited = edit_account(access, before, after, secret, _tell)
    _show(edited, as_json, "changed")


@app.command("list")
def list_(
    *,
    owner: Annotated[str | None, typer.Option(help="Only this CRM user's.")] = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only these.", show_default=False)] = None,
    limit: output.Limit = 50,
    as_json: output.Json = False,
) -> None:
    """List the accounts, newest first."""
    from postroom.config import accounts, pauses

    with opened() as access, access.read() as connection:
        found = [each.to_json() for each in accounts.newest(connection, limit=limit, owner=owner, active=active)]
        all_paused_since = accounts.rfc3339(pauses.since(connection))
    if as_json:
        output.as_json(found)
        return
    output.table(
        ["address", "name", "owner", "server", "active", "health", "limits", "priority", "id"],
        [
            [
                each["address"],
                each["name"],
                each["owner"],
                f"{each['host']}:{each['port']} {each['security']}",
                _active(each),
                output.good("ok") if each["health"] == "ok" else output.bad(each["health"]),
                limits.told(each["limits"]),
                each["priority"],
                output.dim(each["id"]),
            ]
            for each in found
        ],
        none="There is no account yet; `postroom account add` adds one.",
    )
    if all_paused_since is not None:
        output.note(
            output.bad(f"All accounts are paused since {output.moment(all_paused_since)}"),
            "; `postroom resume` lets them send again.",
        )


@app.command()
def show(*, reference: _Reference, as_json: output.Json = False) -> None:
    """Show one account; never its password."""
    with opened() as access:
        _show(_find(access, reference), as_json)


@app.command()
def verify(*, reference: _Reference, as_json: output.Json = False) -> None:
    """Prove an account again with its stored password. It counts as healthy after that."""
    from postroom.front.account_changes import verify_account

    with opened() as access:
        account = _find(access, reference)
        proved = verify_account(access, account, _tell)
    _show(proved, as_json, "proved")


@app.command()
def activate(*, reference: _Reference, as_json: output.Json = False) -> None:
    """Let an account send again. Held mail that it can send leaves by itself."""
    from postroom.front import account_changes

    with opened() as access:
        account = _find(access, reference)
        changed = account_changes.activate(access, account.id)
    _show(changed, as_json, "active")


@app.command()
def deactivate(*, reference: _Reference, as_json: output.Json = False) -> None:
    """Let an account send no more. Its waiting mail goes to another account of the same address, or is held."""
    from postroom.front import account_changes

    with opened() as access:
        account = _find(access, reference)
        changed = account_changes.deactivate(access, account.id)
    _show(changed, as_json, "no longer active")


@app.command()
def remove(*, reference: _Reference, as_json: output.Json = False) -> None:
    """Remove an account for good. Its waiting mail goes to another account of the same address, or is held."""
    from postroom.front import account_changes

    with opened() as access:
        account = _find(access, reference)
        account_changes.remove(access, account.id)
    _show(account, as_json, "removed")


def _active(account: dict[str, Any]) -> "Text":
    """Whether it may send, and what its provider said where that blocked it."""
    if not account["active"]:
        return output.bad("no")
    if account["paused_at"] is None:
        return output.good("yes")
    return output.bad(f"blocked: {account['paused_why']}" if account["paused_why"] else "paused")


def _find(access: "Access", reference: str) -> "Account":
    """The account that is meant.

    Raises:
        Refused: none is, or several are.
    """
    from postroom.config import accounts

    with access.read() as connection:
        return accounts.find(connection, reference)


def _security_and_port(security: Security | None, port: int | None) -> tuple[Security, int]:
    """What was asked for, and the usual one for what was not; which is said."""
    if security is None and port is None:
        output.note("Taking port 587 with starttls, which is usual.")
        return Security.STARTTLS, 587
    if security is None:
        security = Security.TLS if port == _PORTS[Security.TLS] else Security.STARTTLS
        output.note(f"Taking security {security}, which is usual for port {port}.")
    if port is None:
        port = _PORTS[security]
        output.note(f"Taking port {port}, which is usual for security {security}.")
    return security, port


@contextmanager
def _named_by_option() -> Iterator[None]:
    """Name a wrong field as the person who typed it knows it."""
    from postroom.front.account_changes import InvalidAccount

    try:
        yield
    except InvalidAccount as error:
        raise typer.BadParameter(error.why, param_hint=_OPTIONS.get(error.field, f"--{error.field}")) from None


def _tell(progress: "Progress") -> None:
    """One step of a proof, on stderr as it ends."""
    if progress.step == "done":
        return  # the command's last words say it
    mark = output.good("✓") if progress.ok else output.bad("✗")
    took = output.dim(f"  {progress.duration_seconds * 1000:.0f} ms") if progress.duration_seconds else ""
    output.note(mark, f" {progress.step:<10} {progress.detail}", took)


def _show(account: "Account", as_json: bool, done: str = "") -> None:
    shown = account.to_json()
    if as_json:
        output.as_json(shown)
        return
    if done:
        output.say(output.good(done), f": {account.address} ({account.id})")
        return
    allowed = limits.told(shown.pop("limits"))
    for name in ("paused_at", "verified_at", "created_at"):
        shown[name] = output.moment(shown[name])
    output.details([*((name.replace("_", " "), value) for name, value in shown.items()), ("limits", allowed)])
