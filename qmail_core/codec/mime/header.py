"""Header blocks over bytes with offsets, and the parameters of Content-Type and Content-Disposition.

Rule: limits before work. Only the first MAX_BLOCK bytes of a block are split into fields, at most MAX_FIELDS of them,
and a value is read up to MAX_VALUE. Lines end with CR LF, LF or CR; a line that is no field is skipped if another field
follows it, else the body begins there.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from qmail_core.codec.mime.charset import decode_text
from qmail_core.codec.mime.words import decode_words, raw_text

MAX_BLOCK = 256 * 1024
MAX_FIELDS = 1000
MAX_VALUE = 64 * 1024
MAX_PARAMETERS = 200

_EOL = rb"(?:\r?\n|\r(?!\n))"
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:[ \t]*+([^\r\n]*+(?:" + _EOL + rb"[ \t][^\r\n]*+)*+)" + _EOL + rb"?")
_LINE = re.compile(rb"([^\r\n]*+)(" + _EOL + rb"?)")
_NEXT_FIELD = re.compile(rb"[A-Za-z][A-Za-z0-9-]*+[ \t]*+:")
_MBOX = (b"From ", b">From ")

_TYPE = re.compile(r"[\w!#$&^.+-]+(?:/[\w!#$&^.+-]+)?", re.ASCII)
_PARAMETER = re.compile(
    r"""[;\s]*+([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"?|([^;]*+))""",
    re.DOTALL,
)
_ESCAPED = re.compile(r'\\(["\\])')
_SECTION = re.compile(r"(.+?)\*(?:([0-9]{1,4})(\*)?)?\Z", re.DOTALL)

Field = tuple[bytes, bytes]


def read_block(raw: bytes, start: int, end: int) -> tuple[list[Field], int]:
    """Split a header block into fields.

    returns  (lower-case name, folded value) in order, and where the body begins
    cost     O(size of the block)
    """
    fields: list[Field] = []
    stop = min(end, start + MAX_BLOCK)
    at = start
    if raw.startswith(_MBOX, start, end) and (line := _LINE.match(raw, at, end)):
        at = line.end()
    match = _FIELD.match
    while at < stop and len(fields) < MAX_FIELDS:
        found = match(raw, at, stop)
        if found is not None:
            at = found.end()
            fields.append((found[1].lower(), found[2]))
            continue
        line = _LINE.match(raw, at, end)
        if line is None or not line[1]:
            return fields, line.end() if line else at
        if not _NEXT_FIELD.match(raw, line.end(), end) and raw[at] not in b" \t":
            return fields, at
        at = line.end()
    return fields, _skip_block(raw, at, end) if at < end else at


_BLANK = re.compile(_EOL + _EOL)


def _skip_block(raw: bytes, at: int, end: int) -> int:
    """Where the body of a block begins that is larger than we read."""
    blank = _BLANK.search(raw, max(at - 1, 0), end)
    return blank.end() if blank else end


def parse_value(raw: bytes) -> tuple[str, dict[str, str]]:
    """Read `token; name=value; ...` as in Content-Type.

    returns  the token in lower case ("" if there is none) and its parameters, names in lower case, values decoded:
             continuations and charsets of RFC 2231, and RFC 2047 words where they have no business but occur
    """
    if b";" not in raw:
        token = _TYPE.match(raw_text(raw[:MAX_VALUE]))
        return (token[0].lower(), {}) if token else ("", {})
    text = raw_text(raw[:MAX_VALUE])
    token = _TYPE.match(text)
    return (token[0].lower() if token else ""), _parameters(text, text.find(";"))


def _parameters(text: str, at: int) -> dict[str, str]:
    plain: dict[str, str] = {}
    sections: dict[str, list[tuple[int, bool, str]]] = {}
    for _ in range(MAX_PARAMETERS):
        found = _PARAMETER.match(text, at)
        if found is None:
            at = text.find(";", at + 1)
            if at < 0:
                break
            continue
        at = found.end()
        name, quoted, bare = found.groups()
        name = name.lower()
        value = _ESCAPED.sub(r"\1", quoted) if bare is None else _uncommented(bare.strip())
        section = _SECTION.match(name) if "*" in name else None
        if section is None:
            plain.setdefault(name, value)
        else:
            extended = section[2] is None or section[3] is not None
            sections.setdefault(section[1], []).append((int(section[2] or 0), extended, value))
    for name, value in plain.items():
        if "=?" in value:
            plain[name] = decode_words(value)
    for name, pieces in sections.items():
        plain[name] = _joined(pieces)  # the extended form wins: it is the exact one (RFC 6266 4.3)
    return plain


def _uncommented(value: str) -> str:
    """`us-ascii (Plain text)`: not for file names, which may end like that, but they are quoted then."""
    if value.endswith(")") and (start := value.rfind(" (")) > 0:
        return value[:start].rstrip()
    return value


def _joined(pieces: list[tuple[int, bool, str]]) -> str:
    """RFC 2231 3 and 4: sections in order of their numbers; the charset stands in the first one."""
    pieces.sort(key=lambda piece: piece[0])
    charset = "utf-8"
    raw = b""
    for index, (_, extended, value) in enumerate(pieces):
        if extended and index == 0 and value.count("'") >= 2:
            label, _, value = value.split("'", 2)
            charset = label or charset
        raw += unquote_to_bytes(value) if extended else value.encode("utf-8", "replace")
    text = decode_text(raw, charset)
    return decode_words(text) if "=?" in text else text
