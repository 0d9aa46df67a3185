"""The site's task. Acknowledged late and tried again, as one would have it after the first lost mail."""

import os
import smtplib
import ssl
from email.message import EmailMessage
from typing import Any

from celery import Celery

app = Celery("naive", broker=os.environ["BROKER_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(autoretry_for=(OSError, smtplib.SMTPException), retry_backoff=True, max_retries=10)  # type: ignore[untyped-decorator]
def send(mail: dict[str, Any]) -> None:
    """Compose one mail and send it."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = mail["sender"], mail["to"], mail["subject"]
    message.set_content(mail["text"])
    message.add_alternative(mail["html"], subtype="html")
    with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as server:
        if password := os.environ.get("SMTP_PASSWORD"):
            server.starttls(context=ssl.create_default_context())
            server.login(os.environ["SMTP_LOGIN"], password)
        server.send_message(message)
