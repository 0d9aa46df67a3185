"""`postroom send`: one mail, handed over as any producer does it."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from postroom.front.cli import output
from postroom.front.cli.opening import opened
from postroom.producer.errors import PostroomError, Refused

if TYPE_CHECKING:
    from postroom.front.access import Access
    from postroom.front.handing_over import Whereabouts
    from postroom.producer.mail import Mail

app = typer.Typer()

_A_MOMENT_SECONDS: Final = 1.0
_WAIT_SECONDS: Final = 60.0
_OPTIONS: Final = {"attachments": "--attach", "headers": "--header", "tags": "--tag", "template.meta": "--meta"}


@app.command()
def send(
    *,
    to: Annotated[
        list[str] | None, typer.Option(help="A recipient; may be given several times, as may all lists.")
    ] = None,
    sender: Annotated[str | None, typer.Option("--from", help="a@b.c or 'Name <a@b.c>'.", show_default=False)] = None,
    subject: Annotated[str | None, typer.Option()] = None,
    text: Annotated[str | None, typer.Option(help="Without any content option it is read from stdin.")] = None,
    text_file: Annotated[
        Path | None, typer.Option(help="Read the text from a file; - is stdin.", allow_dash=True)
    ] = None,
    html: Annotated[str | None, typer.Option()] = None,
    html_file: Annotated[
        Path | None, typer.Option(help="Read the HTML from a file; - is stdin.", allow_dash=True)
    ] = None,
    cc: Annotated[list[str] | None, typer.Option()] = None,
    bcc: Annotated[list[str] | None, typer.Option()] = None,
    reply_to: Annotated[list[str] | None, typer.Option()] = None,
    attach: Annotated[list[Path] | None, typer.Option(help="A file to attach.", exists=True, dir_okay=False)] = None,
    owner: Annotated[str | None, typer.Option(help="The CRM user whose mail it is.")] = None,
    key: Annotated[str | None, typer.Option(help="The same key twice is the same mail: it is sent once.")] = None,
    template: Annotated[
        str | None, typer.Option(help="To be rendered, without --subject; else what it was made from.")
    ] = None,
    locale: Annotated[str | None, typer.Option(help="The template's locale.")] = None,
    context: Annotated[
        list[str] | None, typer.Option(metavar="K=V|JSON", help="What the template is filled with.")
    ] = None,
    meta: Annotated[list[str] | None, typer.Option(metavar="K=V", help="The template's metadata.")] = None,
    priority: Annotated[Literal["high", "normal", "bulk"], typer.Option()] = "normal",
    send_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not before it: 2026-12-31T09:00:00+03:00.", show_default=False)
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not after it; given up then.", show_default=False)
    ] = None,
    on_uncertain: Annotated[
        Literal["resend", "hold"] | None,
        typer.Option(help="If it may have been delivered: send it once more, or let a person decide."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option()] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="NAME: VALUE", help="A further header.")] = None,
    producer: Annotated[str, typer.Option(help="In whose name it is handed over.")] = "cli",
    wait: Annotated[bool, typer.Option("--wait", help="Wait up to 60 s; exit 0 only if it was sent.")] = False,
    as_json: output.Json = False,
) -> None:
    """Hand one mail over and print its id and state.

    The state is the ledger's if a worker takes the mail within a second, else `inbox`: handed over, and safe there.
    """
    mail = _mail(
        {
            "producer": producer,
            "key": key,
            "owner": owner,
            "from": sender,
            "to": to,
            "cc": cc,
            "bcc": bcc,
            "reply_to": reply_to,
            "template": _template(template, locale, meta),
            "context": _context(context),
            "subject": subject,
            **_content(text, text_file, html, html_file, needed=template is None or subject is not None),
            "headers": dict(_pair(each, ":", "--header") for each in header or ()),
            "priority": priority,
            "send_at": send_at,
            "expires_at": expires_at,
            "on_uncertain": on_uncertain,
            "tags": tag,
        },
        attach or [],
    )
    with opened() as access:
        where = _hand_over(access, mail, wait=wait)
    mail_id = str(mail.id)
    try:
        if as_json:
            output.as_json({"id": mail_id, "state": where.state})
        else:
            output.say(f"{mail_id} ", output.good(where.state) if where.state == "sent" else where.state)
    except OSError:  # whoever thinks it failed sends it again
        output.note(f"Mail {mail_id} was handed over; it is {where.state}.")
        raise
    if wait and where.state == "sent" and where.why:
        output.note(f"{where.why}; `postroom mail show {mail_id}`")
    if where.state == "rejected" or (wait and where.state != "sent"):
        raise Refused(f"mail {mail_id} is {where.state}{_why_not_sent(where, mail_id)}")


def _why_not_sent(where: "Whereabouts", mail_id: str) -> str:
    why = f": {where.why}" if where.why else ""
    if where.state in {"inbox", "queued", "sending"}:
        return f" {_WAIT_SECONDS:g} s after it was handed over{why}; `postroom doctor` tells what is not running"
    return f"{why}; `postroom mail explain {mail_id}` says more" if where.state == "held" else why


def _hand_over(access: "Access", mail: "Mail", *, wait: bool) -> "Whereabouts":
    from postroom.config import vault
    from postroom.front.handing_over import INBOX, Follower, Whereabouts, settled
    from postroom.producer.producer import Producer

    settings = access.settings
    follower: Follower | None = None
    try:
        follower = Follower(access, mail.id)
    except PostroomError:
        if wait:  # it could not be watched; a site that only enqueues has no database, and needs none
            raise
    with Producer(
        settings.broker,
        mail.producer,
        public_key=vault.public_key(settings),
        job_limit_bytes=settings.job_limit_bytes,
    ) as way_in:
        way_in.enqueue(mail)
    if follower is None:
        return Whereabouts(INBOX)
    if wait:
        return follower.until(settled, timeout_seconds=_WAIT_SECONDS)
    try:
        return follower.until(lambda state: state != INBOX, timeout_seconds=_A_MOMENT_SECONDS)
    except PostroomError as error:
        output.note(f"It was handed over; where it is now cannot be seen: {error}")
        return Whereabouts(INBOX)


def _mail(fields: dict[str, Any], files: list[Path]) -> "Mail":
    """The mail, under the id that it will have.

    Raises:
        typer.BadParameter: naming the option that is wrong.
    """
    from postroom.producer.errors import InvalidMail
    from postroom.producer.mail import Attachment, Mail

    try:
        attachments = [Attachment.from_path(file) for file in files]
    except OSError as error:
        raise typer.BadParameter(f"{error.filename}: {error.strerror}", param_hint="--attach") from None
    except InvalidMail as error:
        raise typer.BadParameter(str(error), param_hint="--attach") from None
    given = {name: value for name, value in fields.items() if value not in (None, [], {})}
    try:
        mail = Mail(**given, attachments=attachments)
        return mail.identified(mail.producer)
    except InvalidMail as error:
        raise typer.BadParameter(error.why, param_hint=_option(error.field)) from None


def _option(field: str) -> str:
    """The option that fills a field, such as ``to[1].address``."""
    for name, option in _OPTIONS.items():
        if field.startswith(name):
            return option
    name = field.partition("[")[0].partition(".")[0]
    return f"--{name.replace('_', '-')}"


def _template(name: str | None, locale: str | None, meta: list[str] | None) -> dict[str, Any] | None:
    if name is None:
        for option, value in (("--locale", locale), ("--meta", meta)):
            if value:
                raise typer.BadParameter("is about a template: give --template too", param_hint=option)
        return None
    return {"name": name, "locale": locale, "meta": dict(_pair(each, "=", "--meta") for each in meta or ())}


def _context(given: list[str] | None) -> dict[str, Any] | None:
    if not given:
        return None
    context: dict[str, Any] = {}
    for each in given:
        if each.lstrip().startswith("{"):
            try:
                context |= json.loads(each)
            except ValueError as error:
                raise typer.BadParameter(f"is no JSON object: {error}", param_hint="--context") from None
        else:
            context |= [_pair(each, "=", "--context")]
    return context


def _pair(text: str, between: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(between)
    if not found or not name.strip():
        raise typer.BadParameter(f"{text!r} must be written NAME{between}VALUE", param_hint=option)
    return name.strip(), value.strip() if between == ":" else value


def _content(
    text: str | None, text_file: Path | None, html: str | None, html_file: Path | None, *, needed: bool
) -> dict[str, str | None]:
    for option, several in (("--text-file", (text, text_file)), ("--html-file", (html, html_file))):
        if None not in several:
            raise typer.BadParameter(f"not together with {option.removesuffix('-file')}", param_hint=option)
    if text_file is not None:
        text = _read(text_file, "--text-file")
    if html_file is not None:
        html = _read(html_file, "--html-file")
    if needed and text is None and html is None:
        if sys.stdin.isatty():
            output.note("Type the text, and end it with Ctrl-D:")
        text = _read(Path("-"), "--text")
    return {"text": text, "html": html}


def _read(path: Path, option: str) -> str:
    try:
        read = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return read.decode()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=option) from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path}: is no UTF-8", param_hint=option) from None
