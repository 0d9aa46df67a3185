"""`postroom erase ADDRESS`: what is from or to it and has ended goes; what still waits is left and told."""

from typing import Any

import pytest
from sqlalchemy import insert, select, update

from front.cli.conftest import Worker
from postroom.config.database import now
from postroom.config.tables import attempts, letters, mails, recipients, rejects
from postroom.config.vault import public_key
from postroom.front import erasing
from postroom.front.nudges import Nudges
from postroom.producer import names
from postroom.producer.identifiers import uuid7
from postroom.worker.drain import drain
from postroom.worker.erase_by_address import is_from_or_to
from servers.databases import on_sqlite
from servers.scripted_smtp import ScriptedSMTP

ANNA = "anna@client.example"


def everything(house: Any) -> str:
    with house.process.database.read() as connection:
        found = [connection.execute(select(table)).all() for table in (mails, letters, recipients, attempts, rejects)]
    return str(found).lower()


def erased(house: Any, address: str) -> dict[str, int]:
    result = asked(house, address, "--json")
    assert result.code == 0, result.err
    return {name: count for name, count in result.json.items() if count}


def asked(house: Any, *words: str) -> Any:
    """`postroom erase` with a worker at work; before, none takes what the test lays out."""
    house.redis.delete(names.QUEUE_ACCEPT, names.QUEUE_DRAIN)
    with Worker(house):
        return house.run("erase", *words)


@pytest.fixture
def account(house: Any, smtp: ScriptedSMTP) -> Any:
    return house.add_account(smtp)


def test_a_mail_to_one_person_goes_whole(house: Any, account: Any) -> None:
    mail_id = house.take(to="Anna <Anna@Client.example>", subject="For Anna", tags=["anna"])
    other = house.take(to="joanna@client.example")
    drain(house.process, account.id)
    before = house.mail(other)
    assert erased(house, "ANNA@CLIENT.EXAMPLE") == {"mails": 1}
    mail = house.mail(mail_id)
    assert (mail["state"], mail["from"], mail["to"], mail["subject"]) == ("sent", "", [""], "")
    assert mail["erased_at"] is not None
    assert house.mail(other) == before
    assert erased(house, ANNA) == {}


def test_any_spelling_is_the_same_address(house: Any, account: Any) -> None:
    spellings = {
        "anna@xn--e1afmkfd.example": "Anna@пример.example",
        "anna@ПРИМЕР.рф": "anna@XN--E1AFMKFD.xn--p1ai",
        "Анна@client.example": "АННА@Client.example",  # noqa: RUF001
        "straße@client.example": "STRASSE@client.example",
    }
    for address in (*spellings, "Борис@client.example"):
        house.take(to=address)
    drain(house.process, account.id)
    for address in spellings.values():
        assert erased(house, address) == {"mails": 1}, address


def test_of_a_mail_to_several_this_recipient_goes_and_what_was_written(house: Any, account: Any) -> None:
    mail_id = house.take(
        to=[f"Anna <{ANNA}>", "Bob <rcpt-550-5.1.1@bob.example>"], subject="Anna's order", tags=["anna"]
    )
    drain(house.process, account.id)
    assert erased(house, ANNA) == {"recipients": 1}
    assert "anna" not in everything(house)
    mail = house.mail(mail_id)
    assert (mail["to"], mail["subject"], mail["erased_at"]) == (["", "rcpt-550-5.1.1@bob.example"], "", None)
    assert [(each["state"], each["reply"]) for each in mail["recipients"]] == [("accepted", "250"), ("refused", "550")]
    assert erased(house, "rcpt-550-5.1.1@bob.example") == {"mails": 1}, "nobody is left"
    assert "bob" not in everything(house)


def test_a_mail_without_its_letter_is_not_sent_again(house: Any, account: Any) -> None:
    mail_id = str(house.take(to=["rcpt-550-5.1.1@client.example", "rcpt-550-5.1.1@other.example"]))
    drain(house.process, account.id)
    assert erased(house, "rcpt-550-5.1.1@other.example") == {"recipients": 1}
    refused = house.run("mail", "resend", mail_id)
    assert refused.code == 1
    assert "its content was erased" in refused.err


