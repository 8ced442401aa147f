"""The Text section of a CBDF document: words between the 32 control characters, each with operands of its own.

Every control is self-delimiting, so a reader that draws nothing can still skip what it does not know. `tokens` is
strict; `extract_text` takes whatever there is, because a mail must stay readable. Nothing here is drawn or executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from qmail_core.errors import LocalProtocolError, RemoteProtocolError

# Control characters (CBDF 4.5.1)
SUBJECT_START, STX, ETX, DOC_END = 0x01, 0x02, 0x03, 0x04
TAB, LINE_BREAK, PARA_BREAK, PAGE_BREAK, HORIZ_RULE = 0x09, 0x0A, 0x0B, 0x0C, 0x0D
LINK_START, LINK_END, DATA_ESCAPE = 0x0E, 0x0F, 0x10
STYLE_TEXT, STYLE_CONTAINER, STYLE_TABLE, STYLE_END = 0x11, 0x12, 0x13, 0x14
ELEMENT_ID, IMAGE, BLOCK_END, ITEM_BLOCK, AI_PROMPT = 0x15, 0x16, 0x17, 0x19, 0x1A
FS, GS, RS, US = 0x1C, 0x1D, 0x1E, 0x1F
PHASE3 = frozenset((0x05, 0x06, 0x07, 0x08, 0x18, 0x1B))  # refused by the strict reader; the lenient one skips them

MAX_DEPTH = 32  # styles and blocks open at once (CBDF 4.5)
_PUSH = frozenset((STYLE_TEXT, STYLE_CONTAINER, STYLE_TABLE, ITEM_BLOCK))
_BLOCKS = _PUSH - {STYLE_TEXT}

# Operands (CBDF 4.5.2): bytes that always follow, and where behind them a length stands that counts what comes next
_FIXED = {
    HORIZ_RULE: 1,
    STYLE_TEXT: 1,
    STYLE_CONTAINER: 1,
    STYLE_TABLE: 1,
    IMAGE: 1,
    ITEM_BLOCK: 2,
    LINK_START: 2,
    DATA_ESCAPE: 2,
    AI_PROMPT: 3,
}
_COUNTED = {LINK_START: (1, 2), DATA_ESCAPE: (0, 2), AI_PROMPT: (1, 3)}

CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f]")  # all below space but TAB and LF
_DEGRADED = {US: b"\t", RS: b"\n", PARA_BREAK: b"\n\n"}


class Control(Struct, frozen=True):
    """One control character with its operands."""

    code: int
    operands: bytes = b""


Token = str | Control


def _end(section: bytes, position: int, code: int) -> int:
    """Where the operands of a control end that start at `position`; may lie behind the section."""
    if code == ELEMENT_ID:
        return position + (3 if section[position : position + 1] == b"\xff" else 1)
    end = position + _FIXED.get(code, 0)
    if code in _COUNTED:
        first, last = _COUNTED[code]
        end += int.from_bytes(section[position + first : position + last], "little")
    return end


def tokens(section: bytes) -> Iterator[Token]:
    """Read a whole section strictly.

    section  from STX to ETX
    returns  runs of text (TAB and LF among them) and controls; joined again by `build_text` they are the section
    raises   RemoteProtocolError for missing STX or ETX, cut operands, text that is not UTF-8 or a Phase III control
    source   CBDF 4.5
    """
    if section[:1] != bytes((STX,)):
        raise RemoteProtocolError("text section does not begin with STX")
    position = 1
    while True:
        found = CONTROL.search(section, position)
        if found is None:
            raise RemoteProtocolError("text section does not end with ETX")
        if found.start() > position:
            yield _decode(section[position : found.start()], position)
        code = section[found.start()]
        position = _end(section, found.end(), code)
        if code == ETX:
            break
        if position > len(section):
            raise RemoteProtocolError(f"operands of control {code:02x} are cut at offset {found.start()}")
        if code in PHASE3:
            raise RemoteProtocolError(f"control {code:02x} at offset {found.start()} belongs to a later phase")
        yield Control(code, section[found.end() : position])
    if position != len(section):
        raise RemoteProtocolError(f"text goes on behind ETX at offset {position}")


def _decode(run: bytes, offset: int) -> str:
    try:
        return run.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"text is not UTF-8 at offset {offset + error.start}") from None


def check_text(section: bytes) -> None:
    """Check a section as a strict renderer does: `tokens`, and every style and block closed, at most 32 deep.

    raises   RemoteProtocolError
    source   CBDF 4.5
    """
    stack: list[int] = []
    for token in tokens(section):
        if isinstance(token, str):
            continue
        if token.code in _PUSH:
            stack.append(token.code)
            if len(stack) > MAX_DEPTH:
                raise RemoteProtocolError(f"styles nest deeper than {MAX_DEPTH}")
        elif token.code in (STYLE_END, BLOCK_END):
            if not stack:
                raise RemoteProtocolError("a style ends that was never begun")
            _pop(stack, token.code)
    if any(code in _BLOCKS for code in stack):
        raise RemoteProtocolError("a block is still open at the end of the text")


def _pop(stack: list[int], code: int) -> None:
    """STYLE_END takes the last style; BLOCK_END the last block, with the text styles begun inside it."""
    last = stack.pop()
    while code == BLOCK_END and last not in _BLOCKS:
        if not stack:
            raise RemoteProtocolError("a block ends that was never begun")
        last = stack.pop()


def build_text(parts: Iterable[Token]) -> bytes:
    """Write a section.

    parts    text, in which CR LF and CR become LF, and controls with exactly the operands they take
    raises   LocalProtocolError for operands of another size, or a control character inside text
    source   CBDF 4.5
    """
    section = b"".join((bytes((STX,)), *map(_part, parts), bytes((ETX,))))
    try:
        for _ in tokens(section):
            pass
    except RemoteProtocolError as error:
        raise LocalProtocolError(error.message) from None
    return section


def _part(part: Token) -> bytes:
    if isinstance(part, str):
        raw = normal_lines(part).encode("utf-8", "replace")
        if CONTROL.search(raw):
            raise LocalProtocolError("text holds a control character")
        return raw
    if not 0 <= part.code < 0x20 or part.code in (TAB, LINE_BREAK, STX, ETX):
        raise LocalProtocolError(f"{part.code:02x} is no control of a text")
    if _end(part.operands, 0, part.code) != len(part.operands):
        raise LocalProtocolError(f"control {part.code:02x} has operands of the wrong size")
    return bytes((part.code,)) + part.operands


def normal_lines(text: str) -> str:
    """CR LF and CR become LF, as every encoder must (CBDF 4.5): in styled text CR is a command."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def extract_text(section: bytes, degraded: bool = False, *, plain: bool = False) -> str:
    """Reduce a section to plain text.

    section   bytes from STX on; STX and ETX may be missing, text after ETX is not looked at
    degraded  True keeps a trace of the layout: cells become TAB, rows LF, paragraph breaks an empty line
    plain     True for Phase I, whose CR is the end of a line and not a rule with an operand
    returns   bytes >= 0x20, TAB and LF as UTF-8; operands of controls are skipped, even past the end
    source    CBDF 4.5.2, vector 06
    """
    parts = []
    position = 0
    while found := CONTROL.search(section, position):
        parts.append(section[position : found.start()])
        code = section[found.start()]
        position = found.end() if plain and code == HORIZ_RULE else _end(section, found.end(), code)
        if code == ETX:
            break
        if degraded:
            parts.append(_DEGRADED.get(code, b""))
    else:
        parts.append(section[position:])
    return b"".join(parts).decode("utf-8", "replace")
