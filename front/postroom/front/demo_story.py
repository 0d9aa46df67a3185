"""The demo's story, chapter by chapter. What it tells it has seen; otherwise it fails, loudly."""
# ruff: noqa: RUF001 - the letters are Russian

import secrets
from typing import Final
from uuid import UUID

from postroom.config import accounts, mails
from postroom.config.states import HeldReason, MailState
from postroom.front import demo_letters
from postroom.front.access import Access
from postroom.front.demo_deeds import Deeds, NotAsTold, must
from postroom.front.demo_telling import Telling
from postroom.front.mail_server import MailServer
from postroom.front.proof import NotProved
from postroom.producer import Producer
from postroom.producer.mail import address_key
from postroom.worker import lanes

SHOP: Final = "shop@lamp.example"
ANNA: Final = "anna@lamp.example"
ORDERS: Final = "orders@lamp.example"
SPARE: Final = "spare@lamp.example"
"""Nobody's in the story: for whoever tries things afterwards."""
_OWNER: Final = "crm-17"
_CUSTOMER: Final = "ivan@mail.example"
_MOST: Final = 1000


def throw_away_passwords() -> dict[str, str]:
    """Mailbox → a password that lives as long as the demo."""
    return {mailbox: secrets.token_urlsafe(12) for mailbox in (SHOP, ANNA, ORDERS, SPARE)}


