"""Changing, proving again, switching off and removing accounts, and what becomes of their waiting mail."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from postroom.config import accounts as kept
from postroom.config.states import Auth, Health, Security
from postroom.producer import names
from postroom.producer.errors import Refused
from servers.aiosmtpd_server import AiosmtpdServer
from servers.certificates import Certificates
from servers.scripted_smtp import ScriptedSMTP

LOGIN = "shop@shop.example"
PASSWORD = "right horse"


@pytest.fixture
def account(house: Any, mailbox: AiosmtpdServer) -> Any:
    return house.add_account(mailbox, security=Security.STARTTLS, auth=Auth.PLAIN, login=LOGIN, password=PASSWORD)


@pytest.fixture
def another(certificates: Certificates) -> Iterator[Callable[..., AiosmtpdServer]]:
    """Starts further servers of the provider."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(AiosmtpdServer(certificate=certificates.good, **settings))


def _drained(house: Any) -> list[UUID]:
    return [UUID(arguments[0]) for _, arguments in house.nudged(names.QUEUE_DRAIN)]


# -- editing


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    "change",
    [
        ["--host", "localhost"],
        ["--port", "26"],
        ["--security", "tls"],
        ["--auth", "login"],
        ["--login", "other"],
        ["--allow-cleartext"],
    ],
)
def test_what_says_where_the_password_goes_needs_it_again(house: Any, account: Any, change: list[str]) -> None:
    result = house.run("account", "edit", LOGIN, *change)
    assert result.code == 1
    assert "--password-stdin" in result.err
    assert house.accounts() == [account]


@pytest.mark.usefixtures("worker")
def test_with_the_password_the_account_moves_to_another_server(
    house: Any, account: Any, mailbox: AiosmtpdServer, another: Callable[..., AiosmtpdServer]
) -> None:
    new = another(login=LOGIN, password="new horse")
    words = ("account", "edit", LOGIN, "--port", str(new.port), "--password-stdin", "--json")
    refused = house.run(*words, stdin=PASSWORD)
    assert refused.code == 1
    assert house.accounts() == [account]
    result = house.run(*words, stdin="new horse")
    assert result.code == 0, result.err
    assert result.json["port"] == new.port
    assert (len(new.received), mailbox.received) == (1, [])
    [edited] = house.accounts()
    assert edited.version == account.version + 1
    assert house.run("account", "verify", LOGIN).code == 0  # what is stored opens for the new destination


@pytest.mark.usefixtures("worker")
def test_another_address_is_proved_with_the_stored_password(house: Any, account: Any, mailbox: AiosmtpdServer) -> None:
    result = house.run("account", "edit", str(account.id), "--address", "info@shop.example", "--json")
    assert result.code == 0, result.err
    assert result.json["address"] == "info@shop.example"
    assert mailbox.received[0].recipients == ("info@shop.example",)


@pytest.mark.usefixtures("worker")
def test_a_new_password_alone_is_proved(house: Any, account: Any, mailbox: AiosmtpdServer) -> None:
    assert house.run("account", "edit", LOGIN, "--password-stdin", stdin="wrong").code == 1
    assert house.accounts() == [account]
    assert house.run("account", "edit", LOGIN, "--password-stdin", stdin=PASSWORD).code == 0
    assert len(mailbox.received) == 1


def test_what_concerns_only_us_needs_no_proof(house: Any, account: Any) -> None:
    words = ("--name", "Shop", "--owner", "crm-7", "--priority", "-2", "--connections", "1", "--no-pipelining")
    edited = house.run("account", "edit", LOGIN, *words, "--json").json
    assert [edited[name] for name in ("name", "owner", "priority", "pipelining", "limits")] == [
        "Shop",
        "crm-7",
        -2,
        False,
        {"connections": 1, "mails_per_minute": None, "recipients_per_day": None},
    ]
    assert edited["verified_at"] == house.run("account", "show", LOGIN, "--json").json["verified_at"]
    assert house.run("account", "edit", LOGIN, "--owner", "", "--json").json["owner"] is None


