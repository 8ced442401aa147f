"""A mail and its two objects: what is composed is read again, and what is stamped changes only where it must."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import cbdf, message
from qmail_core.codec.cbdf import MailMeta
from qmail_core.codec.cbdf_text import IMAGE, PARA_BREAK, Control, build_text
from qmail_core.errors import QMailError, RemoteProtocolError
from qmail_core.model import Address

GUID = bytes(range(16))
META = MailMeta(
    guid=GUID,
    subject="Übersicht ✉",
    sender=Address(1, 42),
    to=(Address(1, 43), Address(0, 0xFFFFFFFF)),
    cc=(Address(4, 1),),
    timestamp=1_800_000_000,
    attachment_names=("a.bin", "naïve 文.pdf"),
)
texts = st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")), max_size=300)


def test_a_composed_mail_is_read_as_it_was() -> None:
    meta, body = message.compose(META, "Zeile 1\nZeile 2 😀")
    assert message.parse(meta, body) == message.Mail(META, "Zeile 1\nZeile 2 😀")


@given(texts, texts.filter(lambda text: len(text.encode()) <= 255))
def test_any_printable_text_survives(text: str, subject: str) -> None:
    fields = MailMeta(guid=GUID, subject=subject, sender=Address(0, 1))
    mail = message.parse(*message.compose(fields, text))
    assert (mail.text, mail.meta.subject) == (text, subject)


def test_every_truncation_is_a_protocol_error_or_a_mail() -> None:
    meta, body = message.compose(META, "text")
    for size in range(len(meta)):
        with pytest.raises(QMailError):
            message.parse(meta[:size], body)
    for size in range(len(body)):
        with suppress(QMailError):
            message.parse(meta, body[:size])


def test_a_stamped_document_gets_the_guid_of_its_upload() -> None:
    old = MailMeta(guid=bytes(16), subject="s", sender=Address(1, 42), timestamp=7)
    document = cbdf.join_document(*message.compose(old, "text"))
    mail = message.parse(*message.stamp(document, GUID, []))
    assert mail.meta.guid == GUID
    assert (mail.meta.subject, mail.meta.timestamp, mail.text) == ("s", 7, "text")


def test_stamping_drops_what_is_local_and_keeps_what_is_foreign() -> None:
    pairs = [(1, bytes(16)), (2, b"s"), (19, bytes.fromhex("0006012a000000")), (200, b"note"), (77, b"kept")]
    document = cbdf.join_document(cbdf.build_meta(pairs), cbdf.build_body("text"))
    stamped = cbdf.parse_meta(message.stamp(document, GUID, [])[0])[0]
    assert stamped.first(200) is None
    assert stamped.first(77) == b"kept"
    assert stamped.all(1) == (GUID,)


def test_attachments_are_named_unless_the_document_names_them() -> None:
    document = cbdf.join_document(*message.compose(MailMeta(guid=GUID, subject="", sender=Address(1, 42)), "t"))
    named = message.parse(*message.stamp(document, GUID, ["x.txt", "y" * 400 + ".txt"])).meta.attachment_names
    assert named[0] == "x.txt"
    assert len(named[1].encode()) <= 255
    assert named[1].endswith(".txt")
    own = cbdf.join_document(*message.compose(META, "t"))
    assert message.parse(*message.stamp(own, GUID, ["other"])).meta.attachment_names == META.attachment_names


@pytest.mark.parametrize("document", [b"", b"\0", b"hello", b"\x01\x00\x01\x10"])
def test_what_is_no_document_is_refused(document: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        message.stamp(document, GUID, [])


def test_blind_copies_never_enter_a_mail() -> None:
    assert "bcc" not in MailMeta.__struct_fields__


def test_a_styled_and_compressed_document_is_stamped_and_read() -> None:
    pairs = cbdf.Meta(((19, bytes.fromhex("0006012a000000")), (2, b"s"), (200, b"note")))
    section = build_text(["a long text " * 40, Control(IMAGE, b"\0"), Control(PARA_BREAK), "end"])
    document = cbdf.encode_document(cbdf.Document(meta=pairs, text=section), compress=True, digest=True)
    meta, body = message.stamp(document, GUID, [])
    assert message.parse(meta, body).text == "a long text " * 40 + "\n\nend"
    assert cbdf.decode_document(meta + body).text == section


def test_a_mail_without_a_body_that_can_be_read_is_its_preview() -> None:
    pairs = [(19, bytes.fromhex("0006012a000000")), (36, b"on my way")]
    assert message.parse(cbdf.build_meta([*pairs, (33, b"\1")]), b"").text == "on my way"
    for later in ((30, b"\2"), (31, b"\3")):
        assert message.parse(cbdf.build_meta([*pairs, later]), b"\x1cunknown").text == "on my way"
    with pytest.raises(RemoteProtocolError):
        message.parse(cbdf.build_meta(pairs), b"\x1cunknown")
