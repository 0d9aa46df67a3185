"""The whole letter (RFC 5322), as DATA takes it before dot-stuffing."""

from functools import lru_cache

from postroom.worker.letter import mime
from postroom.worker.letter.content import Letter, Mailbox
from postroom.worker.letter.headers import date_value, fold, free_field, mailbox_field, unstructured
from postroom.worker.letter.raw import whole


def compose(letter: Letter, *, eight_bit: bool) -> bytes:
    """Write a letter: CRLF line ends, one at its end, no line over 998 bytes, no Bcc, not dot-stuffed.

    The same letter gives the same bytes every time. A raw letter is not re-encoded, whatever `eight_bit` says.

    Args:
        letter: what to write.
        eight_bit: the server takes 8BITMIME (RFC 6152). Without it all is 7-bit, unless `needs_smtputf8`.
    """
    if letter.raw is not None:
        return whole(letter.raw, message_id=letter.message_id, date=letter.date)
    root = mime.body(letter, eight_bit=eight_bit)
    end = b"" if not root.body or root.body.endswith(b"\r\n") else b"\r\n"
    return b"".join((_head(letter).encode(), root.head, b"\r\n", root.body, end))


def needs_smtputf8(letter: Letter) -> bool:
    """Tell whether a header of the letter holds an address whose local part is not ASCII (RFC 6531).

    Of a raw letter only the envelope can tell: many hold 8-bit headers by mistake, and servers take them.
    """
    mailboxes = (letter.from_, *letter.to, *letter.cc, *letter.reply_to)
    return letter.raw is None and not all(mailbox.address.rpartition("@")[0].isascii() for mailbox in mailboxes)


def _head(letter: Letter) -> str:
    parts = [f"Date: {date_value(letter.date)}\r\n", _from(letter.from_)]
    if letter.to:
        parts.append(_mailboxes("To", letter.to))
    elif not letter.cc:
        parts.append("To: undisclosed-recipients:;\r\n")  # all are blind; some servers dislike a letter to nobody
    if letter.cc:
        parts.append(_mailboxes("Cc", letter.cc))
    if letter.reply_to:
        parts.append(_mailboxes("Reply-To", letter.reply_to))
    parts.append(unstructured("Subject", letter.subject))
    parts.append(fold("Message-ID", [letter.message_id]))
    parts += [free_field(name, value) for name, value in letter.headers]
    parts.append("MIME-Version: 1.0\r\n")
    return "".join(parts)


@lru_cache(maxsize=256)
def _from(mailbox: Mailbox) -> str:
    """The field that all letters of an account have."""
    return _mailboxes("From", (mailbox,))


def _mailboxes(name: str, mailboxes: tuple[Mailbox, ...]) -> str:
    return mailbox_field(name, [(mailbox.address, mailbox.name) for mailbox in mailboxes])