def test_a_change_keeps_the_health_that_a_worker_noted_meanwhile(house: Any, account: Any) -> None:
    house.change("accounts", account.id, health=Health.FAILING, health_detail="connect: refused", probes=3)
    with house.process.database.write() as connection:
        changed = kept.replace_unproved(connection, account, replace(account, name="Shop"))
    assert (changed.name, changed.health, changed.health_detail, changed.probes) == (
        *("Shop", Health.FAILING, "connect: refused", 3),
    )


def test_an_edit_may_not_make_two_of_one(house: Any, account: Any, mailbox: AiosmtpdServer) -> None:
    twin = house.add_account(
        mailbox, security=Security.STARTTLS, auth=Auth.PLAIN, login=LOGIN, password="x", owner="crm-7"
    )
    result = house.run("account", "edit", str(twin.id), "--owner", "")
    assert result.code == 1
    assert str(account.id) in result.err
    with house.process.database.write() as connection, pytest.raises(Refused, match=str(account.id)):
        kept.replace_unproved(connection, twin, replace(twin, owner=None))


def test_a_change_made_meanwhile_is_not_written_over(house: Any, account: Any) -> None:
    assert house.run("account", "edit", LOGIN, "--name", "Theirs").code == 0
    with house.process.database.write() as connection, pytest.raises(Refused, match="somebody else"):
        kept.replace_unproved(connection, account, replace(account, name="Ours"))


def test_nothing_to_change_is_a_usage_error(house: Any, account: Any) -> None:
    assert house.run("account", "edit", LOGIN).code == 2


@pytest.mark.usefixtures("worker")
def test_mail_waiting_under_the_old_address_does_not_leave_by_the_changed_account(
    house: Any, account: Any, mailbox: AiosmtpdServer
) -> None:
    house.change("accounts", account.id, active=False)  # so that nothing takes the mail meanwhile
    mail_id = house.take()
    house.change("accounts", account.id, active=True)
    waits = {"state": "queued", "account_id": account.id, "due_at": account.created_at}
    house.change("mails", mail_id, reason=None, held_at=None, **waits)
    assert house.run("account", "edit", LOGIN, "--address", "info@shop.example").code == 0
    mail = house.mail(mail_id)
    assert (mail["state"], mail["reason"], mail["account_id"]) == ("held", "no_account", None)


# -- the vault


@pytest.mark.usefixtures("worker")
def test_a_password_moved_to_another_account_does_not_open(house: Any, account: Any, mailbox: AiosmtpdServer) -> None:
    other = house.add_account(
        mailbox, "other@shop.example", security=Security.STARTTLS, auth=Auth.PLAIN, login=LOGIN, password="other"
    )
    house.change("accounts", account.id, password=other.password)
    house.change("accounts", other.id, password=account.password)
    for each in (account, other):
        result = house.run("account", "verify", str(each.id))
        assert result.code == 1
        assert "does not open" in result.err
    assert mailbox.received == []


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    "edited", [{"host": "localhost"}, {"port": 2}, {"security": "none"}, {"login": "x"}, {"allow_cleartext": True}]
)
def test_a_destination_edited_in_the_database_gets_no_password(
    house: Any, account: Any, mailbox: AiosmtpdServer, edited: dict[str, Any]
) -> None:
    house.change("accounts", account.id, **edited)
    result = house.run("account", "verify", str(account.id))
    assert result.code == 1
    assert "does not open" in result.err
    assert mailbox.received == []


@pytest.mark.usefixtures("worker")
def test_proving_again_makes_an_account_healthy(house: Any, account: Any) -> None:
    house.change("accounts", account.id, health=Health.SUSPENDED, health_detail="535 no", probes=2)
    proved = house.run("account", "verify", LOGIN, "--json").json
    assert (proved["health"], proved["health_detail"]) == ("ok", None)
    assert proved["verified_at"] > house.run("account", "list", "--json").json[0]["created_at"]


# -- on and off


