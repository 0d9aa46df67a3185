"""Every error of Postroom's own, as one tree. Each says what is wrong and what to do about it.

PostroomError
├── InvalidMail         (ValueError)       a field of a mail is wrong; `.field`, `.why`
├── NewerJob            (ValueError)       a job of a version that this release does not know
├── MailTooLarge        (ValueError)       the job is over the limit
├── BrokerUnavailable   (ConnectionError)  Redis did not take the job in time
├── KeyUnusable         (ValueError)       a key file or key is missing, malformed, or readable by others
├── CannotOpen          (ValueError)       a sealed box does not open with this ring and this identity
│   └── NewerBox                           it is of a version that this release does not know
├── SettingsInvalid     (ValueError)       a setting is wrong; the message names it
├── MissingExtra        (ImportError)      a part is not installed; the message says which extra brings it
└── Refused             (RuntimeError)     a request was refused and nothing was changed
"""


class PostroomError(Exception):
    """Base of all errors that Postroom raises on purpose."""


class InvalidMail(PostroomError, ValueError):
    """A mail cannot be taken as it is.

    Attributes:
        field: the first field that is wrong, such as ``to[1]`` or ``attachments[0].filename``.
        why: what is wrong with it.
        problems: all of them, as (field, why).
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        self.field, self.why = problems[0]
        super().__init__("; ".join(f"{field}: {why}" for field, why in problems))


class NewerJob(PostroomError, ValueError):
    """A job was made by a newer release; it waits for a worker that knows its version."""


class MailTooLarge(PostroomError, ValueError):
    """The job is larger than the limit; nothing was handed over."""


class BrokerUnavailable(PostroomError, ConnectionError):
    """Redis did not take the job within the bounded wait.

    When the connection broke or the wait ended in the middle, it may have been taken all the same. A `Mail` keeps its
    id: handing the same object over again is harmless.
    """


class KeyUnusable(PostroomError, ValueError):
    """A key or its file is missing, malformed, or open to other users."""


class CannotOpen(PostroomError, ValueError):
    """A sealed box does not open: another key, another row or server, or changed on the way."""


class NewerBox(CannotOpen):
    """A sealed box was made by a newer release; a job waits for a worker that knows its version."""


class SettingsInvalid(PostroomError, ValueError):
    """A setting has a value that cannot be used; the message names the setting."""


class MissingExtra(PostroomError, ImportError):
    """A part of Postroom is not installed here."""


class Refused(PostroomError, RuntimeError):
    """A request was refused, for the reason it names; nothing was changed."""
