"""The whole way of one mail: handed over, accepted, chosen, drained, recorded; counted on both sides."""

import email
import email.policy
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import select

from postroom.config.states import Auth, Health
from postroom.config.tables import letters
from postroom.producer import Attachment
from postroom.worker.drain import drain
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House


def test_a_mail_is_sent_and_recorded(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, name="Магазин")
    mail_id = house.enqueue(
        subject="Заказ № 7",
        text="Спасибо за заказ",
        template={"name": "order", "locale": "ru", "version": "3", "meta": {"event": "SALE_NEW_ORDER"}},
        tags=["orders"],
    )
    house.accept(mail_id)
    assert house.nudges.drains == [account.id]
    assert house.process.redis.hlen("postroom:inbox") == house.process.redis.zcard("postroom:inbox:at") == 0

    house.drain(account)

    (arrived,) = smtp.accepted
    assert (arrived.reverse_path, arrived.recipients) == ("shop@shop.example", ("anna@client.example",))
    letter = email.message_from_bytes(arrived.content, policy=email.policy.default)
    assert letter["Subject"] == "Заказ № 7"
    assert str(letter["From"]) == "Магазин <shop@shop.example>"
    assert letter["Message-ID"] == f"<{mail_id.hex}@shop.example>"
    assert letter.get_content().strip() == "Спасибо за заказ"
    shown = house.show(mail_id)
    assert (shown["state"], shown["account_id"], shown["copies_possible"]) == ("sent", str(account.id), 1)
    assert shown["template"] == {
        "name": "order",
        "locale": "ru",
        "version": "3",
        "meta": {"event": "SALE_NEW_ORDER"},
    }
    (recipient,) = shown["recipients"]
    assert recipient["state"] == "accepted"
    assert recipient["reply"].startswith("250")
    (attempt,) = shown["attempts_log"]
    assert (attempt["outcome"], attempt["account_id"]) == ("accepted", str(account.id))
    assert attempt["duration_seconds"] > 0


def test_enqueueing_twice_and_draining_twice_sends_once(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    first = house.take(key="order-7")
    assert house.take(key="order-7") == first
    house.drain(account)
    house.drain(account)
    assert len(smtp.accepted) == 1


def test_bcc_is_in_the_envelope_only_and_an_address_named_twice_gets_one_copy(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.take(to=["a@client.example", "b@client.example"], cc="A@client.example", bcc="secret@client.example")
    house.drain(account)
    (arrived,) = smtp.accepted
    assert arrived.recipients == ("a@client.example", "b@client.example", "secret@client.example")
    assert b"secret@" not in arrived.content


def test_the_letter_lies_sealed_for_its_own_row(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mine = house.take(text="top secret words")
    other = house.take(text="another letter")
    with house.process.database.write() as connection:
        boxes = dict(connection.execute(select(letters.c.mail_id, letters.c.sealed)).all())
        assert not any(b"secret words" in box for box in boxes.values())
        connection.execute(letters.update().where(letters.c.mail_id == mine).values(sealed=boxes[other]))
    house.drain(account)
    assert house.state(mine) == ("held", "poison")
    assert house.nudges.drains[-1] == account.id, "the lane goes on"
    house.drain(account)
    assert house.state(other) == ("sent", None)
    assert len(smtp.accepted) == 1


def test_an_attachment_arrives_byte_for_byte(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    content = bytes(range(256)) * 300
    house.take(attachments=[Attachment(filename="счёт.bin", content=content)])
    house.drain(account)
    letter = email.message_from_bytes(smtp.accepted[0].content, policy=email.policy.default)
    (file,) = letter.iter_attachments()
    assert (file.get_filename(), file.get_content()) == ("счёт.bin", content)


def test_a_lane_is_sent_over_one_session_most_urgent_first(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    for number, priority in enumerate(["bulk", "normal", "high", "bulk", "normal", "high"]):
        house.take(subject=f"{priority} {number}", priority=priority)
    house.drain(account)
    subjects = [email.message_from_bytes(each.content)["Subject"] for each in smtp.accepted]
    assert subjects == ["high 2", "high 5", "normal 1", "normal 4", "bulk 0", "bulk 3"]
    assert {each.connection for each in smtp.accepted} == {1}


def test_the_next_drain_uses_the_open_session(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    for _ in range(2):
        house.take()
        house.drain(account)
    assert [each.connection for each in smtp.accepted] == [1, 1]


def test_a_scheduled_mail_waits_for_its_time(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take(send_at=datetime.now(UTC) + timedelta(hours=1))
    house.drain(account)
    assert house.state(mail_id) == ("queued", None)
    assert not smtp.accepted


def test_a_password_is_opened_to_sign_in(house: House) -> None:
    with ScriptedSMTP(login="shop", password="s3cret пароль") as server:
        account = house.add_account(
            server, auth=Auth.PLAIN, login="shop", password="s3cret пароль", allow_cleartext=True
        )
        house.take()
        house.drain(account)
        assert [each.login for each in server.accepted] == ["shop"]


def test_a_password_moved_to_another_account_does_not_open(house: House) -> None:
    with ScriptedSMTP(login="shop", password="one") as server:
        given = {"auth": Auth.PLAIN, "login": "shop", "allow_cleartext": True}
        first = house.add_account(server, "one@shop.example", password="one", **given)
        second = house.add_account(server, "two@shop.example", password="two", **given)
        house.change("accounts", second.id, password=first.password)
        mail_id = house.take(from_="two@shop.example")
        house.drain(second)
        after = house.account(second)
        assert after.health is Health.SUSPENDED
        assert "password cannot be opened" in (after.health_detail or "")
        assert house.state(mail_id) == ("held", "account_suspended")
        assert not any(command.startswith("AUTH") for command in server.commands)


def test_a_host_edited_in_the_database_gets_no_password(house: House) -> None:
    with ScriptedSMTP(login="shop", password="one") as mine, ScriptedSMTP(login="shop", password="one") as thief:
        account = house.add_account(mine, auth=Auth.PLAIN, login="shop", password="one", allow_cleartext=True)
        house.change("accounts", account.id, port=thief.port)
        mail_id = house.take()
        house.drain(account)
        assert thief.commands == []
        assert house.state(mail_id) == ("held", "account_suspended")


def test_an_unknown_account_is_no_work(house: House) -> None:
    drain(house.process, uuid4())


def test_an_edited_account_is_not_served_by_a_session_of_before(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.take()
    house.drain(account)
    house.change("accounts", account.id, version=account.version + 1)
    house.take()
    house.drain(account)
    assert [each.connection for each in smtp.accepted] == [1, 2]