def test_mail_of_a_deactivated_account_is_chosen_anew(house: Any, account: Any, mailbox: AiosmtpdServer) -> None:
    spare = house.add_account(mailbox, login="spare", priority=5)
    waiting = [house.take() for _ in range(3)]
    house.redis.delete(names.QUEUE_DRAIN)
    result = house.run("account", "deactivate", str(account.id), "--json")
    assert result.json["active"] is False
    assert {house.mail(each)["account_id"] for each in waiting} == {str(spare.id)}
    assert _drained(house) == [spare.id]
    assert house.run("account", "deactivate", str(spare.id)).code == 0
    assert {house.mail(each)["reason"] for each in waiting} == {"no_account"}


@pytest.mark.usefixtures("worker")
def test_held_mail_leaves_when_its_account_is_activated(house: Any, account: Any, mailbox: AiosmtpdServer) -> None:
    assert house.run("account", "deactivate", LOGIN).code == 0
    mail_id = house.take()
    assert house.mail(mail_id)["reason"] == "no_account"
    assert house.run("account", "activate", LOGIN, "--json").json["active"] is True
    [received] = mailbox.wait_received(1)
    assert received.recipients == ("anna@client.example",)


def test_more_mail_than_one_transaction_takes_is_chosen_anew(
    house: Any, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.worker.lanes.MOST_AT_ONCE", 2)
    house.add_account(smtp)
    waiting = [house.take() for _ in range(5)]
    assert house.run("account", "deactivate", LOGIN).code == 0
    assert {house.mail(each)["state"] for each in waiting} == {"held"}


def test_a_removed_account_is_gone_and_its_mail_is_held(house: Any, account: Any) -> None:
    mail_id = house.take()
    assert house.run("account", "remove", LOGIN).code == 0
    assert house.accounts() == []
    assert house.mail(mail_id)["reason"] == "no_account"
    assert house.run("account", "show", LOGIN).code == 1


def test_switching_works_while_redis_is_away(house: Any, account: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_BROKER_URL", "redis+socket:///tmp/postroom-no-such.sock")
    for command in ("deactivate", "activate", "remove"):
        assert house.run("account", command, LOGIN).code == 0


# -- naming and listing


def test_an_address_that_several_accounts_have_is_no_name(house: Any, account: Any, mailbox: AiosmtpdServer) -> None:
    other = house.add_account(mailbox, login="other")
    result = house.run("account", "show", LOGIN)
    assert result.code == 1
    assert str(account.id) in result.err
    assert str(other.id) in result.err
    assert house.run("account", "show", str(other.id)).code == 0


@pytest.mark.parametrize("command", ["show", "edit", "verify", "activate", "deactivate", "remove"])
def test_an_account_that_is_not_there_is_said(house: Any, command: str) -> None:
    more = ["--name", "x"] if command == "edit" else []
    result = house.run("account", command, "nobody@shop.example", *more)
    assert result.code == 1
    assert "nobody@shop.example" in result.err


def test_accounts_are_listed_newest_first_and_filtered(house: Any, smtp: ScriptedSMTP) -> None:
    ids = [
        str(house.add_account(smtp, "a@shop.example").id),
        str(house.add_account(smtp, "b@shop.example", owner="crm-7").id),
        str(house.add_account(smtp, "c@shop.example", active=False).id),
    ]

    def listed(*words: str) -> list[str]:
        return [each["id"] for each in house.run("account", "list", *words, "--json").json]

    assert listed() == ids[::-1]
    assert listed("--owner", "crm-7") == [ids[1]]
    assert listed("--inactive") == [ids[2]]
    assert listed("--active") == [ids[1], ids[0]]
    assert listed("--limit", "1") == [ids[2]]
    assert house.run("account", "list", "--limit", "10001").code == 2


def test_people_get_tables(house: Any, account: Any) -> None:
    listed = house.run("account", "list").out
    assert LOGIN in listed
    assert str(account.id) in listed
    shown = house.run("account", "show", LOGIN).out
    assert "4 connections" in shown or "connections 4" in shown
    assert "password" not in shown
