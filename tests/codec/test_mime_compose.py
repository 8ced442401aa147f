"""Writing messages: what is read back, what the standard library reads, and what is refused."""

from __future__ import annotations

import email
import re
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec.mime import Attachment, Compose, Person, compose, decode_part, scan
from qmail_core.codec.mime.scan import file_name
from qmail_core.errors import AddressError, UsageError

SEED = bytes(range(16))
PEOPLE = (Person("Grün, Ä", "a@münchen.de"), Person("", "b@example.org"), Person('Q "q" \\', '"q q"@example.org'))
# without the controls, blanks and quotes that headers fold or drop
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]) | st.just(" "), max_size=300)
NAMES = TEXT.map(lambda text: " ".join(text.split())).filter(lambda text: text[:1] != "'")
BODIES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), max_size=300)
FILES = st.tuples(NAMES, st.binary(max_size=300), st.sampled_from(["a/b", "text/plain", "message/rfc822"]))


def draft(**fields: Any) -> Compose:
    known: dict[str, Any] = {"seed": SEED, "date": 880127706, "message_id": "<1@example.org>"}
    return Compose(**known | fields)


def written(**fields: Any) -> bytes:
    """The bytes, after checking what holds for all of them."""
    raw = compose(draft(**fields))
    assert raw.isascii()
    assert raw == compose(draft(**fields))
    assert raw.endswith(b"\r\n")
    lines = raw.split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line or b"\0" in line or len(line) > 998 for line in lines)
    head, _, _ = raw.partition(b"\r\n\r\n")
    assert all(len(line) <= 76 for line in head.split(b"\r\n") if b"=?" in line)
    return raw


def test_a_whole_message_comes_back() -> None:
    files = (
        Attachment("ü.pdf", b"%PDF" * 3000, "application/pdf"),
        Attachment("i.png", b"png", "image/png", cid="i@x"),
    )
    fields = {
        "subject": "Grüße " * 20,
        "text": "a ä\n.\nFrom x  \n",
        "html": "<img src='cid:i@x'>",
        "attachments": files,
    }
    raw = written(
        from_=PEOPLE, to=PEOPLE, cc=PEOPLE[:1], bcc=(Person("", "secret@example.org"),), reply_to=PEOPLE[1:2],
        sender=PEOPLE[1:2], in_reply_to=("<0@x>",), references=tuple([f"<{n}@example.org>" for n in range(40)]),
        headers=(("X-Mailer", "ä"),), **fields,
    )  # fmt: skip
    found = scan(raw)
    assert b"secret" not in raw
    assert (found.from_, found.to, found.cc) == (PEOPLE, PEOPLE, PEOPLE[:1])
    assert (found.sender, found.reply_to) == (PEOPLE[1:2], PEOPLE[1:2])
    assert (found.subject, found.text, found.html) == (("Grüße " * 20).strip(), fields["text"], (fields["html"],))
    assert (found.message_id, found.in_reply_to, len(found.references)) == ("<1@example.org>", ("<0@x>",), 40)
    assert (found.date, dict(found.headers)["x-mailer"]) == (880127706, "ä")
    image, file = found.attachments
    assert (image.cid, image.related, file.filename) == ("i@x", True, "ü.pdf")
    assert decode_part(raw[file.offset : file.offset + file.length], file.transfer_encoding) == files[0].data
    assert found.cuts == (file.offset, file.offset + file.length)


@given(subject=TEXT, name=NAMES, text=BODIES, html=BODIES, files=st.lists(FILES, max_size=3))
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read(
    subject: str, name: str, text: str, html: str, files: list[tuple[str, bytes, str]]
) -> None:
    attachments = tuple([Attachment(*one) for one in files])
    raw = written(
        subject=subject, from_=(Person(name, "a@example.org"),), text=text, html=html, attachments=attachments
    )
    found = scan(raw)
    assert found.subject == " ".join(subject.split())
    assert found.from_[0].address == "a@example.org"
    assert found.from_[0].name == name
    assert found.text.rstrip("\n") == text.rstrip("\n")
    assert "".join(found.html).rstrip("\n") == html.rstrip("\n")
    for part, file in zip(found.attachments, attachments, strict=True):
        assert decode_part(raw[part.offset : part.offset + part.length], part.transfer_encoding) == file.data
        assert part.filename == file_name(file.name)


