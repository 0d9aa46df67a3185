"""A server's reply → what it means: outcome, scope and effect (design §8). The rules are data: `replies.toml`."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

from postroom.config.states import Effect, Outcome, Scope

_TEXT_KEPT_CHARACTERS: Final = 2000
_LONGEST_WAIT_SECONDS: Final = 86_400.0
_ENHANCED = re.compile(r"#?([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)\s*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_WAIT_CLOCK = re.compile(r"(?:again|retry|wait|back|after|greylist)\D{0,40}?\b(\d{1,2}):(\d\d):(\d\d)\b", re.IGNORECASE)
_WAIT = re.compile(
    r"(?:again|retry|wait|back|gr[ae]ylist|deferred|delayed)\D{0,40}?\b(\d{1,6})\s{0,9}"
    r"(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b",
    re.IGNORECASE,
)
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server said.

    Attributes:
        code: three digits, 200 to 599 (RFC 5321 §4.2.1).
        enhanced_status_code: such as ``5.1.1`` (RFC 3463), where the reply has one of its own class.
        text: the rest, lines joined by a space, without control characters, at most 2,000 characters.
        command: the verb it answered: ``greeting``, EHLO, HELO, STARTTLS, AUTH, MAIL, RCPT, DATA, ``.``, RSET or QUIT;
            empty where that is not known.
    """

    code: int
    enhanced_status_code: str | None
    text: str
    command: str

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced_status_code, self.text)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply means.

    Attributes:
        outcome: accepted, deferred or failed. A reply about the account (scope `account`) never fails a mail.
        scope: what was refused.
        effect: what becomes of the account.
        rule: name of the rule that said so; the fallbacks are ``accepted``, ``class_4`` and ``class_5``.
        wait_seconds: a wait that the reply named, or 0: at once in a next transaction.
        hint: what a person can do about it; may be empty.
    """

    outcome: Outcome
    scope: Scope
    effect: Effect
    rule: str
    wait_seconds: float | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of `replies.toml`; every condition given must hold.

    Attributes:
        name: what `Verdict.rule` says.
        provider: whose words these are; empty where anybody may say them.
        source: where the meaning is told, and on what day that was read.
    """

    name: str
    classes: frozenset[int]
    codes: frozenset[int]
    commands: frozenset[str]
    enhanced: re.Pattern[str] | None
    text: re.Pattern[str] | None
    verdict: Verdict
    provider: str
    source: str

    def fits(self, reply: Reply) -> bool:
        """Whether this rule is about that reply; its class was looked at before."""
        if self.codes and reply.code not in self.codes:
            return False
        if self.commands and reply.command not in self.commands:
            return False
        if self.enhanced and not self.enhanced.fullmatch(reply.enhanced_status_code or ""):
            return False
        return not self.text or self.text.search(reply.text) is not None


_ACCEPTED: Final = Verdict(Outcome.ACCEPTED, Scope.MAIL, Effect.NONE, "accepted")
_SCOPE_OF_COMMAND: Final = {"RCPT": Scope.RECIPIENT, "AUTH": Scope.ACCOUNT}


def classify(reply: Reply) -> Verdict:
    """The verdict on a reply: the first rule that fits, else by the class of its code (RFC 5321 §4.2.1)."""
    if reply.code < 400:  # noqa: PLR2004 - 2yz and 3yz are success so far
        return _ACCEPTED
    return _of_refusal(reply)


@lru_cache(maxsize=256)  # to look through all rules costs 100 µs, and a server in trouble says the same to every mail
def _of_refusal(reply: Reply) -> Verdict:
    of_class = reply.code // 100
    for rule in rules()[of_class]:
        if rule.fits(reply):
            return _with_wait(rule.verdict, reply)
    outcome = Outcome.DEFERRED if of_class == 4 else Outcome.FAILED  # noqa: PLR2004 - 4yz
    scope = _SCOPE_OF_COMMAND.get(reply.command, Scope.MAIL)
    return _with_wait(Verdict(outcome, scope, Effect.NONE, f"class_{of_class}"), reply)


def _with_wait(verdict: Verdict, reply: Reply) -> Verdict:
    if verdict.outcome is not Outcome.DEFERRED or verdict.wait_seconds is not None:
        return verdict
    wait_seconds = named_wait(reply.text)
    if wait_seconds is None:
        return verdict
    return Verdict(verdict.outcome, verdict.scope, verdict.effect, verdict.rule, wait_seconds, verdict.hint)


def named_wait(text: str) -> float | None:
    """The wait that a text names, in seconds: "try again in 5 minutes", "come back in 00:05:00"; at most a day."""
    if found := _WAIT_CLOCK.search(text):
        hours, minutes, seconds = map(int, found.groups())
        return min(hours * 3600.0 + minutes * 60 + seconds, _LONGEST_WAIT_SECONDS)
    if found := _WAIT.search(text):
        return min(float(found[1]) * _UNIT_SECONDS[found[2][0].lower()], _LONGEST_WAIT_SECONDS)
    return None


def reply_of(code: int, lines: Sequence[bytes], command: str) -> Reply:
    """A reply from the texts of its lines, as bytes off the wire."""
    return reply_of_texts(code, [line.decode("utf-8", "replace") for line in lines], command)


def reply_of_texts(code: int, lines: Iterable[str], command: str) -> Reply:
    """A reply from the texts of its lines, without their codes."""
    enhanced: str | None = None
    texts: list[str] = []
    for line in lines:
        found = _ENHANCED.match(line)
        if found and int(found[1]) == code // 100:
            enhanced = enhanced or f"{found[1]}.{int(found[2])}.{int(found[3])}"
            texts.append(line[found.end() :])  # every line repeats it (RFC 2034 §4)
        else:
            texts.append(line)
    text = " ".join(texts).strip()
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text).strip()
    return Reply(code, enhanced, text[:_TEXT_KEPT_CHARACTERS], command)


@cache
def rules() -> dict[int, tuple[Rule, ...]]:
    """The rules of `replies.toml` by class of code (4, 5), compiled once a process."""
    with (Path(__file__).with_name("replies.toml")).open("rb") as file:
        every = [_rule(entry) for entry in tomllib.load(file)["rule"]]
    return {of_class: tuple(rule for rule in every if of_class in rule.classes) for of_class in (4, 5)}


def rule_named(name: str) -> Rule | None:
    """The rule of that name; None for the fallbacks, which are no rules."""
    return next((rule for of_class in rules().values() for rule in of_class if rule.name == name), None)


def _rule(entry: dict[str, Any]) -> Rule:
    codes = frozenset(entry.get("codes", ()))
    of_class = {code // 100 for code in codes} or {int(digit) for digit in entry.get("class", "45")}
    return Rule(
        name=entry["name"],
        classes=frozenset(of_class),
        codes=codes,
        commands=frozenset(entry.get("commands", ())),
        enhanced=_any_of(entry["enhanced"]) if "enhanced" in entry else None,
        text=re.compile(entry["text"], re.IGNORECASE) if "text" in entry else None,
        verdict=Verdict(
            outcome=Outcome(entry["outcome"]),
            scope=Scope(entry["scope"]),
            effect=Effect(entry["effect"]),
            rule=entry["name"],
            wait_seconds=entry.get("wait_seconds"),
            hint=entry.get("hint", ""),
        ),
        provider=entry.get("provider", ""),
        source=f"{entry['source']}, {entry['date']}",
    )


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """Enhanced codes, in which ``*`` stands for any digits."""
    return re.compile("|".join(re.escape(pattern).replace(r"\*", r"\d+") for pattern in patterns))
