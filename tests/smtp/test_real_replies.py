"""Replies of real servers, kept with where they were read, mean what a postmaster would make of them."""

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from postroom.worker.smtp.pasted import parse_pasted
from postroom.worker.smtp.replies import Reply, Rule, classify, reply_of, rules


@dataclass(frozen=True)
class Kept:
    """One reply of `real_replies.toml`."""

    provider: str
    where: str
    at: str
    text: str
    means: str
    rule: str
    wait_seconds: float | None

    @property
    def reply(self) -> Reply:
        """As it comes off the wire: every line with its code."""
        lines = self.text.encode().split(b"\n")
        return reply_of(int(lines[0][:3]), [line[4:] for line in lines], self.at)


@cache
def kept() -> tuple[Kept, ...]:
    sources = tomllib.loads(Path(__file__).with_name("real_replies.toml").read_text())["source"]
    return tuple(
        Kept(
            source["provider"],
            source["where"],
            each["at"],
            each["text"],
            each["means"],
            each["rule"],
            each.get("wait_seconds"),
        )
        for source in sources
        for each in source["replies"]
    )


@pytest.mark.parametrize("real", kept(), ids=lambda real: f"{real.provider}: {real.text[:40]}")
def test_a_real_reply_means_what_a_postmaster_would_make_of_it(real: Kept) -> None:
    verdict = classify(real.reply)
    means = f"{verdict.outcome} {verdict.scope} {verdict.effect}"
    assert (means, verdict.rule, verdict.wait_seconds) == (real.means, real.rule, real.wait_seconds), real.where


@pytest.mark.parametrize("real", kept(), ids=lambda real: f"{real.provider}: {real.text[:40]}")
def test_pasted_it_is_read_as_off_the_wire(real: Kept) -> None:
    pasted = parse_pasted(real.text)
    assert (pasted.code, pasted.enhanced_status_code) == (real.reply.code, real.reply.enhanced_status_code)


def test_the_replies_are_many_and_of_every_provider_that_has_rules() -> None:
    assert len({real.text for real in kept()}) == len(kept()) >= 200
    assert all(real.where for real in kept())
    providers = Counter(real.provider for real in kept())
    for provider in ("Microsoft 365", "Gmail", "Yandex", "Mail.ru", "Postfix", "Exim", "Exchange"):
        assert providers[provider], provider


def every_rule() -> dict[str, Rule]:
    return {rule.name: rule for of_class in rules().values() for rule in of_class}


@pytest.mark.parametrize("name", every_rule())
def test_every_rule_is_met_by_a_real_reply(name: str) -> None:
    assert any(classify(real.reply).rule == name for real in kept())


@pytest.mark.parametrize("real", kept(), ids=lambda real: f"{real.provider}: {real.text[:40]}")
def test_case_changes_nothing(real: Kept) -> None:
    reply = real.reply
    shouted = Reply(reply.code, reply.enhanced_status_code, reply.text.upper(), reply.command)
    assert classify(shouted).rule == real.rule


def test_the_page_about_replies_lists_each_provider_with_its_rules() -> None:
    page = (Path(__file__).parents[2] / "docs" / "replies.md").read_text()
    listed = {
        provider: set(re.findall(r"`(\w+)`", names))
        for provider, names in re.findall(r"^- ([^:\n]+): ((?:.+\n)(?:  .+\n)*)", page, re.MULTILINE)
    }
    of_rules: dict[str, set[str]] = {}
    for rule in every_rule().values():
        for provider in filter(None, (rule.provider or "").split(", ")):
            of_rules.setdefault(provider, set()).add(rule.name)
    assert listed == of_rules
