"""Transfer encodings: clean ones against the standard library, rubbish, and any cut of the stream."""

from __future__ import annotations

import base64
import binascii
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec.mime import decode_part, decoder

CLEAN = st.binary(max_size=400)


def uuencoded(data: bytes) -> bytes:
    lines = [binascii.b2a_uu(data[at : at + 45], backtick=True) for at in range(0, len(data), 45)]
    return b"begin 644 a.bin\n" + b"".join(lines) + b"`\nend\n"


@given(CLEAN)
def test_clean_encodings_decode(data: bytes) -> None:
    assert decode_part(base64.encodebytes(data).replace(b"\n", b"\r\n"), "base64") == data
    assert decode_part(quopri.encodestring(data, quotetabs=True), "quoted-printable").rstrip(b"\n") == data.rstrip(
        b"\n"
    )
    assert decode_part(uuencoded(data), "x-uuencode") == data
    assert decode_part(data, "8bit") == decode_part(data, "x-nobody-knows") == data


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"QUJD", b"ABC"),
        (b"Q U\x00J\xffD!", b"ABC"),
        (b"QUI", b"AB"),
        (b"Q", b""),
        (b"QQ==QUJD", b"AABC"),
        (b"QUJD=====", b"ABC"),
        (b"=", b""),
        (b"", b""),
    ],
)
def test_base64_with_rubbish(raw: bytes, data: bytes) -> None:
    assert decode_part(raw, "base64") == data


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"a=3Db=3d", b"a=b="),
        (b"soft=\r\nbreak=\nhere=", b"softbreakhere"),
        (b"soft= \t\r\nbreak=\rhere=  ", b"softbreakhere"),
        (b"a=b==41=4", b"a=b=A=4"),
        (b"==", b"="),
        (b"a_b", b"a_b"),
        (b"kept \r\n", b"kept \r\n"),
    ],
)
def test_quoted_printable_with_rubbish(raw: bytes, data: bytes) -> None:
    assert decode_part(raw, "quoted-printable") == data


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"text\nbegin 644 a\n#86)C\n`\nend\ntext\n#86)C\n", b"abc"),
        (b"begin 644 a\r\n#86)C\r\n", b"abc"),
        (b"begin 644 a\n#86)Cx\n", b"abc"),  # a checksum letter at the end
        (b"begin 644 a\n#86)\xff\n#86)C\n", b"abc"),
        (b"begin 644 a\n" + b"M" * 500 + b"\n#86)C", b"abc"),
        (b"begin 644 a\n$  \n", bytes(4)),  # blanks lost at the end
        (b"no begin\n#86)C\n", b""),
    ],
)
def test_uuencode_with_rubbish(raw: bytes, data: bytes) -> None:
    assert decode_part(raw, "x-uuencode") == data


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-uuencode", "7bit"])
@given(
    data=st.binary(max_size=120)
    | st.text("=4A1 \t\r\n", max_size=60).map(str.encode)
    | st.text("QUJD=\r\n", max_size=60).map(str.encode)
    | CLEAN.map(uuencoded),
    sizes=st.lists(st.integers(0, 9), max_size=60),
)
def test_pieces_give_what_the_whole_gives(encoding: str, data: bytes, sizes: list[int]) -> None:
    used = decoder(encoding)
    out = b""
    at = 0
    for size in sizes:
        out += used.feed(data[at : at + size])
        at += size
    assert out + used.feed(data[at:]) + used.finish() == decode_part(data, encoding)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-uuencode"])
@pytest.mark.parametrize("piece", [b"a" * 999, b"=" * 999, b" " * 999, b"\n" * 999, b"= " * 500])
def test_decoders_hold_back_little(encoding: str, piece: bytes) -> None:
    used = decoder(encoding)
    for _ in range(20):
        used.feed(piece)
    assert len(used._held) <= 1024
