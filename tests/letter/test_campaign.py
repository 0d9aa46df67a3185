"""Mails drawn at random go over a real Postfix: each arrives once, reads as it was said, its files byte for byte.

`POSTROOM_LONG=1` sends a thousand; the suite, sixty.
"""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from letter.delivering import Delivering
from letter.mails import Written, ascii_locals, mails
from letter.reading import expected, read
from long_form import LONG
from postroom.worker.letter.from_mail import letter_of

MAILS = 1000 if LONG else 60


@pytest.fixture(scope="module")
def drawn() -> list[Written]:
    """The same ones every time."""
    found: list[Written] = []

    @settings(
        max_examples=MAILS,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(mails(ascii_locals))
    def draw(written: Written) -> None:
        found.append(written)

    draw()
    assert len(found) == MAILS
    return found


@pytest.mark.timeout(900 if LONG else 120)
def test_every_mail_arrives_once_as_it_was_said(delivering: Delivering, drawn: list[Written]) -> None:
    for number, (mail, _) in enumerate(drawn):
        assert mail.from_ is not None
        letter = letter_of(mail, mail.from_, date=datetime(2026, 11, 24, 9, 30, tzinfo=UTC))
        delivering.send(f"mail.{number}@campaign.example", letter, eight_bit=number % 2 == 0)
    delivered = delivering.delivered()
    for number, (mail, shown) in enumerate(drawn):
        assert read(delivered[f"mail.{number}@campaign.example"], set(mail.headers)) == expected(mail, shown), number
