"""Every mail that may be made, drawn by hypothesis; raw letters have tests of their own."""

from html import unescape
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from hypothesis import strategies as st

from postroom.producer import Mail

FORWARDED: Final = (
    b"From: a@b.example\r\nSubject: inner\r\n\r\nfirst line\r\n.\r\nFrom here\r\n",
    b'Subject: =?utf-8?b?0JY=?=\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n',
)

_whole = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_in_a_line = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")
_family = "👩‍👩‍👧‍👦"


def _are_told_apart(files: list[dict[str, Any]]) -> bool:
    """Not so where an id, read as percent-encoded, begins with another: which one the HTML shows is then a guess."""
    ids = [file["inline_id"] for file in files if "inline_id" in file]
    decoded = {unquote(unescape(each)) for each in ids} - set(ids)
    return not any(text.startswith(each) for text in decoded for each in ids)


class Written(NamedTuple):
    """A mail, and the ids of the files that its HTML shows."""

    mail: Mail
    shown: frozenset[str]


def _repeated(strategy: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.builds(lambda text, times: (text * times)[:most], strategy, st.integers(2, 60))


_line = st.one_of(
    st.text(_in_a_line, max_size=60),
    st.text("абв Ж,;:<>@\"\\()[].'=?_%* \tq🙂é\u202eא\u0301\u200d", max_size=80),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
    st.sampled_from(
        ["=?utf-8?q?x?=", " =?utf-8?b?0JY=?= ", "  ", "\t", "a\tb", _family, "w" * 1200, "'", "%41", "a''b"]
    ),
)
lines: Final = _line | _repeated(_line, 2000)
texts: Final = st.one_of(
    st.text(_whole, max_size=200),
    st.text("ab .=\t\r\nЖ🙂", max_size=300),
    _repeated(st.text("ab .=\t\nЖ🙂é", max_size=80), 3000),
    st.sampled_from(
        ["", ".", ".\r\n..\r\n.", "From x\nFrom y\n", "-- \n", " \n\t\n", "x" * 999, "Ж" * 500, "a\rb\n\rc"]
    ),
)
filenames: Final = (_line | _repeated(_line, 300)).filter(lambda text: text.strip() and len(text) <= 1000)
domains: Final = st.sampled_from(["client.example", "Mail.Example", "пример.рф", "bücher.example", "localhost"])
_atoms = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[a-z0-9]{1,20}){0,2}", fullmatch=True)
ascii_locals: Final = _atoms.filter(lambda local: "=?" not in local) | st.sampled_from(['"a b"', '"a@b"', '"a,b;c"'])
all_locals: Final = ascii_locals | st.text("абвжé漢字", min_size=1, max_size=9)
inline_ids: Final = st.from_regex(r"[!-;=?-~]{1,40}", fullmatch=True).filter(lambda text: "=?" not in text)
media_types: Final = st.sampled_from(
    [
        *("image/png", "APPLICATION/PDF", "text/plain; charset=koi8-r", "a/b; c=d", "multipart/mixed; boundary=x"),
        'text/calendar; method="REQUEST"; name=x',
    ]
)

_urls = st.builds(
    "<{}:{}>".format,
    st.sampled_from(["https", "mailto"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="<>%"), max_size=60)
    | st.just("//shop.example/u?a=?utf-8?q?" + "k" * 700),
)
_structured = st.dictionaries(
    st.sampled_from(["List-Unsubscribe", "List-Help", "References"]), st.lists(_urls, max_size=3).map(", ".join)
)
_headers = st.builds(
    lambda free, structured, fixed: {**free, **structured, **fixed},
    st.dictionaries(
        st.from_regex(r"X-[A-Za-z0-9]{1,30}", fullmatch=True) | st.sampled_from(["Organization", "Comments"]),
        lines,
        max_size=3,
    ).filter(lambda given: len({name.lower() for name in given}) == len(given)),
    _structured,
    st.just({}) | st.just({"Auto-Submitted": "auto-generated", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}),
)


@st.composite
def mails(draw: st.DrawFn, locals_: st.SearchStrategy[str] = all_locals) -> Written:
    """A mail that came rendered: text, HTML or both, and all that may stand beside."""
    person = st.fixed_dictionaries(
        {"address": st.builds("{}@{}".format, locals_, domains), "name": lines.filter(lambda name: len(name) <= 300)}
    )
    people = st.lists(person, max_size=3)
    files = draw(
        st.lists(
            st.fixed_dictionaries(
                {"filename": filenames, "content_type": media_types, "content": st.binary(max_size=200)},
                optional={"inline_id": inline_ids},
            )
            | st.builds(
                lambda content: {"filename": "fwd.eml", "content_type": "message/rfc822", "content": content},
                st.sampled_from(FORWARDED),
            ),
            max_size=4,
            unique_by=lambda file: file.get("inline_id") or id(file),
        ).filter(_are_told_apart)
    )
    fields: dict[str, Any] = {"subject": draw(lines), "text": draw(texts | st.none()), "attachments": files}
    shown: frozenset[str] = frozenset()
    if fields["text"] is None or draw(st.booleans()):
        ids = [file["inline_id"] for file in files if "inline_id" in file]
        shown = frozenset(draw(st.lists(st.sampled_from(ids)))) if ids else frozenset()
        pictures = "".join(f"<img src='cid:{each.replace('&', '&amp;')}'>" for each in sorted(shown))
        fields["html"] = draw(texts.filter(lambda text: "cid:" not in text.lower())) + pictures
    fields["to"] = draw(people)
    fields["cc"] = draw(people)
    fields["bcc"] = draw(people if fields["to"] or fields["cc"] else st.lists(person, min_size=1, max_size=3))
    fields["reply_to"] = draw(people)
    fields["headers"] = draw(_headers)
    return Written(Mail(from_=draw(person), **fields), shown)
