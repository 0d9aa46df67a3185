"""Nothing personal and nothing secret in what Flower returns or the log says, in any encoding (design §9)."""

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from postroom.producer import Mail
from servers.command import wait_until
from whole.conftest import LOGIN, PASSWORD, Whole

RECIPIENT = "zinaida.privacy@client.example"
SUBJECT = "Тайный заказ 4711-needle"
BODY = "Совершенно секретные слова body-needle"
NAME = "Зинаида Needle"


def spellings(secret: str) -> Iterator[bytes]:
    """The secret as it might be written: plain, percent, JSON, HTML, hex, quoted-printable, base64 at any offset."""
    raw = secret.encode()
    yield raw
    yield urllib.parse.quote(secret).encode()
    yield urllib.parse.quote_plus(secret).encode()
    yield json.dumps(secret)[1:-1].encode()
    yield secret.encode("ascii", "xmlcharrefreplace")
    yield secret.encode("unicode_escape")
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield "".join(f"={byte:02X}" if byte > 126 else chr(byte) for byte in raw).encode()
    yield repr(raw)[2:-1].encode()
    for offset in range(3):
        inner = base64.b64encode(b"x" * offset + raw)
        yield inner[4 if offset else 0 : -4]


def found(text: bytes, secrets: list[str]) -> list[str]:
    lowered = text.lower()
    return [
        f"{secret!r} as {spelling!r}"
        for secret in secrets
        for spelling in spellings(secret)
        if len(spelling) > 5 and spelling.lower() in lowered
    ]


def test_the_search_finds_what_it_should() -> None:
    for spelling in spellings(SUBJECT):
        assert found(b"..." + spelling + b"...", [SUBJECT])


@pytest.mark.timeout(120)
def test_flower_shows_the_work_and_nothing_personal(whole: Whole) -> None:
    whole.add_account()
    refused = whole.postroom(
        *("account", "add", "--address", "other@shop.example", "--host", "localhost", "--login", LOGIN),
        *("--port", str(whole.smtp.port), "--security", "starttls", "--password-stdin"),
        given="wrong-" + PASSWORD,
    )
    assert refused.returncode == 1
    with whole.producer() as producer:
        template = {"name": "order_paid", "locale": "ru", "version": "7", "meta": {"event": "SALE_ORDER_PAID"}}
        fields: dict[str, Any] = {"from_": LOGIN, "to": f"{NAME} <{RECIPIENT}>", "subject": SUBJECT, "text": BODY}
        producer.enqueue(Mail(**fields, template=template))
        producer.enqueue(Mail(**{**fields, "from_": "nobody.needle@shop.example"}))
    whole.smtp.wait_received(2, timeout_seconds=20)  # the proof's mail, and this one

    secrets = [RECIPIENT, SUBJECT, BODY, NAME, PASSWORD, LOGIN, "nobody.needle@shop.example", whole.flower_auth[1]]
    with httpx.Client(base_url=whole.flower_url, auth=whole.flower_auth, timeout=20, follow_redirects=True) as flower:

        def names() -> set[str]:
            return {task["name"] for task in flower.get("/api/tasks", params={"limit": 10000}).json().values()}

        wait_until(lambda: {"postroom.accept", "postroom.drain", "postroom.verify"} <= names())
        tasks = flower.get("/api/tasks", params={"limit": 10000})
        accepts = [task for task in tasks.json().values() if task["name"] == "postroom.accept"]
        assert any("order_paid" in task["args"] and "SALE_ORDER_PAID" in task["args"] for task in accepts)
        workers = flower.get("/api/workers", params={"refresh": "1"})
        assert {name.partition("@")[0] for name in workers.json()} == {"accept", "drain", "care"}

        pages = ["/", "/workers", "/tasks", "/broker", "/api/queues/length", "/metrics", "/api/task/types"]
        pages += [f"/worker/{name}" for name in workers.json()]
        for task_id, task in tasks.json().items():
            if not task["name"].startswith("postroom.chore"):
                pages += [f"/api/task/info/{task_id}", f"/task/{task_id}"]
        answers = {page: flower.get(page) for page in pages} | {"tasks": tasks, "workers": workers}
        for page, answer in answers.items():
            assert answer.status_code == 200, (page, answer.status_code)
            assert found(answer.content, secrets) == [], page
    assert found(whole.up.output.encode(), secrets) == []


def test_flower_wants_its_password(whole: Whole) -> None:
    for page in ("/", "/api/tasks", "/api/workers", "/tasks", "/workers"):
        assert httpx.get(whole.flower_url + page).status_code == 401, page
        assert httpx.get(whole.flower_url + page, auth=("postroom", "wrong")).status_code == 401, page
    anybody = httpx.post(whole.flower_url + "/api/worker/shutdown/accept@x")
    assert anybody.status_code == 401


def test_task_arguments_hold_ids_and_template_metadata_only(whole: Whole) -> None:
    answer = httpx.get(whole.flower_url + "/api/tasks", params={"limit": 10000}, auth=whole.flower_auth, timeout=20)
    for task in answer.json().values():
        if task["name"] == "postroom.drain":
            assert re.fullmatch(r"\['[0-9a-f-]{36}'\]|\('[0-9a-f-]{36}',\)", task["args"]), task["args"]
