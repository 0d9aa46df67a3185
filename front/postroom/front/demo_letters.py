"""Letters as they arrived, read by the standard library's parser, and held against what was handed over."""

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage

from postroom.front.mail_server import Arrived
from postroom.producer import Address, Mail


def read(arrived: Arrived) -> EmailMessage:
    """The letter, its headers and parts decoded."""
    return email.message_from_bytes(arrived.content, policy=email.policy.default)


def text_of(letter: EmailMessage) -> str:
    """Its text part; '' without one."""
    part = letter.get_body(("plain",))
    return "" if part is None else str(part.get_content()).replace("\r\n", "\n")


def attachments_of(letter: EmailMessage) -> list[tuple[str, bytes]]:
    """Its attachments as (filename, content)."""
    found = []
    for part in letter.iter_attachments():
        content = part.get_payload(decode=True)
        found.append((part.get_filename() or "", content if isinstance(content, bytes) else b""))
    return found


def differences(mail: Mail, sender: Address, arrived: Arrived) -> list[str]:
    """How the letter that arrived differs from the mail that was handed over; empty if it is that mail.

    Args:
        mail: what was handed over.
        sender: who must stand in From: the mail's address with the name it should have got.
        arrived: what came.
    """
    return list(_differences(mail, sender, arrived))


def _differences(mail: Mail, sender: Address, arrived: Arrived) -> Iterator[str]:
    letter = read(arrived)
    recipients = [*mail.to, *mail.cc, *mail.bcc]
    pairs = {
        "sender of the envelope": (sender.address, arrived.reverse_path),
        "recipients of the envelope": ([each.address for each in recipients], list(arrived.recipients)),
        "From": ([(sender.name, sender.address)], _mailboxes(letter, "From")),
        "To": ([(each.name, each.address) for each in mail.to], _mailboxes(letter, "To")),
        "Subject": (mail.subject, letter["Subject"]),
        "text": ((mail.text or "").rstrip("\n"), text_of(letter).rstrip("\n")),
        "attachments": ([(each.filename, each.content) for each in mail.attachments], attachments_of(letter)),
    }
    for what, (handed_over, came) in pairs.items():
        if handed_over != came:
            yield f"{what}: handed over {handed_over!r}, arrived {came!r}"
    for name in ("Message-ID", "Date"):
        if not letter[name]:
            yield f"{name}: is missing"


def _mailboxes(letter: EmailMessage, name: str) -> list[tuple[str, str]]:
    header = letter[name]
    return [] if header is None else [(each.display_name, each.addr_spec) for each in header.addresses]
