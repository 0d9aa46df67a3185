"""Killed in the middle: Redis, accept, drain. Every mail that was handed over ends once, counted on both sides."""

import collections
import email
import json
import os
import signal
from uuid import UUID

import pytest

from postroom.producer import BrokerUnavailable, Mail, Producer, names
from postroom.producer.broker import redis_client
from servers.command import wait_until
from whole.conftest import LOGIN, Whole

SENT_IN_SECONDS = 60


def kill(whole: Whole, program: str) -> None:
    """SIGKILL, as the system's memory killer would; returns when the supervisor has started it again."""
    pid = whole.up.pids()[program]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: whole.up.pids()[program] != pid)


def hand_over(producer: Producer, subject: str) -> UUID:
    """As a site would that does not give up: the same mail again until Redis takes it."""
    mail = Mail(from_=LOGIN, to="anna@client.example", subject=subject, text="Thank you")
    while True:
        try:
            return producer.enqueue(mail)
        except BrokerUnavailable:
            continue


def age_the_inbox(whole: Whole) -> None:
    """Move what lies in the inbox back in time: the chore takes it for stray now, not in half a minute."""
    with redis_client(whole.postroom("broker-url").stdout.strip()) as client:
        for field in client.zrange(names.INBOX_AT, 0, -1):
            client.zadd(names.INBOX_AT, {field: 1.0}, xx=True)


def subjects_arrived(whole: Whole) -> collections.Counter[str]:
    return collections.Counter(str(email.message_from_bytes(each.content)["Subject"]) for each in whole.smtp.received)


def states(whole: Whole, ids: set[UUID]) -> collections.Counter[str]:
    listed = json.loads(whole.postroom("mail", "list", "--json", "--limit", "10000").stdout)
    return collections.Counter(mail["state"] for mail in listed if UUID(mail["id"]) in ids)


@pytest.fixture(scope="module")
def account(whole: Whole) -> None:
    whole.add_account()


@pytest.mark.usefixtures("account")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("program", ["redis", "accept", "care"])
def test_a_kill_before_the_mark_loses_and_doubles_nothing(whole: Whole, program: str) -> None:
    subjects = [f"{program} {number}" for number in range(40)]
    ids = set()
    with whole.producer() as producer:
        for number, subject in enumerate(subjects):
            ids.add(hand_over(producer, subject))
            if number == 20:
                kill(whole, program)
    assert len(ids) == len(subjects)
    age_the_inbox(whole)
    wait_until(lambda: states(whole, ids) == {"sent": len(subjects)}, SENT_IN_SECONDS)
    arrived = subjects_arrived(whole)
    assert {subject: arrived[subject] for subject in subjects} == dict.fromkeys(subjects, 1)


@pytest.mark.usefixtures("account")
@pytest.mark.timeout(180)
def test_a_killed_drain_doubles_only_what_it_announces(whole: Whole) -> None:
    subjects = [f"drain {number}" for number in range(40)]
    with whole.producer() as producer:
        ids = set(producer.enqueue_many(mail(subject) for subject in subjects))
        before = len(whole.smtp.received)
        whole.smtp.wait_received(before + 5, timeout_seconds=20)
        kill(whole, "drain")
    wait_until(lambda: set(states(whole, ids)) <= {"sent", "uncertain"}, 120)
    arrived = subjects_arrived(whole)
    listed = json.loads(whole.postroom("mail", "list", "--json", "--limit", "10000").stdout)
    for mail_shown in listed:
        if UUID(mail_shown["id"]) in ids:
            copies = arrived[mail_shown["subject"]]
            assert copies <= 1, "its second copy is not due for 15 minutes"
            assert copies == 1 or mail_shown["state"] == "uncertain"
    uncertain = states(whole, ids)["uncertain"]
    assert uncertain <= 4, "at most one for each connection"


def mail(subject: str) -> Mail:
    return Mail(from_=LOGIN, to="anna@client.example", subject=subject, text="Thank you")
