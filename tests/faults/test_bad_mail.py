"""Mail that cannot be: refused with the option that is wrong, and nothing of it lies in the inbox."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from faults.conftest import Postroom
from postroom.producer import InvalidMail, Mail, MailTooLarge, names
from servers.databases import Databases
from worker.conftest import House


@pytest.fixture
def database_url(databases: Databases, data_dir: Path) -> Iterator[str]:
    """SQLite alone: none of these mails comes near a database."""
    with databases.migrated("sqlite", data_dir) as url:
        yield url


GOOD = {"--from": "shop@shop.example", "--to": "anna@client.example", "--subject": "Order 7", "--text": "Thank you"}

ADDRESSES = [
    '"unclosed@client.example',
    'anna"petrova@client.example',
    "anna petrova@client.example",
    f"{'a' * 290}@client.example",
    f"anna@{'a' * 290}.example",
    "anna@client@example",
    "anna(work)@client.example",
    "anna@client.example(work)",
    "@relay.example:anna@client.example",
    "<@relay.example:anna@client.example>",
    "anna@client.example.",
    "anna@client..example",
    "anna@[127.0.0.1]",
    "anna@client.example, bob@client.example",
    "anna\x1b[31m@client.example",
    "anna\x7f@client.example",
    "anna@client.exam\tple",
    "anna\u202e@client.example",
    "anna",
    " ",
]

INJECTIONS = {
    "--subject": "Order\r\nBcc: eve@evil.example",
    "--from": "Shop\r\nBcc: eve@evil.example <shop@shop.example>",
    "--to": "Anna\nBcc: eve@evil.example <anna@client.example>",
    "--cc": "anna@client.example\r\nBcc: eve@evil.example",
    "--bcc": "anna@client.example\n",
    "--reply-to": "x\r\ny <anna@client.example>",
    "--header": "X-Shop: a\r\nBcc: eve@evil.example",
    "--tag": "a\nb",
    "--template": "order\r\naccepted",
    "--key": "order\n7",
    "--owner": "42\r\n",
    "--producer": "site\n",
}


def arguments(**changes: str) -> list[str]:
    given = {**GOOD, **changes}
    return ["send", *(word for option, value in given.items() for word in (option, value))]


def nothing_was_handed_over(house: House) -> bool:
    return not house.process.redis.exists(names.INBOX, names.INBOX_AT, names.QUEUE_ACCEPT)


@pytest.mark.parametrize("option", ["--from", "--to", "--cc", "--bcc", "--reply-to"])
def test_what_is_no_address_is_refused_by_its_option(house: House, postroom: Postroom, option: str) -> None:
    for address in ADDRESSES:
        told = postroom(*arguments(**{option: address}))
        assert told.code == 2, address
        assert option in told.err, address
        assert told.out == ""
        assert "\x1b[31m" not in told.err
    assert nothing_was_handed_over(house)


def test_an_account_of_no_address_is_refused_before_anything_is_asked(house: House, postroom: Postroom) -> None:
    for address in ADDRESSES:
        told = postroom("account", "add", "--address", address, "--host", "localhost", "--auth", "none")
        assert told.code == 2, address
        assert "--address" in told.err
    assert json.loads(postroom("account", "list", "--json").out) == []


@pytest.mark.parametrize("option", INJECTIONS)
def test_a_line_break_is_refused_by_its_option(house: House, postroom: Postroom, option: str) -> None:
    told = postroom(*arguments(**{option: INJECTIONS[option]}))
    assert told.code == 2
    assert option in told.err
    assert nothing_was_handed_over(house)


def test_a_file_name_with_a_line_break_is_refused(house: House, postroom: Postroom, tmp_path: Path) -> None:
    file = tmp_path / "a\r\nBcc: eve@evil.example"
    file.write_bytes(b"x")
    told = postroom(*arguments(), "--attach", str(file))
    assert told.code == 2
    assert "--attach" in told.err
    assert "line break" in told.err
    assert nothing_was_handed_over(house)


@pytest.mark.parametrize("where", ["text", "html", "attachment", "raw"])
def test_a_job_of_11_mib_is_refused_at_the_call(house: House, where: str) -> None:
    large = b"x" * 11 * 1024**2
    fields: dict[str, dict[str, Any]] = {
        "text": {"subject": "x", "text": large.decode()},
        "html": {"subject": "x", "html": large.decode()},
        "attachment": {"subject": "x", "text": "y", "attachments": [{"filename": "a.bin", "content": large}]},
        "raw": {"raw": b"From: shop@shop.example\r\n\r\n" + large},
    }
    mail = Mail(from_="shop@shop.example", to="anna@client.example", **fields[where])
    with pytest.raises(MailTooLarge) as refused:
        house.producer.enqueue(mail)
    assert "the limit is 10,485,760 (POSTROOM_JOB_LIMIT_BYTES)" in str(refused.value)
    assert "send a link instead" in str(refused.value)
    assert nothing_was_handed_over(house)


def test_a_file_of_11_mib_is_refused_by_the_command(house: House, postroom: Postroom, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(bytes(11 * 1024**2))
    told = postroom(*arguments(), "--attach", str(tmp_path / "film.mp4"))
    assert told.code == 1
    assert "POSTROOM_JOB_LIMIT_BYTES" in told.err
    assert nothing_was_handed_over(house)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--send-at", "tomorrow", "must be a time with its offset"),
        ("--send-at", "2026-12-31T09:00:00", "should have timezone info"),
        ("--expires-at", "1798700400", "must be a time with its offset"),
        ("--on-uncertain", "maybe", "'resend', 'hold'"),
    ],
)
def test_a_time_or_policy_that_is_none_is_refused(
    house: House, postroom: Postroom, option: str, value: str, words: str
) -> None:
    told = postroom(*arguments(**{option: value}))
    assert told.code == 2
    assert option in told.err
    assert words in " ".join(told.err.replace("│", " ").split())
    assert nothing_was_handed_over(house)


def test_times_and_policy_reach_the_ledger(house: House, postroom: Postroom) -> None:
    given = {
        "--send-at": "2036-12-31T09:00:00+03:00",
        "--expires-at": "2037-01-01T09:00:00+03:00",
        "--on-uncertain": "hold",
    }
    told = postroom(*arguments(**given), "--json")
    assert told.code == 0, told.err
    mail_id = json.loads(told.out)["id"]
    box = house.process.redis.hget(names.INBOX, mail_id)
    assert isinstance(box, bytes)
    job = json.loads(house.process.ring.open(box, names.inbox_identity(UUID(mail_id))))
    assert (job["send_at"], job["expires_at"], job["on_uncertain"]) == (
        "2036-12-31T06:00:00Z",
        "2037-01-01T06:00:00Z",
        "hold",
    )


def test_a_template_without_a_name_is_named() -> None:
    with pytest.raises(InvalidMail, match=r"^template\.name: must not be empty$"):
        Mail(to="anna@client.example", template={"name": ""})
