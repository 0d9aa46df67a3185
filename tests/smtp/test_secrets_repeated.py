"""A server that repeats what it was sent at AUTH does not make us show or keep the password."""

import base64

import pytest

from postroom.config.states import Auth
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import OpenFailed, Session, Step
from servers.scripted_smtp import Reply, ScriptedSMTP
from servers.smtp_client import account

PASSWORD = "hunter2secret"
LINE = base64.b64encode(b"\0u\0" + PASSWORD.encode()).decode()


@pytest.mark.parametrize(
    "words",
    [
        f"535 5.7.8 not understood: AUTH PLAIN {LINE}",
        f"535 5.7.8 not understood: auth plain {LINE.lower()}",
        f"535 5.7.8 bad credentials u/{PASSWORD}",
        f"535-not understood: AUTH PLAIN {LINE[:10]}\n535 {LINE[10:]}",
        f"999 AUTH PLAIN {LINE}",
        f"AUTH PLAIN {LINE}",
    ],
)
def test_what_a_server_repeats_is_not_shown(patient: Client, words: str) -> None:
    steps: list[Step] = []
    with ScriptedSMTP(on={"AUTH": Reply(words)}, login="u", password="other") as server:
        given = account(server, auth=Auth.PLAIN, login="u", password=PASSWORD, allow_cleartext=True)
        with pytest.raises(OpenFailed) as refused:
            Session.open(given, patient, on_step=steps.append)
    shown = "".join(f"{refused.value!r} {refused.value} {refused.value.reply} {steps}".split()).casefold()
    assert PASSWORD not in shown
    assert LINE.casefold() not in shown
    assert LINE[:10].casefold() not in shown
