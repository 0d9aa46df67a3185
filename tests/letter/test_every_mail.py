"""Whatever mail is valid, its letter reads back as what the producer said: from `Mail` over its job to the bytes."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, note, settings

from letter.mails import Written, mails
from letter.reading import expected, hold_rules, read
from long_form import LONG
from postroom.producer import Mail
from postroom.worker.letter.compose import compose, needs_smtputf8
from postroom.worker.letter.content import Letter
from postroom.worker.letter.from_mail import letter_of

EXAMPLES = 3000 if LONG else 100
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large]
NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@pytest.mark.timeout(900 if EXAMPLES > 100 else 120)
@pytest.mark.parametrize("eight_bit", [False, True])
@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(written=mails())
def test_what_was_said_is_read(written: Written, eight_bit: bool) -> None:
    note(written.mail.to_job().decode())
    mail = Mail.from_job(written.mail.to_job())
    assert mail.from_ is not None
    made = letter_of(mail, mail.from_, date=NOW)
    letter = Letter.from_content(made.to_content())
    assert letter == made
    octets = compose(letter, eight_bit=eight_bit)
    assert octets == compose(letter, eight_bit=eight_bit)
    hold_rules(octets, eight_bit=eight_bit or needs_smtputf8(letter))
    assert read(octets, set(mail.headers)) == expected(mail, written.shown)
