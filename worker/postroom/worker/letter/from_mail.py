"""From a mail that came rendered or raw to its letter: only Bcc is left behind."""

from collections.abc import Sequence
from datetime import datetime

from postroom.producer.mail import Address, Mail, address_key
from postroom.worker.letter.content import Attachment, Letter, Mailbox


def letter_of(mail: Mail, from_: Address, *, date: datetime) -> Letter:
    """Make the letter of a mail; its Message-ID is the mail's id at the sender's domain, the same for every copy.

    Args:
        mail: one that Postroom does not render.
        from_: whom it is from, with the name to show.
        date: aware.

    Raises:
        InvalidMail: a value cannot stand in a letter.
    """
    return Letter(
        message_id=f"<{mail.id.hex}@{address_key(from_.address).rpartition('@')[2]}>",
        date=date,
        from_=Mailbox(from_.address, from_.name),
        to=_mailboxes(mail.to),
        cc=_mailboxes(mail.cc),
        reply_to=_mailboxes(mail.reply_to),
        subject=mail.subject or "",
        text=mail.text,
        html=mail.html,
        headers=tuple(mail.headers.items()),
        attachments=tuple(
            Attachment(file.filename, file.content_type, file.content, file.inline_id) for file in mail.attachments
        ),
        raw=mail.raw,
    )


def _mailboxes(addresses: Sequence[Address]) -> tuple[Mailbox, ...]:
    return tuple(Mailbox(address.address, address.name) for address in addresses)