@given(subject=NAMES, name=st.text('aä ,"\\', max_size=50), text=BODIES)
@settings(deadline=None)
def test_the_standard_library_reads_the_same(subject: str, name: str, text: str) -> None:
    raw = written(subject=subject, to=(Person(name, "a@example.org"),), text=text)
    mail = email.message_from_bytes(raw, policy=default)
    assert isinstance(mail, EmailMessage)
    assert "".join(mail["subject"].split()) == "".join(subject.split())
    assert mail["to"].addresses[0].addr_spec == "a@example.org"
    assert mail.get_content().replace("\r\n", "\n").rstrip("\n") == text.rstrip("\n")
    assert not mail.defects


def test_only_the_levels_that_are_needed() -> None:
    def kinds(**fields: Any) -> list[str]:
        return re.findall(r"Content-Type: ([a-z]+/[a-z0-9]+)", written(**fields).decode())

    file = (Attachment("a", b"a", cid="c"),)
    assert kinds() == ["text/plain"]
    assert kinds(html="x") == ["text/html"]
    assert kinds(text="x", html="x") == ["multipart/alternative", "text/plain", "text/html"]
    assert kinds(html="x", attachments=file)[:2] == ["multipart/related", "text/html"]
    assert kinds(text="x", attachments=file)[:2] == ["multipart/mixed", "text/plain"]


def test_an_attached_message_stays_readable_and_its_boundaries_its_own() -> None:
    inner = written(text="x", html="y")
    raw = written(text="x", html="y", attachments=(Attachment("m.eml", inner, "message/rfc822"),))
    (part,) = scan(raw).attachments
    assert (part.content_type, part.transfer_encoding) == ("message/rfc822", "7bit")
    assert raw[part.offset : part.offset + part.length] == inner
    raw = written(attachments=(Attachment("m.eml", b"\xff", "message/rfc822"),))
    assert scan(raw).attachments[0].content_type == "message/global"


def test_texts_take_the_shorter_encoding() -> None:
    assert b"=?utf-8?q?a_few_=C3=A4_only?=" in written(subject="a few ä only")
    assert b"=?utf-8?b?" in written(subject="日本語")
    assert b"Encoding: 7bit" in written(text="plain")
    assert b"Encoding: quoted-printable" in written(text="a few ä only")
    assert b"Encoding: quoted-printable" in written(text="a" * 999)
    assert b"Encoding: base64" in written(text="日本語")


def test_hidden_recipients_leave_a_trace_of_nobody() -> None:
    raw = written(bcc=PEOPLE)
    assert b"To: undisclosed-recipients:;" in raw
    assert scan(raw).to == ()


def test_nothing_given_can_start_a_line() -> None:
    evil = "x\r\nBcc: a@example.org\n\nbody"
    raw = written(
        subject=evil,
        from_=(Person(evil, "a@example.org"),),
        headers=(("X-A", evil),),
        attachments=(Attachment(evil, b""),),
    )
    assert scan(raw).bcc == ()
    assert b"\r\nBcc" not in raw
    assert not scan(raw).text.strip()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@b",
        "a@",
        "a@b c",
        "a@b\r\nX: y",
        "ä@b.org",
        "a\n@b.org",
        "a@b..c",
        "a@" + "b" * 64 + ".org",
        "a@ö\n.org",
    ],
)
def test_addresses_that_cannot_be_written(address: str) -> None:
    with pytest.raises(AddressError):
        compose(draft(to=(Person("", address),)))


@pytest.mark.parametrize(
    "fields",
    [
        {"message_id": "1@x"},
        {"message_id": "<1@x>\r\nX: y"},
        {"references": ("<a b>",)},
        {"date": -1},
        {"date": 1 << 50},
        {"headers": (("Bcc", "x"),)},
        {"headers": (("Content-Type", "x"),)},
        {"headers": (("X: y", "x"),)},
        {"attachments": (Attachment("a", b"", "nonsense"),)},
        {"attachments": (Attachment("a", b"", "multipart/mixed"),)},
        {"attachments": (Attachment("a", b"", "a/b\r\nX: y"),)},
        {"attachments": (Attachment("a", b"", cid="a b"),)},
        {"attachments": (Attachment("a", b"", f"a/{'x' * 128}"),)},
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        compose(draft(**fields))
