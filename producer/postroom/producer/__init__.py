"""What a site imports to hand a mail to Postroom.

from postroom.producer import Mail, Producer

Producer().enqueue(Mail(from_="shop@shop.example", to="anna@client.example", subject="Order 7", text="Thank you"))
"""

from typing import TYPE_CHECKING, Any, Final

from postroom.producer.errors import (
    BrokerUnavailable,
    InvalidMail,
    KeyUnusable,
    MailTooLarge,
    PostroomError,
    SettingsInvalid,
)

if TYPE_CHECKING:
    from postroom.producer.mail import Address, Attachment, Mail, Template
    from postroom.producer.producer import Producer

__all__ = [
    "Address",
    "Attachment",
    "BrokerUnavailable",
    "InvalidMail",
    "KeyUnusable",
    "Mail",
    "MailTooLarge",
    "PostroomError",
    "Producer",
    "SettingsInvalid",
    "Template",
]

_MAIL: Final = ("Address", "Attachment", "Mail", "Template")


def __getattr__(name: str) -> Any:
    """What hands over is imported when it is first asked for: those who read an error's name wait for no Celery."""
    if name in _MAIL:
        from postroom.producer import mail as home  # noqa: PLC0415
    elif name == "Producer":
        from postroom.producer import producer as home  # type: ignore[no-redef] # noqa: PLC0415
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)
