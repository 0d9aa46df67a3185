"""What its command `send_queued_mail` does, again and again, in one process."""

import time
from typing import Final

import django

_PAUSE_SECONDS: Final = 0.01


def main() -> None:
    """Send until ended."""
    django.setup()
    from post_office.mail import get_queued, send_queued_mail_until_done  # noqa: PLC0415 - it asks for a Django set up

    while True:
        if get_queued().exists():
            send_queued_mail_until_done()
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main()
