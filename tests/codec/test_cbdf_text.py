"""The Text section: every control with its operands, strictly and leniently."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import cbdf_text as markup
from qmail_core.codec.cbdf_text import Control, Token, build_text, check_text, extract_text, tokens
from qmail_core.errors import LocalProtocolError, RemoteProtocolError
from tests.published import FOLDER

VECTOR = bytes.fromhex(json.loads((FOLDER / "cbdf" / "06-plaintext-extraction.json").read_text())["text_body_hex"])

# CBDF 4.5.1: every control a text may hold, with valid operands of it
CONTROLS = {
    0x00: [b""],
    0x01: [b""],
    0x04: [b""],
    0x0B: [b""],
    0x0C: [b""],
    0x0D: [b"a"],
    0x0E: [b"\0\0", b"\0\3abc", b"\2\7" + bytes(7), b"\0\xff" + bytes(255)],
    0x0F: [b""],
    0x10: [b"\0\0", b"\3\0\1\2\3", b"\0\1" + bytes(256)],
    0x11: [b"a"],
    0x12: [b"a"],
    0x13: [b"a"],
    0x14: [b""],
    0x15: [b"a", b"\xffab"],
    0x16: [b"a"],
    0x17: [b""],
    0x19: [b"ab"],
    0x1A: [b"\0\0\0", b"\1\2\0hi"],
    0x1C: [b""],
    0x1D: [b""],
    0x1E: [b""],
    0x1F: [b""],
}
EACH = [(code, operands) for code, many in CONTROLS.items() for operands in many]


def test_the_table_names_all_32_controls() -> None:
    elsewhere = {markup.STX, markup.ETX, markup.TAB, markup.LINE_BREAK}
    assert set(CONTROLS) | elsewhere | markup.PHASE3 == set(range(32))


@pytest.mark.parametrize(("code", "operands"), EACH)
def test_operands_of_each_control(code: int, operands: bytes) -> None:
    section = build_text(["a", Control(code, operands), "b"])
    assert section == b"\2a" + bytes((code,)) + operands + b"b\3"
    assert list(tokens(section)) == ["a", Control(code, operands), "b"]
    assert extract_text(section) == "ab"
    for wrong in (operands + b"x", operands[:-1]):
        if wrong != operands and not (code == 0x15 and len(wrong) == 1):
            with pytest.raises(LocalProtocolError, match="wrong size"):
                build_text([Control(code, wrong)])


@pytest.mark.parametrize(("code", "operands"), [pair for pair in EACH if pair[1]])
def test_cut_operands_are_refused_and_swallow_what_is_left(code: int, operands: bytes) -> None:
    for end in range(len(operands)):
        cut = b"\2a" + bytes((code,)) + operands[:end]
        with pytest.raises(RemoteProtocolError):
            list(tokens(cut))
        assert extract_text(cut) == "a"


controls = st.sampled_from(EACH).map(lambda pair: Control(*pair))
runs = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n"), min_size=1, max_size=9)
sections = st.lists(controls | runs, max_size=12).filter(
    lambda parts: not any(isinstance(a, str) and isinstance(b, str) for a, b in pairwise(parts))
)


@given(sections)
def test_sections_both_ways(parts: list[Token]) -> None:
    section = build_text(parts)
    assert list(tokens(section)) == parts
    assert extract_text(section) == "".join(part for part in parts if isinstance(part, str))


def test_the_vector_is_well_formed() -> None:
    parts = list(tokens(VECTOR))
    assert build_text(parts) == VECTOR
    check_text(VECTOR)
    codes = [part.code for part in parts if isinstance(part, Control)]
    assert codes == [0x11, 0x0E, 0x0F, 0x16, 0x13, 0x1F, 0x1E, 0x1F, 0x17, 0x0B, 0x14]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (b"", "begin with STX"),
        (b"a\3", "begin with STX"),
        (b"\2a", "end with ETX"),
        (b"\2a\3b", "goes on behind ETX"),
        (b"\2a\xff\3", "not UTF-8 at offset 2"),
        (b"\2\x1b\3", "later phase"),
        (b"\2\x14\3", "never begun"),
        (b"\2\x17\3", "never begun"),
        (b"\2\x11a\x17\3", "never begun"),
        (b"\2\x12a\3", "still open"),
        (b"\2" + b"\x11a" * 33 + b"\3", "deeper than 32"),
    ],
)
def test_what_a_strict_reader_refuses(section: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        check_text(section)


def test_styles_nest_and_need_no_end() -> None:
    check_text(b"\2" + b"\x11a" * 32 + b"\3")
    check_text(b"\2\x12a\x11b\x11c\x17\3")  # the end of a block takes the styles inside it
    check_text(b"\2\x12a\x11b\x14\x17\3")


@pytest.mark.parametrize("part", ["a\x01b", "\x1c", Control(2), Control(9), Control(0x20), Control(-1), Control(0x1B)])
def test_what_cannot_be_written(part: Token) -> None:
    with pytest.raises(LocalProtocolError):
        build_text([part])


def test_line_ends_are_line_feeds() -> None:
    assert build_text(["a\r\nb\rc"]) == b"\2a\nb\nc\3"
    assert extract_text(b"a\r\nb\rc", plain=True) == "a\nbc"


@pytest.mark.parametrize(
    ("section", "plain", "degraded"),
    [
        (b"\x02a\x03b", "a", "a"),
        (b"a\x15xb\rxc", "abc", "abc"),
        (b"a\x0e", "a", "a"),
        (b"a\x0e\0\xffbc", "a", "a"),
        (b"a\x11", "a", "a"),
        (b"a\x0bb", "ab", "a\n\nb"),
        (b"\xff", "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"),
        (b"", "", ""),
    ],
)
def test_plain_text_of_odd_sections(section: bytes, plain: str, degraded: str) -> None:
    assert extract_text(section) == plain
    assert extract_text(section, degraded=True) == degraded


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_a_protocol_error(data: bytes) -> None:
    extract_text(data)
    extract_text(data, degraded=True, plain=True)
    for read in (check_text, lambda section: list(tokens(section))):
        with suppress(RemoteProtocolError):
            read(b"\2" + data + b"\3")