def test_mails_from_the_address_go_whole(house: Any, account: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("postroom.worker.erase_by_address._CHUNK", 2)
    for _ in range(5):
        mail_id = house.take(from_="Shop@Shop.example", to=[ANNA, "bob@client.example"])
    drain(house.process, account.id)
    assert erased(house, "shop@SHOP.example") == {"mails": 5}
    assert house.mail(mail_id)["to"] == ["", ""]


def test_what_still_waits_is_left_and_told(house: Any) -> None:
    mail_id = house.take(from_="nobody@shop.example", to=ANNA)
    assert erased(house, ANNA) == {"waiting": 1}
    told = asked(house, ANNA)
    assert "1 mail from or to it still waits; cancel it first" in told.err
    assert house.mail(mail_id)["subject"] == "Order 7"
    assert erased(house, "nobody@shop.example") == {"waiting": 1}
    house.run("mail", "cancel", str(mail_id))
    assert erased(house, ANNA) == {"mails": 1}


def test_words_of_servers_that_name_it_go(house: Any, account: Any) -> None:
    mail_id = house.take(to="bob@client.example")
    drain(house.process, account.id)
    with house.process.database.write() as connection:
        connection.execute(update(attempts).values(reply="550 5.1.1 <Anna@client.example>: forwarded, and unknown"))
        connection.execute(update(recipients).values(reply="250 queued for joanna@client.example"))
    assert erased(house, ANNA) == {"replies": 1}
    mail = house.mail(mail_id)
    assert mail["attempts_log"][0]["reply"] == "550"
    assert mail["recipients"][0]["reply"] == "250 queued for joanna@client.example"
    assert mail["subject"] == "Order 7"


def test_rejected_jobs_from_or_to_it_go(house: Any) -> None:
    for to in (f"Anna <{ANNA}>", "bob@client.example"):
        house.take(to=to, from_=None, subject=None, text=None, template={"name": "order"})
    mail_id = uuid7()
    strange = [
        (b"junk about anna@client.example", None),
        (b"junk about bob", None),
        (b"junk", "to: anna@client.example is refused"),
    ]
    with house.process.database.write() as connection:
        for text, error in strange:
            sealed = public_key(house.settings).seal(text, names.inbox_identity(mail_id))
            row = {"id": uuid7(), "mail_id": mail_id, "error": error or "is no JSON", "sealed": sealed}
            connection.execute(insert(rejects).values(row | {"created_at": house_clock(connection)}))
        row = {"id": uuid7(), "mail_id": mail_id, "error": "cannot be opened", "sealed": b"PR1 no box"}
        connection.execute(insert(rejects).values(row | {"created_at": house_clock(connection)}))
    assert erased(house, ANNA) == {"rejects": 3, "rejects_unreadable": 1}
    assert len(house.run("reject", "list", "--json").json) == 3
    assert "1 rejected job cannot be opened" in asked(house, ANNA).err


def house_clock(connection: Any) -> Any:
    return connection.execute(select(now())).scalar_one()


@pytest.mark.parametrize(
    ("job", "is_it"),
    [
        (b'{"to": ["Anna <ANNA@client.example>"]}', True),
        (b'{"bcc": {"address": "anna@client.example", "name": 7}}', True),
        (b'{"to": "joanna@client.example"}', False),
        (b'{"to": "anna@client.example.org"}', False),
        (b'{"to": "bob@client.example", "text": "write to anna@client.example"}', False),
        ('{"to": "анна@client.example"}'.encode(), False),
        (b"[" * 100_000, False),
        (b'["anna@client.example"]', True),
        (b"\xff anna@client.example.", True),
    ],
)
def test_whom_a_job_names(job: bytes, is_it: bool) -> None:
    assert is_from_or_to(job, ANNA) is is_it


@on_sqlite
def test_without_a_worker_it_is_said_and_nothing_is_erased(house: Any, account: Any, monkeypatch: Any) -> None:
    mail_id = house.take()
    drain(house.process, account.id)
    monkeypatch.setattr(erasing.erase_address, "__kwdefaults__", {"worker_seconds": 0.3, "silent_seconds": 1.0})
    assert erasing.WORKER_SECONDS <= 10
    result = house.run("erase", ANNA)
    assert (result.code, result.out) == (1, "")
    assert "nothing was erased: no `care` worker took the request" in result.err
    [(task, [request])] = house.nudged(names.QUEUE_CARE)
    assert task == names.TASK_ERASE
    assert not house.redis.keys(f"postroom:erase:{request}*"), "a late worker finds nothing to do"
    assert house.mail(mail_id)["subject"] == "Order 7"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_fails_says_so(house: Any, account: Any, monkeypatch: Any) -> None:
    house.take()
    drain(house.process, account.id)
    monkeypatch.setattr("postroom.worker.erase_by_address.naming", lambda _: "(")
    result = asked(house, ANNA)
    assert result.code == 1
    assert "not everything was erased" in result.err


@on_sqlite
def test_sqlites_file_is_rewritten_without_old_copies(house: Any, account: Any) -> None:
    house.take(text="long " * 200_000)
    drain(house.process, account.id)
    house.process.database.forget()
    file = house.folder / "postroom.db"
    before_bytes = file.stat().st_size
    assert erased(house, ANNA) == {"mails": 1}
    assert file.stat().st_size < before_bytes - 900_000
    files = b"".join(path.read_bytes() for path in house.folder.glob("postroom.db*"))
    assert b"Order 7" not in files
    assert b"anna" not in files.lower()


@on_sqlite
def test_what_is_no_address_is_a_usage_error(house: Any) -> None:
    for words in (["anna"], ["@client.example"], []):
        assert house.run("erase", *words).code == 2


@on_sqlite
def test_neither_log_nor_redis_shows_the_address(house: Any, account: Any, monkeypatch: Any) -> None:
    logged: list[Any] = []
    laid: list[Any] = []
    ask = Nudges.ask

    def look(*words: Any, **options: Any) -> None:
        laid.extend(house.redis.get(key) for key in house.redis.keys("postroom:erase:*"))
        ask(*words, **options)

    def note(*words: Any, **values: Any) -> None:
        logged.append((words, values))

    monkeypatch.setattr(Nudges, "ask", look)
    monkeypatch.setattr("postroom.worker.erase_by_address.log.info", note)
    house.take()
    drain(house.process, account.id)
    assert erased(house, ANNA) == {"mails": 1}
    assert "erased by address" in str(logged)
    assert "anna" not in str(logged).lower()
    assert len(laid) == 1
    assert b"anna" not in laid[0]


def test_an_erased_mail_is_shown_listed_and_explained(house: Any, account: Any) -> None:
    mail_id = str(house.take(to="rcpt-550-5.1.1@client.example", template={"name": "order", "meta": {"a": "b"}}))
    drain(house.process, account.id)
    assert erased(house, "rcpt-550-5.1.1@client.example") == {"mails": 1}
    shown = house.run("mail", "show", mail_id)
    assert shown.code == 0
    assert "erased" in shown.out
    assert mail_id in house.run("mail", "list").out
    for command in (["explain", mail_id], ["resend", mail_id], ["resolve", mail_id, "resend"]):
        refused = house.run("mail", *command)
        assert refused.code == 1, command
        assert "erased" in refused.err, command
