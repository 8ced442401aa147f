"""CBDF documents: every published vector, every truncation of it, and round trips."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import cbdf
from qmail_core.codec import cbdf_sections as sections
from qmail_core.codec import cbdf_text as markup
from qmail_core.codec.cbdf import Document, MailMeta, Meta
from qmail_core.codec.cbdf_sections import Resource
from qmail_core.errors import AddressError, LocalProtocolError, RemoteProtocolError
from qmail_core.model import Address
from tests.published import FOLDER, consumed, names

Json = dict[str, Any]

FILES = names("cbdf")
ALICE, BOB = Address(1, 42), Address(1, 100)
GUID = bytes(range(16))


def load(name: str) -> Json:
    vector: Json = json.loads((FOLDER / "cbdf" / name).read_text())
    return vector


def raw(name: str) -> bytes:
    vector = load(name)
    return bytes.fromhex(vector.get("bytes_hex") or vector["text_body_hex"])


def pair(key: int, value: bytes) -> bytes:
    return bytes((key, len(value))) + value


# ------------------------------------------------------------------------------------------------------------------
# Vectors


def check_meta_only(vector: Json) -> None:
    document = bytes.fromhex(vector["bytes_hex"])
    meta, end = cbdf.parse_meta(document)
    assert end == len(document) == vector["length_bytes"]
    assert len(meta.pairs) == len(vector["annotated"]) - 1
    assert cbdf.build_meta(meta.pairs) == document
    assert meta.first(cbdf.KEY_META_ONLY) == b"\x01"
    assert cbdf.parse_mail_meta(document) == MailMeta(
        guid=bytes(16), subject="On my way", sender=ALICE, to=(BOB,), timestamp=1785312000
    )
    assert cbdf.split_document(document) == (document, b"")
    assert cbdf.join_document(document, b"") == document


def check_phase1_body(vector: Json) -> None:
    body = bytes.fromhex(vector["bytes_hex"])
    assert cbdf.build_body("Hello, world.") == body
    assert cbdf.parse_body(body) == "Hello, world."


def check_phase2_document(vector: Json) -> None:
    document = bytes.fromhex(vector["bytes_hex"])
    meta, body = cbdf.split_document(document)
    assert meta == document[:8]
    assert cbdf.parse_meta(meta)[0] == Meta(((0, b"\x00"), (30, b"\x01")))
    assert cbdf.parse_body(body) == ""
    assert cbdf.join_document(meta, body) == document


def check_colors(vector: Json) -> None:
    for color in vector["colors"]:
        code = int(color["r5g6b5"], 16)
        assert sections.pack_color(tuple(color["rgb8_in"])) == code
        assert code.to_bytes(2, "little") == bytes.fromhex(color["le_bytes"])
        assert sections.unpack_color(code) == tuple(color["rgb8_decoded"])
    assert {int(row["code"], 16): row["alpha"] for row in vector["transparency_codes"]} == sections.TRANSPARENT
    for code in sections.TRANSPARENT:
        assert sections.pack_color(sections.unpack_color(code)) == int(vector["reserved_safe_code"], 16)


def check_resources(vector: Json) -> None:
    section = bytes.fromhex(vector["bytes_hex"])
    assert int.from_bytes(section[:4], "little") == len(section) - 4
    records = (Resource(0, 0, bytes.fromhex("deadbeef")),)
    assert sections.parse_resources(section[4:]) == records
    assert sections.build_resources(records) == section[4:]


def check_plain_text(vector: Json) -> None:
    section = bytes.fromhex(vector["text_body_hex"])
    assert section == bytes.fromhex(vector["text_body_annotated"])
    assert markup.extract_text(section) == vector["expected_plain_strict"]
    assert markup.extract_text(section, degraded=True) == vector["expected_plain_degraded"]
    assert cbdf.parse_body(b"\x1c\x1c" + section) == vector["expected_plain_degraded"]


CHECKS: dict[str, Callable[[Json], None]] = {
    "01-meta-only-sms.json": check_meta_only,
    "02-phase1-body-object.json": check_phase1_body,
    "03-phase2-minimal-document.json": check_phase2_document,
    "04-colors-r5g6b5.json": check_colors,
    "05-resource-record.json": check_resources,
    "06-plaintext-extraction.json": check_plain_text,
}


@pytest.mark.parametrize("name", FILES)
def test_vector(name: str) -> None:
    with consumed("cbdf", name) as vector:
        CHECKS[name](vector)


def test_every_vector_file_has_a_check() -> None:
    assert sorted(CHECKS) == FILES


READERS: tuple[Callable[[bytes], object], ...] = (
    cbdf.parse_meta,
    cbdf.parse_mail_meta,
    cbdf.split_document,
    cbdf.parse_body,
    cbdf.decode_document,
    sections.parse_resources,
    markup.extract_text,
)


@pytest.mark.parametrize("name", [name for name in FILES if "color" not in name])
@pytest.mark.parametrize("read", READERS)
def test_truncated_vector_is_shorter_or_a_protocol_error(name: str, read: Callable[[bytes], object]) -> None:
    whole = raw(name)
    for end in range(len(whole) + 1):
        with suppress(RemoteProtocolError):
            read(whole[:end])


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: b"\x1c\x1c\x02" + tail))
def test_any_bytes_are_read_or_a_protocol_error(data: bytes) -> None:
    for read in READERS:
        with suppress(RemoteProtocolError):
            read(data)


@pytest.mark.parametrize("end", range(46))
def test_no_truncation_of_a_meta_is_a_meta(end: int) -> None:
    with pytest.raises(RemoteProtocolError, match=r"ends inside the .* at offset"):
        cbdf.parse_meta(raw("01-meta-only-sms.json")[:end])


# ------------------------------------------------------------------------------------------------------------------
# Meta

meta_pairs = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=255)), max_size=20)


@given(meta_pairs, st.binary(max_size=5))
def test_meta_both_ways(pairs: list[tuple[int, bytes]], rest: bytes) -> None:
    built = cbdf.build_meta(pairs)
    assert cbdf.parse_meta(built + rest) == (Meta(tuple(pairs)), len(built))


def test_meta_finds_first_and_all() -> None:
    meta = Meta(((3, b"a"), (200, b"x"), (3, b"b"), (219, b"y"), (220, b"z")))
    assert meta.first(3) == b"a"
    assert meta.first(4) is None
    assert meta.all(3) == (b"a", b"b")
    assert meta.all(4) == ()
    assert meta.without_local() == Meta(((3, b"a"), (3, b"b"), (220, b"z")))


@pytest.mark.parametrize("pairs", [[(256, b"")], [(-1, b"")], [(1, bytes(256))], [(1, b"")] * 65536])
def test_meta_out_of_range(pairs: list[tuple[int, bytes]]) -> None:
    with pytest.raises(LocalProtocolError):
        cbdf.build_meta(pairs)


short_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
addresses = st.builds(Address, st.integers(-128, 127), st.integers(0, 0xFFFF_FFFF))
mail_metas = st.builds(
    MailMeta,
    guid=st.binary(min_size=16, max_size=16),
    subject=short_text,
    sender=addresses,
    to=st.lists(addresses, max_size=5).map(tuple),
    cc=st.lists(addresses, max_size=5).map(tuple),
    timestamp=st.integers(0, 0xFFFF_FFFF),
    attachment_names=st.lists(short_text.filter(bool), max_size=5).map(tuple),
    preview=short_text,
)


@given(mail_metas)
def test_mail_meta_both_ways(meta: MailMeta) -> None:
    assert cbdf.parse_mail_meta(cbdf.build_mail_meta(meta)) == meta


def test_mail_meta_order_of_keys() -> None:
    meta = MailMeta(
        guid=GUID, subject="", sender=ALICE, to=(BOB,), cc=(ALICE,), attachment_names=("a.txt",), preview="hello"
    )
    pairs = cbdf.parse_meta(cbdf.build_mail_meta(meta))[0].pairs
    assert [key for key, _ in pairs] == [0, 1, 2, 3, 12, 13, 14, 19, 25, 36]
    assert pairs[0] == (0, b"\x01")
    assert pairs[2] == (2, b"")


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("é" * 200, "é" * 127),
        ("x" * 300 + ".pdf", "x" * 251 + ".pdf"),
        ("é" * 200 + ".pdf", "é" * 125 + ".pdf"),
        ("." + "x" * 300, "." + "x" * 254),
        ("a." + "x" * 300, "a." + "x" * 253),
        ("x" * 255, "x" * 255),
        ("\ud800.txt", "?.txt"),
    ],
)
def test_long_names_keep_their_extension(name: str, cut: str) -> None:
    built = cbdf.build_mail_meta(MailMeta(guid=GUID, subject="", sender=ALICE, attachment_names=(name,)))
    assert cbdf.parse_mail_meta(built).attachment_names == (cut,)


def test_long_subject_is_cut_between_characters() -> None:
    built = cbdf.build_mail_meta(MailMeta(guid=GUID, subject="€" * 100, sender=ALICE, preview="x" * 300))
    meta = cbdf.parse_mail_meta(built)
    assert meta.subject == "€" * 85
    assert meta.preview == "x" * 255


def test_attachment_count_stops_at_a_byte() -> None:
    built = cbdf.build_mail_meta(MailMeta(guid=GUID, subject="", sender=ALICE, attachment_names=("a",) * 300))
    assert cbdf.parse_meta(built)[0].first(cbdf.KEY_ATTACHMENT_COUNT) == b"\xff"
    assert len(cbdf.parse_mail_meta(built).attachment_names) == 300


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"guid": b"short"}, LocalProtocolError),
        ({"timestamp": -1}, LocalProtocolError),
        ({"timestamp": 1 << 32}, LocalProtocolError),
        ({"sender": Address(0, 1 << 32)}, AddressError),
    ],
)
def test_mail_meta_out_of_range(change: dict[str, Any], error: type[Exception]) -> None:
    fields: dict[str, Any] = {"guid": GUID, "subject": "", "sender": ALICE} | change
    with pytest.raises(error):
        cbdf.build_mail_meta(MailMeta(**fields))


SENDER = (19, bytes.fromhex("0006012a000000"))


def test_missing_attachment_names_are_made_up() -> None:
    built = cbdf.build_meta([SENDER, (3, b"a.txt"), (3, b""), (12, b"\x03")])
    assert cbdf.parse_mail_meta(built).attachment_names == ("a.txt", "attachment-2.bin", "attachment-3.bin")


def test_unknown_and_local_keys_are_skipped() -> None:
    built = cbdf.build_meta([(199, b"?"), SENDER, (200, b"note"), (219, b"note"), (255, b"?")])
    assert cbdf.parse_mail_meta(built) == MailMeta(guid=bytes(16), subject="", sender=ALICE)


def test_wide_timestamp_wins() -> None:
    built = cbdf.build_meta([SENDER, (25, b"\x01\0\0\0"), (41, b"\0\0\0\0\x01\0\0\0")])
    assert cbdf.parse_mail_meta(built).timestamp == 1 << 32


def test_bad_utf8_in_a_subject_is_replaced() -> None:
    assert cbdf.parse_mail_meta(cbdf.build_meta([SENDER, (2, b"a\xffb")])).subject == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("pairs", "tail", "message"),
    [
        ([], b"", "no From"),
        ([SENDER], b"x", "offset 11"),
        ([(19, b"\0\6")], b"", "mailbox of 2 bytes"),
        ([SENDER, (13, bytes(7))], b"", "mailbox of coin 0000"),
        ([SENDER, (1, b"short")], b"", "key 1 has 5 bytes"),
        ([SENDER, (12, b"\0\0")], b"", "key 12 has 2 bytes"),
    ],
)
def test_malformed_mail_meta(pairs: list[tuple[int, bytes]], tail: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        cbdf.parse_mail_meta(cbdf.build_meta(pairs) + tail)


# ------------------------------------------------------------------------------------------------------------------
# Bodies and documents


def phase2(styles: bytes, text: bytes, *tail: bytes) -> bytes:
    return b"".join(b"\x1c" + len(part).to_bytes(4, "little") + part for part in (styles, text, *tail))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_body_both_ways(text: str) -> None:
    kept = "".join(char for char in text.replace("\r\n", "\n").replace("\r", "\n") if char >= " " or char in "\t\n")
    assert cbdf.parse_body(cbdf.build_body(text)) == kept


def test_text_that_looks_like_markup_survives_without_its_controls() -> None:
    assert cbdf.parse_body(cbdf.build_body("a\x0e\0\x05secret\x03b\rc")) == "asecretb\nc"


def test_bare_text_is_a_body() -> None:
    assert cbdf.parse_body(b"just text\n") == "just text\n"
    assert cbdf.parse_body(b"") == ""


@pytest.mark.parametrize("tail", [(), (b"",), (b"", b"")])
def test_phase2_body_with_and_without_tails(tail: tuple[bytes, ...]) -> None:
    assert cbdf.parse_body(phase2(bytes(14), b"\x02Hi\x03", *tail)) == "Hi"
    assert cbdf.parse_body(phase2(bytes(14), b"", *tail)) == ""


def test_phase2_styles_whose_length_looks_like_phase1() -> None:
    body = phase2(bytes(0x021C), b"\x02Hi\x03", b"", b"")
    assert body.startswith(cbdf.PHASE1_HEAD)
    assert cbdf.parse_body(body) == "Hi"


def test_phase1_text_whose_bytes_look_like_a_section() -> None:
    body = cbdf.PHASE1_HEAD + b"\0\0" + b"x" * 0x021C
    assert cbdf.parse_body(body) == "x" * 0x021C


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x1c", "section length at offset 1"),
        (b"\x1c\x1c", "section length at offset 1"),
        (phase2(bytes(14), b"\x02Hi\x03")[:-1], "section at offset 24"),
        (phase2(bytes(14), b"\x02Hi\x03") + b"x", "byte 78 instead of a section separator at offset 28"),
        (phase2(bytes(14)[:0], b"x\x9ccompressed"), "no plain text section"),
        (b"\x1c\0\0\0\0", "no plain text section"),
    ],
)
def test_malformed_bodies(body: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        cbdf.parse_body(body)


@given(mail_metas, short_text)
def test_documents_join_and_split(meta: MailMeta, text: str) -> None:
    parts = cbdf.build_mail_meta(meta), cbdf.build_body(text)
    document = cbdf.join_document(*parts)
    assert cbdf.split_document(document) == parts
    assert cbdf.parse_mail_meta(document) == meta


@pytest.mark.parametrize(
    ("meta", "body", "message"),
    [
        (b"\1\0\2\1a", b"", "no section separator .* offset 5"),
        (b"\1\0\2\1a", b"bare text", "no section separator .* offset 5"),
        (b"\1\0\2\1a", b"\x1c\x1c", "section length at offset 1"),
        (b"\1\0\2\1ax", b"\x1c\x1c\x02", "bytes after the meta pairs at offset 5"),
        (b"\1\0\2\2a", b"\x1c\x1c\x02", "value of key 2 at offset 4"),
        (b"\1\0\x21\1\0", b"", "no section separator"),
    ],
)
def test_malformed_documents_name_the_offset(meta: bytes, body: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        cbdf.join_document(meta, body)


# ------------------------------------------------------------------------------------------------------------------
# Phase II and whole documents

SUBJECT = Meta(((cbdf.KEY_SUBJECT, b"s"),))
LONG = "An apple a day. " * 40

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=300)
documents = st.builds(
    Document,
    meta=st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 3, 13, 19, 35, 36, 44, 100, 255]), st.binary(max_size=20)), max_size=5
    ).map(lambda pairs: Meta(tuple(pairs))),
    styles=st.binary(max_size=40),
    text=st.lists(words, max_size=3).map(markup.build_text),
    resources=st.lists(
        st.builds(Resource, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=20)), max_size=3
    ).map(tuple),
)


@given(documents, st.booleans(), st.booleans())
def test_documents_of_phase_2_both_ways(document: Document, compress: bool, digest: bool) -> None:
    raw = cbdf.encode_document(document, compress=compress, digest=digest)
    assert cbdf.decode_document(raw) == document
    meta, body = cbdf.split_document(raw)
    assert meta + body == raw
    assert document.text is not None
    assert cbdf.parse_body(body, cbdf.parse_meta(meta)[0]) == markup.extract_text(document.text, degraded=True)


def test_the_minimal_document_is_the_published_one() -> None:
    document = Document(meta=Meta(((0, b"\0"),)), text=b"\2\3")
    assert cbdf.encode_document(document) == raw("03-phase2-minimal-document.json")
    assert cbdf.decode_document(raw("03-phase2-minimal-document.json")) == document
    assert document.layout == 0


def test_the_published_short_message_is_a_document_of_pairs_alone() -> None:
    document = cbdf.decode_document(raw("01-meta-only-sms.json"))
    assert document.text is None
    again = cbdf.encode_document(document)
    assert cbdf.decode_document(again) == document
    assert cbdf.split_document(again) == (again, b"")
    assert cbdf.parse_mail_meta(again).subject == "On my way"


def test_pairs_that_mean_nothing_without_sections_are_left_out() -> None:
    pairs = tuple((key, b"\1") for key in (2, 31, 32, 37, 40, 42, 43))
    document = cbdf.decode_document(cbdf.encode_document(Document(meta=Meta(pairs))))
    assert [key for key, _ in document.meta.pairs] == [2]


def test_phase_1_is_a_document_with_plain_text() -> None:
    document = cbdf.decode_document(cbdf.build_meta([(2, b"s")]) + cbdf.PHASE1_HEAD + b"a\r\nb\x03")
    assert document == Document(meta=SUBJECT, styles=b"", text=b"\2a\nb\3")


def test_compression_is_for_long_texts_and_stays_within_what_readers_take() -> None:
    def flag(text: str) -> bytes | None:
        document = Document(meta=SUBJECT, text=markup.build_text([text]))
        raw = cbdf.encode_document(document, compress=True)
        assert cbdf.decode_document(raw) == document
        return cbdf.parse_meta(raw)[0].first(cbdf.KEY_COMPRESSION)

    assert flag("short") is None
    assert flag(LONG) == b"\1"
    assert flag("x" * 10_000_000) is None  # would open to far more than it weighs, as an attack does


def test_local_pairs_never_leave_and_never_enter() -> None:
    local = tuple((key, b"note") for key in (200, 210, 219))
    raw = cbdf.encode_document(Document(meta=Meta(SUBJECT.pairs + local), text=b"\2\3"))
    assert not [key for key, _ in cbdf.parse_meta(raw)[0].pairs if key in cbdf.LOCAL_KEYS]
    raw = cbdf.build_meta([*SUBJECT.pairs, *local]) + cbdf.build_body("x")
    assert cbdf.decode_document(raw).meta == SUBJECT


def test_feature_bits_are_up_to_four_bytes() -> None:
    meta = Meta(((cbdf.KEY_REQUIRED, b"\x01\x08"),))
    assert meta.features(cbdf.KEY_REQUIRED) == 0x0801
    assert meta.features(cbdf.KEY_OPTIONAL) == 0
    for wrong in (b"", bytes(5)):
        with pytest.raises(RemoteProtocolError, match="1 to 4"):
            Meta(((cbdf.KEY_REQUIRED, wrong),)).features(cbdf.KEY_REQUIRED)


def test_extension_sections_are_skipped() -> None:
    whole = raw("03-phase2-minimal-document.json")
    extended = whole + b"\x1c\x07\3\0\0\0abc" + b"\x1c\x08\0\0\0\0"
    assert cbdf.decode_document(extended) == cbdf.decode_document(whole)
    for end in range(len(whole) + 1, len(extended)):
        if end != len(whole) + 9:
            with pytest.raises(RemoteProtocolError):
                cbdf.decode_document(extended[:end])


def compressed(pairs: list[tuple[int, bytes]], blob: bytes) -> bytes:
    return cbdf.build_meta([(30, b"\1"), *pairs]) + phase2(blob, b"", b"")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (cbdf.build_meta([(30, b"\1")]) + phase2(b"", b"\2\3", b"", b"x"), "Logic"),
        (cbdf.build_meta([(30, b"\1")]) + phase2(b"", b"\2\3", b"x", b""), "resource head"),
        (cbdf.build_meta([(30, b"\1")]) + phase2(b"", b"\2\x14\3", b"", b""), "never begun"),
        (cbdf.build_meta([(30, b"\1")]) + phase2(b"", b"x", b"", b""), "no plain text"),
        (cbdf.build_meta([(30, b"\1")]) + phase2(b"", b"")[:5], "no plain text"),
        (cbdf.build_meta([(30, b"\1")]) + cbdf.PHASE1_HEAD + b"x", "section"),
        (cbdf.build_meta([(30, b"\2")]) + phase2(b"", b"\2\3", b"", b""), "version 2"),
        (cbdf.build_meta([(30, b"\1\1")]) + phase2(b"", b"\2\3", b"", b""), "key 30 has 2 bytes"),
        (cbdf.build_meta([(2, b"")]) + phase2(b"", b"\2\3", b"", b""), "no text at offset"),
        (cbdf.build_meta([(30, b"\1"), (45, b"\2" + bytes(32))]) + phase2(b"", b"\2\3", b"", b""), "does not match"),
        (cbdf.build_meta([(30, b"\1"), (45, b"")]) + phase2(b"", b"\2\3", b"", b""), "unknown algorithm"),
        (compressed([(31, b"\1")], b"not zlib"), "damaged"),
        (compressed([(31, b"\1")], zlib.compress(b"")), "section length"),
        (compressed([(31, b"\1")], zlib.compress(b"x" * 20)), "section"),
        (compressed([(31, b"\2")], b""), "compression 2"),
    ],
)
def test_malformed_documents_of_phase_2(document: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        cbdf.decode_document(document)


def test_every_truncation_of_a_document_is_refused() -> None:
    resources = (Resource(1, 0, b"png"),)
    document = Document(meta=SUBJECT, text=markup.build_text([LONG]), resources=resources)
    whole = cbdf.encode_document(document, compress=True, digest=True)
    tail = len(whole) - 5  # where the empty Logic begins, which a lenient reader may miss
    for end in range(len(whole)):
        if end != tail:
            with pytest.raises(RemoteProtocolError):
                cbdf.decode_document(whole[:end])
    assert cbdf.decode_document(whole[:tail]) == document


def test_what_cannot_be_written_is_our_error() -> None:
    for text in (b"", b"\2", b"\2\x12\0\3"):
        with pytest.raises(LocalProtocolError):
            cbdf.encode_document(Document(meta=SUBJECT, text=text))


def test_a_body_of_a_later_version_is_shown_by_its_summary() -> None:
    meta = Meta(((30, b"\2"), (36, b"preview"), (35, b"summary")))
    assert not cbdf.readable(meta)
    assert cbdf.fallback_text(meta) == "summary"
    assert cbdf.fallback_text(Meta(((36, b"preview"),))) == "preview"
    assert cbdf.fallback_text(Meta(())) == ""
    document = cbdf.build_meta(meta.pairs) + b"\x1canything"
    assert cbdf.split_document(document)[1] == b"\x1canything"
