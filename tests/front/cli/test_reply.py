"""`postroom reply`: what a server's reply means."""

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("words", "outcome", "scope", "effect"),
    [
        (["550", "5.1.1", "User", "unknown"], "failed", "recipient", "none"),
        (["535 5.7.8 Username and Password not accepted"], "deferred", "account", "suspend"),
        (["451 4.3.0 Try again later"], "deferred", "mail", "none"),
        (["250", "2.0.0", "OK"], "accepted", "mail", "none"),
        (["550-5.1.1 No such user\n550 5.1.1 --really"], "failed", "recipient", "none"),
    ],
)
def test_a_reply_has_its_meaning(house: Any, words: list[str], outcome: str, scope: str, effect: str) -> None:
    meaning = house.run("reply", *words, "--json").json
    assert meaning.keys() == {"outcome", "scope", "effect", "rule"}
    assert (meaning["outcome"], meaning["scope"], meaning["effect"]) == (outcome, scope, effect)
    assert meaning["rule"] in house.run("reply", *words).out
    assert house.run("reply", "--json", stdin=" ".join(words)).json == meaning


def test_what_is_no_reply_is_a_usage_error(house: Any) -> None:
    result = house.run("reply", "hello", "--json")
    assert (result.code, result.out) == (2, "")
