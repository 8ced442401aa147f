"""Reading a message: which part is the text, which the HTML, which an attachment; and structure that is broken."""

from __future__ import annotations

import pytest

from qmail_core.codec.mime import Parsed, decode_part, scan, thread_keys
from qmail_core.codec.mime import header as fields
from qmail_core.codec.mime import tree as limits
from qmail_core.codec.mime.thread import normal_subject


def part(kind: str, body: str, more: str = "") -> str:
    return f"Content-Type: {kind}\n{more}\n{body}\n"


def multi(subtype: str, *parts: str, boundary: str = "b") -> str:
    inner = "".join([f"--{boundary}\n{one}" for one in parts])
    return f'Content-Type: multipart/{subtype}; boundary="{boundary}"\n\n{inner}--{boundary}--\n'


def read(text: str) -> Parsed:
    """The message with CR LF, and the same answers with LF and with CR alone."""
    found = scan(text.replace("\n", "\r\n").encode())
    for end in ("\n", "\r"):
        other = scan(text.replace("\n", end).encode())
        assert (other.text, other.html, other.subject) == (found.text, found.html, found.subject)
        assert [one.filename for one in other.attachments] == [one.filename for one in found.attachments]
    return found


TEXT = part("text/plain", "hello")
PAGE = part("text/html", "<p>hello</p>")
IMAGE = part("image/png; name=a.png", "QUJD", "Content-Transfer-Encoding: base64\nContent-ID: <a@b>\n")
NOTES = part("text/plain; name=notes.txt", "notes")


def test_a_plain_message() -> None:
    found = read(
        "From: A <a@example.org>\nSubject: Re:  a\n subject\nMessage-ID: <1@x>\nReferences: <2@x>\n\t<3@x>\n"
        "List-ID: <l.example.org>\nThread-Index: AdF\n\nhello\n"
    )
    assert (found.text, found.html, found.attachments, found.cuts) == ("hello\n", (), (), ())
    assert (found.subject, found.message_id, found.references) == ("Re: a subject", "<1@x>", ("<2@x>", "<3@x>"))
    assert (found.list_id, found.thread_index, found.date) == ("<l.example.org>", "AdF", None)


def test_of_alternatives_one_is_the_text_and_one_the_html() -> None:
    found = read(multi("alternative", TEXT, PAGE))
    assert (found.text, found.html, found.attachments) == ("hello", ("<p>hello</p>",), ())


def test_inline_images_are_related_attachments() -> None:
    related = multi("related", PAGE, IMAGE, boundary="r")
    found = read(multi("mixed", multi("alternative", TEXT, related, boundary="a"), IMAGE))
    assert (found.text, found.html) == ("hello", ("<p>hello</p>",))
    first, second = found.attachments
    assert found.cids == {"a@b": "ATT00002"}
    assert (first.id, first.related, first.cid, first.disposition) == ("ATT00001", True, "a@b", "inline")
    assert (second.id, second.related, second.disposition) == ("ATT00002", False, "attachment")


def test_texts_with_names_are_attachments_unless_they_come_first() -> None:
    found = read(multi("mixed", NOTES, NOTES, part("text/plain", "end")))
    assert found.text == "notes\n\nend\n"
    assert [one.filename for one in found.attachments] == ["notes.txt"]


def test_a_footer_joins_both_the_text_and_the_html() -> None:
    found = read(multi("mixed", PAGE, part("text/plain", "a footer")))
    assert found.text == "hello\n\na footer\n"
    assert found.html == ("<p>hello</p>", "<p>a footer</p>")


def test_an_alternative_with_one_language_only_serves_both() -> None:
    found = read(multi("mixed", multi("alternative", PAGE, boundary="a"), part("text/plain", "a footer")))
    assert found.text == "hello\n\na footer\n"
    found = read(multi("mixed", PAGE, multi("alternative", TEXT, boundary="a")))
    assert found.html == ("<p>hello</p>", "<p>hello</p>")
    inner = multi("mixed", PAGE, part("text/html", "<p>more</p>"), boundary="i")
    found = read(multi("alternative", TEXT, inner))
    assert (found.text, found.html) == ("hello", ("<p>hello</p>", "<p>more</p>"))


