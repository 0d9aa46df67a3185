"""What a site imports to hand a mail to Postroom.

from postroom.producer import Mail, Producer

Producer().enqueue(Mail(from_="shop@shop.example", to="anna@client.example", subject="Order 7", text="Thank you"))
"""

from postroom.producer.errors import (
    BrokerUnavailable,
    InvalidMail,
    KeyUnusable,
    MailTooLarge,
    PostroomError,
    SettingsInvalid,
)
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
