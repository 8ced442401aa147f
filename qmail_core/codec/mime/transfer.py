"""Content-Transfer-Encoding: encoded part -> bytes, at once or piece by piece in bounded memory.

Rule: every byte string decodes, and the pieces give the same bytes wherever the input is cut. base64 skips what is not
of its alphabet and goes on after padding; in quoted-printable a `=` that introduces nothing stands for itself;
uuencode is what stands between `begin` and `end`. Unknown encodings are taken as they are, as RFC 2045 6.4 wants.
"""

from __future__ import annotations

import binascii
import re

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(set(range(256)) - set(_BASE64) - set(b"="))
# what binascii reads differently: soft breaks with blanks or a bare CR, "==", and "=" at the very end
_ODD_QP = re.compile(rb"=(?:([ \t]{1,998}+(?:\r\n?|\n|\Z)|\r(?!\n)|\Z)|(?==))")
_OPEN_QP = re.compile(rb"=(?:[0-9A-Fa-f]?|[ \t]{0,998}\r?)\Z")
_LINE = re.compile(rb"\r\n|\r|\n")
_UU_LINE = 128  # bytes; a line of uuencode has at most 61, or 86 with rubbish of gateways

IDENTITY = frozenset(("", "7bit", "8bit", "binary"))
UUENCODE = frozenset(("x-uuencode", "uuencode", "x-uue", "uue"))


class Decoder:
    """Decodes a part piece by piece: `feed` as often as needed, then `finish` once."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece and return what is decoded by now."""
        return data

    def finish(self) -> bytes:
        """Return what was held back."""
        return b""


class _Base64(Decoder):
    def feed(self, data: bytes) -> bytes:
        data = self._held + data.translate(None, _NOT_BASE64)
        if b"=" not in data:
            whole = len(data) & ~3
            self._held = data[whole:]
            return binascii.a2b_base64(data[:whole])
        *ended, rest = data.split(b"=")
        self._held = b""
        return b"".join([_quanta(piece) for piece in ended if piece]) + self.feed(rest)

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return _quanta(held)


def _quanta(letters: bytes) -> bytes:
    """Letters up to a padding; one letter alone is less than a byte and is dropped."""
    over = len(letters) & 3
    if over == 1:
        letters = letters[:-1]
    return binascii.a2b_base64(letters + b"=" * (-len(letters) & 3))


def _fixed(match: re.Match[bytes]) -> bytes:
    return b"=3D" if match[1] is None else b"=\n"


class _Quoted(Decoder):
    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        self._held = b""
        last = data.rfind(b"=", -1024)
        if last < 0 or not _OPEN_QP.match(data, last):
            return _quoted(data)
        self._held = data[last:]
        return _quoted(data[: last + 1])  # with its `=`, which an earlier one may need to see; at the end it is nothing

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return _quoted(held)


def _quoted(data: bytes) -> bytes:
    return binascii.a2b_qp(_ODD_QP.sub(_fixed, data))


class _Uuencode(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self._inside = False
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        if self._ended:
            return b""
        *lines, held = _LINE.split(self._held + data)  # a CR LF cut in two gives an empty line, which means nothing
        self._held = held[: _UU_LINE + 1]  # too long stays too long
        return b"".join([self._line(line) for line in lines])

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return self._line(held)

    def _line(self, line: bytes) -> bytes:
        if self._ended or len(line) > _UU_LINE:
            return b""
        if not self._inside:
            self._inside = line.startswith(b"begin ")
            return b""
        if line.rstrip() == b"end":
            self._ended = True
            return b""
        return _uu(line)


def _uu(line: bytes) -> bytes:
    if not line:
        return b""
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        # broken encoders and gateways add to the line or trim blanks at its end: trust the length byte
        size = (line[0] - 32) & 63
        letters = line[1:].rstrip()[: (size * 4 + 2) // 3].ljust((size + 2) // 3 * 4)
    try:
        return binascii.a2b_uu(line[:1] + letters)
    except binascii.Error:
        return b""


def decoder(encoding: str) -> Decoder:
    """A decoder for one part; `encoding` as in Part.transfer_encoding."""
    if encoding == "base64":
        return _Base64()
    if encoding == "quoted-printable":
        return _Quoted()
    return _Uuencode() if encoding in UUENCODE else Decoder()


def decode_base64(raw: bytes) -> bytes:
    """base64 with whatever else is in between."""
    base64 = _Base64()
    return base64.feed(raw) + base64.finish()


def decode_part(raw: bytes, encoding: str) -> bytes:
    """Decode the body of a part.

    raw       raw[part.offset : part.offset + part.length] of the message
    encoding  Part.transfer_encoding: lower case; an unknown one means "as it is"
    returns   the content; rubbish is skipped, never an error
    cost      O(n), and n bytes of copies; use `decoder` for parts that should not be in memory whole
    """
    if encoding in IDENTITY:
        return bytes(raw)
    used = decoder(encoding)
    head = used.feed(bytes(raw))
    return head + tail if (tail := used.finish()) else head
