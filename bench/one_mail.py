"""How long one mail takes on an idle system, enqueue to the server's 250, over STARTTLS and AUTH, durably recorded.

    .venv/bin/python bench/one_mail.py [MAILS]

Prints the median, the 90th percentile and the longest, in milliseconds. A mail is handed over only when the one before
has been recorded, a quarter of a second later. The server is the demo's.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from postroom.config.accounts import Account
from postroom.config.states import Auth, Security
from postroom.front import demo_certificate, house
from postroom.front.access import Access
from postroom.front.account_changes import add_account
from postroom.front.demo import settings_for
from postroom.front.mail_server import HOST, MailServer
from postroom.producer import Mail, Producer
from postroom.producer.identifiers import uuid7

ADDRESS: Final = "bench@shop.example"
IDLE_SECONDS: Final = 0.25


def measure(producer: Producer, server: MailServer, mails: int) -> list[float]:
    """Milliseconds from the call of `enqueue` to the server's 250, in order of length."""
    took = []
    for number in range(mails):
        before = len(server.arrived)
        began_at = time.monotonic()
        producer.enqueue(Mail(from_=ADDRESS, to="anna@client.example", subject=f"{number}", text="x" * 4000))
        while len(server.arrived) == before:
            time.sleep(0.001)
        took.append((server.arrived[-1].at - began_at) * 1000)
        time.sleep(IDLE_SECONDS)
    return sorted(took)


def main(mails: int) -> None:
    """Start everything in a scratch folder, measure, and stop it."""
    with tempfile.TemporaryDirectory(prefix="postroom-bench-") as scratch:
        folder = Path(scratch)
        certificate = demo_certificate.make(folder)
        settings = settings_for(folder / "data", certificate.ca_file)
        with (
            MailServer(certificate.server, {ADDRESS: "bench"}) as server,
            house.started(settings, log=folder / "up.log"),
            Access(settings) as access,
        ):
            account = Account(uuid7(), ADDRESS, HOST, server.port, Security.STARTTLS, Auth.AUTO, login=ADDRESS)
            add_account(access, account, "bench", lambda _: None)
            with Producer(settings.broker, public_key=access.public_key) as producer:
                measure(producer, server, 5)  # sessions open, code warm
                took = measure(producer, server, mails)
    print(
        f"{mails} mails, enqueue to 250: median {statistics.median(took):.1f} ms, "
        f"p90 {took[int(mails * 0.9)]:.1f} ms, longest {took[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