def test_html_alone_makes_no_text() -> None:
    found = read(PAGE)
    assert (found.text, found.html) == ("", ("<p>hello</p>\n",))


def test_an_attached_message_is_one_attachment_whatever_it_contains() -> None:
    found = read(multi("mixed", TEXT, "Content-Type: message/rfc822\n\n" + multi("mixed", IMAGE, boundary="i") + "\n"))
    assert [one.content_type for one in found.attachments] == ["message/rfc822"]
    digest = read(multi("digest", "\nSubject: one\n\nbody\n"))
    assert [one.content_type for one in digest.attachments] == ["message/rfc822"]


def test_a_message_that_is_a_file() -> None:
    raw = b"Content-Type: application/pdf\nContent-Disposition: ATTACHMENT; filename=C:\\a\\b.pdf\n\n%PDF"
    (file,) = scan(raw).attachments
    assert (file.filename, file.disposition, raw[file.offset :]) == ("b.pdf", "attachment", b"%PDF")


@pytest.mark.parametrize(
    "name",
    [
        "filename*0*=utf-8''%c3%bc; filename*1=\"ber\"; filename*2*=%20.txt",
        "filename*2*=%20.txt; filename*0*=utf-8''%c3; filename*1*=%bcber",
        "filename=uber.txt; filename*=UTF-8''%c3%bcber%20.txt",
        'filename="=?utf-8?q?=C3=BCber?= =?utf-8?q?_.txt?="',
        'filename="über .txt"',
        "filename=über .txt",
        "filename = =?iso-8859-1?q?=FCber?= .txt ;",
    ],
)
def test_file_names_however_they_are_written(name: str) -> None:
    (file,) = scan(f"Content-Type: a/b\nContent-Disposition: attachment; {name}\n\n".encode()).attachments
    assert file.filename == "über .txt"


def test_file_names_cannot_mislead() -> None:
    (file,) = scan(b"Content-Type: a/b; name*=utf-8''..%2F..%2Fa%0D%0A%07b%E2%80%AEfdp.exe\n\n").attachments
    assert file.filename == "a bfdp.exe"


def test_long_file_names_keep_their_extension() -> None:
    (file,) = scan(b"Content-Type: a/b; name=" + b"a" * 999 + b".pdf\n\n").attachments
    assert (len(file.filename), file.filename[-5:]) == (255, "a.pdf")
    (file,) = scan(b"Content-Type: a/b; name=" + b"a" * 999 + b"\n\n").attachments
    assert len(file.filename) == 255


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: multipart/mixed\n\n--b\n\nhello\n--b--\n",
        b"Content-Type: multipart/mixed; boundary=wrong\n\npreamble\n--b\n\nhello\n--b--\n",
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhello",
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b",
        b"Content-Type: multipart/mixed; boundary=b\n\n--bc\nx--b\n--b \t\n\nhello\n--b-- \nepilogue\n--b\n\nno",
        b"Content-Type: multipart/mixed; boundary=b\nContent-Type: text/html\n\n--b\n\nhello\n--b--",
        b"Content-Type: multipart/mixed; boundary=o\n\n"
        b"--o\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nhello\n--o--",
    ],
)
def test_multiparts_with_wrong_delimiters(raw: bytes) -> None:
    assert scan(raw).text == "hello"


def test_a_multipart_without_any_delimiter_is_text() -> None:
    assert scan(b"Content-Type: multipart/mixed; boundary=b\n\nhello").text == "hello"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"\n", ""),
        (b"\nhello", "hello"),
        (b"hello", "hello"),
        (b"Subject: x\nhello\nworld", "hello\nworld"),
        (b"From a@b Mon Jan  1\nSubject: x\n\nhello", "hello"),
        (b"Subject: x\nlost its blank\nTo: a@b\n\nhello", "hello"),
        (b" continued\nSubject: x\n\nhello", "hello"),
        (b"Subject: x\n\nnul\0l", "null"),
        (b"Content-Type: text\n\nhello", "hello"),
        (b"Content-Type: text/plain; charset=unknown-8bit\n\n\xe4", "ä"),
        (b"Content-Transfer-Encoding: odd\n\nhello", "hello"),
        (b'Content-Transfer-Encoding: "BASE64";\n\naGVsbG8', "hello"),
        (
            b"Content-Type: text/plain; charset=utf-16; format=flowed\nContent-Transfer-Encoding: base64\n\n/v8AaA==",
            "h",
        ),
    ],
)
def test_bodies_of_broken_messages(raw: bytes, text: str) -> None:
    assert scan(raw).text == text


