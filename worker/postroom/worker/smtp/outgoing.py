"""One mail made ready for a session: the commands of its envelope, or why it cannot go over this one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from postroom.worker.smtp.content import wire_content
from postroom.worker.smtp.delivery import SIZE, SMTPUTF8, SMTPUTF8_FOR_ALL, Envelope
from postroom.worker.smtp.opening import Extensions
from postroom.worker.smtp.replies import Verdict

GROUP: Final = 100
"""Commands in one write: their replies must fit the receive buffers, or both sides wait for ever (RFC 2920 §3.1)."""


@dataclass(slots=True)
class Outgoing:
    """A mail, ready.

    Attributes:
        envelope: as it was given; letter: likewise.
        content: the letter as SMTP carries it, dots not stuffed.
        smtputf8: the transaction asks for SMTPUTF8.
        recipients: of the envelope, those who can be named to this server.
        refusal: why it is not even offered; then there are no commands.
        commands: verb and line of MAIL, each RCPT and DATA.
    """

    envelope: Envelope
    letter: bytes
    content: bytes
    smtputf8: bool
    recipients: tuple[str, ...]
    refusal: Verdict | None
    commands: tuple[tuple[str, bytes], ...]

    @property
    def fits_one_write(self) -> bool:
        """Whether its envelope can go behind another mail's final dot."""
        return self.refusal is None and len(self.commands) <= GROUP

    def can_be_named(self, address: str) -> bool:
        """Whether the server can be told this recipient (RFC 6531 §3.1)."""
        return self.smtputf8 or address.isascii()


def prepared(envelope: Envelope, letter: bytes, extensions: Extensions) -> Outgoing:
    """The mail for a server with these extensions."""
    content = wire_content(letter)
    ascii_only = envelope.reverse_path.isascii()
    all_ascii = ascii_only and all(map(str.isascii, envelope.recipients))
    smtputf8 = extensions.smtputf8 and (envelope.smtputf8 or not all_ascii)
    recipients = envelope.recipients if smtputf8 or all_ascii else tuple(filter(str.isascii, envelope.recipients))
    refusal: Verdict | None = None
    if extensions.size_bytes is not None and len(content) > extensions.size_bytes:
        refusal = SIZE
    elif not smtputf8 and (envelope.smtputf8 or not ascii_only):
        refusal = SMTPUTF8_FOR_ALL
    elif not recipients:
        refusal = SMTPUTF8
    outgoing = Outgoing(envelope, letter, content, smtputf8, recipients, refusal, ())
    if refusal is None:
        outgoing.commands = tuple(_commands(outgoing, extensions))
    return outgoing


def _commands(outgoing: Outgoing, extensions: Extensions) -> Iterator[tuple[str, bytes]]:
    parameters = f" SIZE={len(outgoing.content)}" if extensions.size_bytes is not None else ""
    if extensions.eight_bit_mime and (outgoing.smtputf8 or not outgoing.content.isascii()):
        parameters += " BODY=8BITMIME"
    if outgoing.smtputf8:
        parameters += " SMTPUTF8"
    yield "MAIL", f"MAIL FROM:<{outgoing.envelope.reverse_path}>{parameters}\r\n".encode()
    for address in outgoing.recipients:
        yield "RCPT", f"RCPT TO:<{address}>\r\n".encode()
    yield "DATA", b"DATA\r\n"
