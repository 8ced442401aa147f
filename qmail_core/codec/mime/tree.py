"""The parts of a message as a tree of offsets into its bytes; nothing is decoded or copied but header fields.

Rule: broken structure becomes fewer parts, never an error. A delimiter of an outer multipart ends every inner one, a
missing closing delimiter is the end of the bytes, a multipart without any delimiter is looked through for one that its
header does not name, and is text if there is none. Depth, number of parts and work are limited.
"""

from __future__ import annotations

import re

from msgspec import Struct

from qmail_core.codec.mime.header import Field, parse_value, read_block
from qmail_core.codec.mime.words import raw_text

MAX_DEPTH = 100
MAX_PARTS = 1000
MAX_BOUNDARY = 1000  # characters; RFC 2046 allows 70
WORK = 64 << 20  # bytes that may be searched for delimiters, plus 8 times the message
STEP = 256  # bytes of work one candidate counts as
SNIFF = 64 * 1024

_TAIL = re.compile(rb"[ \t]*+(?:\r?\n|\r|\Z)")
_SNIFF = re.compile(rb"[\r\n]--([^\s-][^\r\n]{0,200}|-[^\r\n]{4,200})[\r\n]")
_NO_PARAMS: dict[str, str] = {}


class Entity(Struct, frozen=True):
    """One part: the whole message, a multipart, or a leaf."""

    start: int  # offset of its header
    body: int  # offset of its encoded body
    end: int  # offset after its body, without the line end that belongs to the next delimiter
    fields: list[Field]  # lower-case names, folded values
    content_type: str
    params: dict[str, str]  # of Content-Type
    disposition: str  # lower case, "" when there is none
    disposition_params: dict[str, str]
    encoding: str  # Content-Transfer-Encoding, lower case; "7bit" when there is none
    cid: str  # Content-ID without brackets
    children: list[Entity]  # of a multipart

    @property
    def filename(self) -> str:
        """The name its sender gave it, "" for none."""
        return self.disposition_params.get("filename") or self.params.get("name") or ""


class Tree:
    """One walk over a message."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.limited = False  # a limit made the tree smaller than the message
        self._work = WORK + 8 * len(raw)
        self._parts = 0
        self.root = self._entity(0, len(raw), 0, "text/plain")

    def _entity(self, start: int, end: int, depth: int, default: str) -> Entity:
        self._parts += 1
        fields, body = read_block(self.raw, start, end)
        content = disposition = encoding = cid = b""
        for name, value in fields:
            if not name.startswith(b"content-"):
                continue
            if name == b"content-type":
                content = content or value
            elif name == b"content-transfer-encoding":
                encoding = encoding or value
            elif name == b"content-disposition":
                disposition = disposition or value
            elif name == b"content-id":
                cid = cid or value
        kind, params = parse_value(content) if content else (default, _NO_PARAMS)
        if "/" not in kind:
            kind = "text/plain"  # RFC 2045 5.2
        children = self._children(kind, params, body, end, depth) if kind.startswith("multipart/") else []
        shown, shown_params = parse_value(disposition) if disposition else ("", _NO_PARAMS)
        if kind.startswith("multipart/") and not children:
            kind = "text/plain"
        return Entity(start, body, end, fields, kind, params, shown, shown_params, _token(encoding), _id(cid), children)

    def _children(self, kind: str, params: dict[str, str], start: int, end: int, depth: int) -> list[Entity]:
        if depth >= MAX_DEPTH:
            self.limited = True
            return []
        boundary = params.get("boundary", "").rstrip()[:MAX_BOUNDARY].encode("utf-8", "replace")
        ranges = self._split(boundary, start, end) if boundary else []
        if not ranges and (boundary := self._sniffed(start, end)):
            ranges = self._split(boundary, start, end)
        default = "message/rfc822" if kind == "multipart/digest" else "text/plain"
        children = []
        for begin, stop in ranges:
            if self._parts >= MAX_PARTS:
                self.limited = True
                break
            children.append(self._entity(begin, stop, depth + 1, default))
        return children

    def _split(self, boundary: bytes, start: int, end: int) -> list[tuple[int, int]]:
        """Where the parts between delimiter lines are. Source RFC 2046 5.1.1."""
        raw = self.raw
        needle = b"--" + boundary
        ranges: list[tuple[int, int]] = []
        opened = -1
        at = start
        while (hit := raw.find(needle, at, end)) >= 0:
            self._work -= hit - at + STEP
            if self._work < 0 or len(ranges) > MAX_PARTS:
                self.limited = True
                break
            at = hit + len(needle)
            if hit > start and raw[hit - 1] not in b"\r\n":
                continue
            closes = raw.startswith(b"--", at, end)
            tail = _TAIL.match(raw, at + 2 * closes, end)
            if tail is None:
                continue
            if opened >= 0:
                ranges.append((opened, max(opened, self._before_line_end(hit))))
            if closes:
                return ranges
            opened = at = tail.end()
        self._work -= end - at
        if 0 <= opened < end:
            ranges.append((opened, end))
        return ranges

    def _before_line_end(self, at: int) -> int:
        """The line end before a delimiter is the delimiter's."""
        return at - 2 if self.raw.startswith(b"\r\n", at - 2) else at - 1

    def _sniffed(self, start: int, end: int) -> bytes:
        """A delimiter that occurs, where the header names none or a wrong one."""
        stop = min(end, start + SNIFF)
        found = _SNIFF.search(self.raw, max(0, start - 1), stop)
        if found is None:
            return b""
        boundary = found[1].rstrip().removesuffix(b"--")
        return boundary if self.raw.find(b"--" + boundary, found.end(), end) >= 0 else b""


def _token(value: bytes) -> str:
    if not value:
        return "7bit"
    words = raw_text(value[:200]).replace(";", " ").split()
    return words[0].strip("\"'").lower() if words else "7bit"


def _id(value: bytes) -> str:
    return raw_text(value[:1000]).strip("<> \t") if value else ""