class Story:
    """Tells the story once.

    Args:
        telling: how it is told.
        access: of a house in which everything is up.
        server: where the mailboxes are.
        passwords: of the mailboxes.
    """

    def __init__(self, telling: Telling, access: Access, server: MailServer, passwords: dict[str, str]) -> None:
        self._telling = telling
        self._access = access
        self._server = server
        self._deeds = Deeds(telling, access, server, passwords)

    def tell(self) -> None:
        """Tell it from the first chapter to the last.

        Raises:
            NotAsTold: something did not happen, or happened otherwise.
            PostroomError: something was refused that must not be.
        """
        settings = self._access.settings
        with Producer(
            settings.broker, "site", public_key=settings.public_file, job_limit_bytes=settings.job_limit_bytes
        ) as producer:
            self._a_shop_adds_its_mailbox_and_sends(producer)
            self._a_wrong_password_is_refused()
            self._a_crm_user_sends(producer)
            self._a_mail_waits_for_its_account(producer)
        self._the_ledger_knows()
        self._what_arrived()

    def _a_shop_adds_its_mailbox_and_sends(self, producer: Producer) -> None:
        telling = self._telling
        telling.chapter("A shop adds its mailbox")
        telling.say(
            "A worker proves it, because that is where mail will leave from: it connects, starts TLS, signs in and "
            "sends a test mail to the mailbox itself. Only then is the mailbox stored, its password sealed."
        )
        shop = self._deeds.add_account(SHOP, "Магазин «Лампа»")
        telling.chapter("The shop's site hands over a mail")
        telling.say(
            "The site rendered it from a template of its own and says which: the ledger and Flower show that, and "
            "Flower never shows what is in the mail."
        )
        given = self._deeds.hand_over(
            producer,
            {
                "from_": SHOP,
                "to": f"Иван Петров <{_CUSTOMER}>",
                "subject": "Заказ № 1042 принят",
                "text": "Здравствуйте, Иван!\n\nВы заказали настольную лампу. Доставим её завтра.\n",
                "template": {"name": "order_accepted", "locale": "ru", "version": "7", "meta": {"event": "order"}},
            },
        )
        delivered = self._deeds.see_arrive(given, shop)
        telling.good(
            f"Handed over in {given.milliseconds:.1f} ms, and {delivered.milliseconds:.0f} ms after the call began the "
            f"server had answered 250. The name in From, {shop.name}, comes from the account"
        )

    def _a_wrong_password_is_refused(self) -> None:
        telling = self._telling
        telling.chapter("A wrong password is refused, and nothing is stored")
        before = self._deeds.count_accounts()
        try:
            self._deeds.add_account(ANNA, "Анна Ковалёва", _OWNER, password=secrets.token_urlsafe(12))
        except NotProved as refusal:
            must(refusal.step == "auth", f"the proof failed at {refusal.step}, not at auth: {refusal.why}")
            telling.refused(f"Refused at the step {refusal.step}: {refusal}")
        else:
            raise NotAsTold("an account was stored with a wrong password")
        after = self._deeds.count_accounts()
        must(before == after == 1, f"there were {before} accounts and are {after} now, not 1 and 1")
        telling.good(f"Accounts before: {before}. Accounts now: {after}")

    def _a_crm_user_sends(self, producer: Producer) -> None:
        telling = self._telling
        telling.chapter("With the right one, a CRM user sends from her own mailbox")
        anna = self._deeds.add_account(ANNA, "Анна Ковалёва", _OWNER, each_step=False)
        given = self._deeds.hand_over(
            producer,
            {
                "owner": _OWNER,
                "from_": ANNA,
                "to": _CUSTOMER,
                "subject": "Счёт на заказ № 1042",
                "text": "Иван, добрый день!\n\nСчёт приложен.\n\nАнна\n",
                "attachments": [{"filename": "счёт.txt", "content": b"2490 RUB\n"}],
            },
        )
        delivered = self._deeds.see_arrive(given, anna)
        telling.good(
            f"It left over her own mailbox; the server's 250 came after {delivered.milliseconds:.0f} ms. "
            f"Only mail of the owner {_OWNER} can leave from there"
        )

    def _a_mail_waits_for_its_account(self, producer: Producer) -> None:
        telling, deeds = self._telling, self._deeds
        telling.chapter("A mail whose address no account has: it waits, and leaves by itself")
        given = deeds.hand_over(
            producer,
            {
                "from_": f"Служба доставки <{ORDERS}>",
                "to": _CUSTOMER,
                "subject": "Заказ № 1042 в пути",
                "text": "Курьер позвонит за час.\n",
            },
        )
        reason = deeds.wait_for_state(given.mail_id, MailState.HELD)
        must(reason is HeldReason.NO_ACCOUNT, f"the mail is held for {reason}, not for no_account")
        telling.refused(f"The mail is held, {reason}: Postroom never sends from another address instead. Why:")
        with self._access.read() as connection:
            choice = lanes.explain(connection, address_key(ORDERS), None)
        must(choice.account is None and len(choice.verdicts) > 1, "the explanation does not say why the mail is held")
        telling.table(
            ("account", "may send it", "why"),
            [(each.account.address, "✓" if each.ok else "✗", each.why) for each in choice.verdicts],
        )
        account = deeds.add_account(ORDERS, "", each_step=False)
        if account.verified_at is None:
            raise NotAsTold("the account was stored without a proof")
        delivered = deeds.see_arrive(given, account, since=("account stored", deeds.stored_at))
        telling.good(f"And the mail left by itself: the server's 250 came {delivered.milliseconds:.0f} ms after that")

    def _the_ledger_knows(self) -> None:
        telling = self._telling
        telling.chapter("The ledger knows what became of each")
        with self._access.read() as connection:
            listed = mails.newest(connection, mails.Filter(), limit=_MOST)
            shown = [mails.show(connection, UUID(each["id"])) for each in reversed(listed)]
            stored = {str(account.id): account for account in accounts.newest(connection, limit=_MOST)}
        ids = [UUID(each["id"]) for each in shown]
        must(
            ids == [delivered.given.mail_id for delivered in self._deeds.delivered],
            f"the ledger has the mails {ids}, which are not those of this story",
        )
        rows = []
        for each in shown:
            tried = each["attempts_log"]
            must(each["state"] == MailState.SENT, f"the ledger says {each['state']} of {each['subject']!r}")
            must(len(tried) == 1, f"{each['subject']!r} was tried {len(tried)} times, not once")
            owner = stored[each["account_id"]].owner
            whose = f"{owner}'s" if owner else "shared"
            took = f"{tried[0]['duration_seconds'] * 1000:.0f}"
            to = ", ".join(each["to"])
            rows.append((each["state"], each["from"], to, each["subject"], whose, tried[0]["reply"] or "", took))
        telling.table(("state", "from", "to", "subject", "account", "the server's reply", "ms>"), rows)

    def _what_arrived(self) -> None:
        telling, delivered = self._telling, self._deeds.delivered
        telling.chapter("And this is what arrived")
        expected = len(delivered) + self._deeds.proofs
        count = len(self._server.arrived)
        must(count == expected, f"{count} letters arrived, not {expected}: each must come once")
        first = delivered[0].arrived
        letter = demo_letters.read(first)
        envelope = [("MAIL FROM", f"<{first.reverse_path}>"), ("RCPT TO", f"<{', '.join(first.recipients)}>")]
        headers = [(name, str(value)) for name, value in letter.items()]
        telling.letter("the site's mail, whole and decoded", [*envelope, *headers], demo_letters.text_of(letter))
        rows = []
        for each in delivered:
            letter = demo_letters.read(each.arrived)
            with_files = "".join(f" [{filename}]" for filename, _ in demo_letters.attachments_of(letter))
            took, waited = f"{each.given.milliseconds:.1f}", f"{each.milliseconds:.0f}"
            rows.append((str(letter["From"]), f"{letter['Subject']}{with_files}", took, f"{each.since} → 250", waited))
        telling.table(("from", "subject", "enqueue, ms>", "then", "ms>"), rows)
        telling.good(
            f"{len(rows)} mails, each arrived once and just as it was handed over; and {self._deeds.proofs} test mails"
        )