def test_a_charset_named_only_in_the_html() -> None:
    assert scan(b"Content-Type: text/html\n\n<meta charset=koi8-r>\xd2").html == ("<meta charset=koi8-r>р",)


def test_views_are_read_like_bytes() -> None:
    raw = b"Subject: x\n\nhello"
    assert scan(memoryview(raw)) == scan(raw)


def test_limits_on_depth_parts_fields_and_text() -> None:
    deep = "".join([f"Content-Type: multipart/mixed; boundary={n}\n\n--{n}\n" for n in range(limits.MAX_DEPTH + 9)])
    assert scan(deep.encode()).limited
    many = scan(b"Content-Type: multipart/mixed; boundary=b\n" + b"\n--b\nContent-Type: a/b\n" * (limits.MAX_PARTS + 9))
    assert many.limited
    assert len(many.attachments) < limits.MAX_PARTS
    headers = scan(b"a: b\n" * (fields.MAX_FIELDS + 9) + b"\nhello")
    assert (len(headers.headers), headers.text) == (fields.MAX_FIELDS, "hello")
    long = scan(b"Subject: " + b"a" * 2 * fields.MAX_BLOCK + b"\n\nhello")
    assert (len(long.subject), long.text) == (fields.MAX_VALUE, "hello")
    text = scan(b"\n" + b"a" * (1 << 21))
    assert (len(text.text), text.limited) == (1 << 20, True)


def test_work_on_delimiters_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORK", 0)
    found = scan(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhello" + b"\n--bx" * 5000)
    assert found.limited
    assert found.text.startswith("hello")


def test_sizes_of_parts() -> None:
    raw = b"Content-Type: a/b\nContent-Transfer-Encoding: base64\n\n" + b"QUJD" * 342 + b"\r\nQQ==\r\n"
    (file,) = scan(raw).attachments
    assert len(decode_part(raw[file.offset :], "base64")) == 1027
    assert file.size_kb == 2


@pytest.mark.parametrize(
    ("subject", "normal"),
    [
        ("Re: Subject line", "Subject line"),
        ("RE: AW:  Fwd: Re[2]: a  b (fwd) (FWD)", "a b"),
        ("re:a", "a"),
        ("Regarding: a", "Regarding: a"),
        ("回复：a", "a"),
        ("", ""),
        ("Re:", ""),
    ],
)
def test_subjects_without_their_prefixes(subject: str, normal: str) -> None:
    assert normal_subject(subject) == normal


def test_replies_share_a_key_with_what_they_reply_to() -> None:
    first = scan(b"Subject: a topic\nMessage-ID: <1@x>\nThread-Index: AdFabcdefghijklmnopqrs\n\n")
    reply = scan(b"Subject: AW: A  Topic\nMessage-ID: <2@x>\nIn-Reply-To: 1@x\nReferences: <0@x> <1@x>\n\n")
    index = scan(b"Subject: Re: A Topic\nThread-Index: AdFabcdefghijklmnopqrsMORE\n\n")
    other = scan(b"Subject: another topic\nMessage-ID: <3@x>\nReferences: <1@x>\n\n")
    keys = thread_keys(first, b"user")
    assert set(keys) & set(thread_keys(reply, b"user"))
    assert set(keys) & set(thread_keys(index, b"user"))
    assert not set(keys) & set(thread_keys(other, b"user"))
    assert not set(keys) & set(thread_keys(first, b"another"))
    assert len(thread_keys(reply)) == 3
    assert thread_keys(scan(b"Subject: x\n\n")) == ()
