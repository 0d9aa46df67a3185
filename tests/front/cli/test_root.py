"""Each word of the command line finds its subject, whether that is imported alone or with all others."""

from typer.core import TyperGroup
from typer.main import get_command

from postroom.front.cli.root import _SUBJECTS, make


def _words(*words: str) -> set[str]:
    group = get_command(make(words))
    assert isinstance(group, TyperGroup)
    return set(group.commands)


def test_each_word_finds_its_subject() -> None:
    for answers in _SUBJECTS.values():
        for word in answers:
            assert _words(word) == set(answers)
    assert _words() == _words("--help") == _words("wurker") == {word for each in _SUBJECTS.values() for word in each}
