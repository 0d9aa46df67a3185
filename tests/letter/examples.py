"""The kept examples: each a job as a producer hands it over, and what is to be found in its letter."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from letter.reading import Reading, as_structured
from postroom.producer import Mail
from postroom.producer.header import is_structured
from postroom.worker.letter.content import Letter
from postroom.worker.letter.from_mail import letter_of

FOLDER: Final = Path(__file__).parent / "examples"
NAMES: Final = sorted(path.stem for path in FOLDER.glob("*.json"))


def mail_of(name: str) -> Mail:
    return Mail.from_job(json.dumps(_kept(name)["job"]).encode())


def letter_of_example(name: str) -> Letter:
    mail = mail_of(name)
    assert mail.from_ is not None
    return letter_of(mail, mail.from_, date=datetime(2026, 11, 24, 9, 30, tzinfo=UTC))


def kept(name: str) -> dict[str, Any]:
    """What is to be read."""
    reads: dict[str, Any] = _kept(name)["reads"]
    fields = reads["headers"].items()
    reads["headers"] = {field: as_structured(value) if is_structured(field) else value for field, value in fields}
    if reads["shape"] in {"plain", "html"}:  # a letter ends in CRLF, see `Reading`
        reads |= {field: reads[field] and reads[field].removesuffix("\n") for field in ("text", "html")}
    return reads


def as_kept(reading: Reading) -> dict[str, Any]:
    """A reading in the words of the kept ones."""
    found = {name.rstrip("_"): value for name, value in reading._asdict().items()}
    for field in ("from", "to", "cc", "reply_to"):
        found[field] = [list(person) for person in found[field]]
    found["files"] = [
        {
            "filename": file.filename,
            "content_type": file.content_type,
            "inline_id": file.inline_id,
            "is_shown": file.is_shown,
            "sha256": hashlib.sha256(file.content).hexdigest(),
        }
        for file in reading.files
    ]
    return found


def _kept(name: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return kept
