"""Whole messages against the standard library, which wrote them or ships them; and the same messages broken."""

from __future__ import annotations

import email
import importlib.util
import random
from email.message import EmailMessage
from email.policy import default
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec.mime import decode_part, html_to_text, scan
from tests.codec import mime_corpus
from tests.fuzz import fuzz_mime

SPEC = importlib.util.find_spec("test.test_email")
DATA = Path(SPEC.origin or "").parent / "data" if SPEC else Path("none")
LIBRARY = sorted(DATA.glob("msg_*.txt"))


def oracle(raw: bytes) -> EmailMessage:
    found = email.message_from_bytes(raw, policy=default)
    assert isinstance(found, EmailMessage)
    return found


def folded(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_messages_read_as_the_standard_library_wrote_them(seed: int) -> None:
    for mail, raw in mime_corpus.mails(100, seed):
        parsed = scan(raw)
        assert parsed.subject == folded(oracle(raw)["subject"])  # the writer loses blanks and encodes commas
        assert [person.address for person in parsed.to] == [one.addr_spec for one in mail["to"].addresses]
        assert ["".join(person.name.split()) for person in parsed.to] == [
            "".join(one.display_name.split()) for one in mail["to"].addresses
        ]
        assert parsed.date == int(mail["date"].datetime.timestamp())
        plain, page = mail.get_body(("plain",)), mail.get_body(("html",))
        assert plain is not None
        assert parsed.text.rstrip() == plain.get_content().replace("\r\n", "\n").rstrip()
        assert [html.strip() for html in parsed.html] == (
            [page.get_content().replace("\r\n", "\n").strip()] if page else []
        )
        fuzz_mime.check(raw, parsed)


@pytest.mark.parametrize("seed", range(5))
def test_offsets_point_at_what_the_standard_library_decodes(seed: int) -> None:
    for raw in mime_corpus.messages(100, seed + 100):
        leaves = []
        todo = [oracle(raw)]
        while todo:
            part = todo.pop()
            if part.is_multipart() and part.get_content_maintype() == "multipart":
                todo += reversed(list(part.iter_parts()))  # type: ignore[arg-type]
            elif part.get_filename() or part.get_content_type() in ("message/rfc822", "image/png"):
                leaves.append(part)
        parsed = scan(raw)
        assert len(parsed.attachments) == len(leaves)
        for ours, theirs in zip(parsed.attachments, leaves, strict=True):
            assert ours.content_type == theirs.get_content_type()
            if ours.content_type == "message/rfc822":
                continue
            assert ours.filename == folded(theirs.get_filename() or "")
            body = decode_part(raw[ours.offset : ours.offset + ours.length], ours.transfer_encoding)
            assert body == theirs.get_payload(decode=True)
            assert ours.size_kb == -(-len(body) // 1024)


def test_equal_attachments_of_different_messages_are_equal_pieces() -> None:
    file = random.Random(1).randbytes(20000)
    pieces = []
    for seed in range(2):
        mail = mime_corpus.message(random.Random(seed))
        mail.add_attachment(file, "application", "pdf", filename=f"{seed}.pdf")
        raw = mail.as_bytes()
        edges = [0, *scan(raw).cuts, len(raw)]
        pieces.append({raw[a:b] for a, b in pairwise(edges)})
    shared = pieces[0] & pieces[1]
    assert file in {decode_part(piece, "base64") for piece in shared}


@pytest.mark.skipif(not LIBRARY, reason="this interpreter comes without its test data")
def test_the_standard_librarys_own_messages_are_read() -> None:
    for path in LIBRARY:
        raw = path.read_bytes()
        parsed = scan(raw)
        fuzz_mime.check(raw, parsed)
        mail = oracle(raw)
        if mail["subject"] is not None:
            assert parsed.subject == folded(mail["subject"]), path.name
        if mail["from"] is not None and mail["from"].addresses:
            assert parsed.from_[0].address == mail["from"].addresses[0].addr_spec.strip("<>"), path.name


@pytest.mark.parametrize("seed", range(5))
def test_broken_messages_are_read(seed: int) -> None:
    draw = random.Random(seed)
    for raw in mime_corpus.messages(40, seed + 200):
        for _ in range(3):
            fuzz_mime.parse(mime_corpus.broken(raw, draw))


def test_every_truncation_of_a_message_is_read() -> None:
    raw = mime_corpus.message(random.Random(6)).as_bytes()[:3000]
    for end in range(0, len(raw), 3):
        fuzz_mime.check(raw[:end], scan(raw[:end]))


PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b" ", b"\t", b";", b'"', b"--b", b"--b--", b"\r\n--b\r\n", b"\r\n\r\n", b"=?utf-8?q?"),
        *(b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: text/html; charset=", b"utf-7", b"+2AA-"),
        *(b"From: ", b"To: ", b"<", b">", b"@", b",", b":", b"(", b")", b"\\", b"Subject: ", b"name*0*=", b"'", b"%"),
        *(b"Content-Transfer-Encoding: ", b"base64\r\n", b"x-uuencode\r\n", b"begin 644 a\n", b"&#", b"=", b"?="),
        *(
            b"Content-Disposition: attachment; ",
            b"Date: ",
            b"<script>",
            b"<!--",
            b"xn--",
            b"9999999999",
            b"\0",
            b"\xff",
        ),
    ]
)


@given(st.binary(max_size=2000) | st.lists(PIECES | st.binary(max_size=4), max_size=60).map(b"".join))
@settings(max_examples=400, deadline=None)
def test_arbitrary_bytes_are_read(data: bytes) -> None:
    fuzz_mime.parse(data)


HOSTILE = [
    *(b"<", b'"', b'<"', b'\\"', b"=?a?q?", b" ", b"(", b"(,", b"@ ", b"a@b,", b"<a", b'"a\\', b";", b'; x="'),
    *(b"x*0*=a;", b"re:", b"<a@b>", b"1 "),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_headers_cost_little(piece: bytes) -> None:
    """Were one of the readers quadratic, this would take minutes and meet the time limit of the suite."""
    value = piece * (60000 // len(piece)) + b"x"
    names = (b"To", b"Subject", b"Content-Type", b"Date", b"References", b"List-Unsubscribe")
    raw = b"".join([name + b": " + value + b"\r\n" for name in names]) + b"\r\nhello"
    assert scan(raw).text == "hello"


@pytest.mark.parametrize("piece", ["<!--", '<a "', "<script>", "<title>", "<", "&#", "</", '<a ">', "\u200b ", "<td>"])
def test_hostile_html_costs_little(piece: str) -> None:
    assert "\0" not in html_to_text(piece * (500_000 // len(piece)))


@pytest.mark.parametrize("piece", [b"\n--b", b"\n--bx", b"\n--", b"\n", b"-", b"a: b\n"])
def test_hostile_bodies_cost_little(piece: bytes) -> None:
    body = piece * (2_000_000 // len(piece))
    for boundary in (b"; boundary=b", b"; boundary=-", b""):
        fuzz_mime.check(body, scan(body))
        raw = b"Content-Type: multipart/mixed" + boundary + b"\n\n--b\n\nhello" + body
        fuzz_mime.check(raw, scan(raw))
