"""Header bytes -> text: unfolding, 8-bit bytes, and the encoded words of RFC 2047, as they should be and as they are.

Taken as well: words with blanks in them, words longer than 75, words without space between them, characters split over
two words, base64 split at any place. A word that cannot be read stays as it was written. Time is linear in the value.
"""

from __future__ import annotations

import binascii
import re
from itertools import groupby
from operator import itemgetter

from qmail_core.codec.mime.charset import decode_text
from qmail_core.codec.mime.transfer import decode_base64

_FOLD = re.compile(r"(?:\r?\n|\r)[ \t]*")
_HEAD = re.compile(r"=\?([^?\s=]{1,64})\?([qQbB])\?")
_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127))


def raw_text(raw: bytes) -> str:
    """Unfold a header value without reading its encoded words; 8-bit bytes are UTF-8 or else windows-1252."""
    text = decode_text(raw)
    if "\n" in text or "\r" in text:
        text = _FOLD.sub(" ", text)
    return text.strip(" \t") if text.isprintable() else text.translate(_CONTROLS).strip()


def header_text(raw: bytes) -> str:
    """The text of an unstructured header value."""
    text = raw_text(raw)
    return decode_words(text) if "=?" in text else text


def decode_words(text: str) -> str:
    """Replace the encoded words of a text; blanks between two neighbours vanish. Source RFC 2047 6.2."""
    if "=?" not in text:
        return text
    out: list[str] = []
    run: list[tuple[str, str, str]] = []  # neighbouring words: charset, encoding, content
    done = 0
    for start, end, word in _find(text):
        between = text[done:start]
        if not run or between.strip(" \t"):
            out.append(_run(run))
            run = []
            out.append(between)
        run.append(word)
        done = end
    out += (_run(run), text[done:])
    joined = "".join(out)
    return joined if joined.isprintable() else _FOLD.sub(" ", joined).translate(_CONTROLS)


def _find(text: str) -> list[tuple[int, int, tuple[str, str, str]]]:
    found = []
    close = -1
    start = text.find("=?")
    while start >= 0:
        head = _HEAD.match(text, start)
        if head is None:
            start = text.find("=?", start + 2)
            continue
        if close < head.end():
            close = text.find("?=", head.end())
        if close < 0:
            break
        inner = text.find("=?", head.end(), close)
        if inner >= 0 and _HEAD.match(text, inner):  # the first word never ended
            start = inner
            continue
        found.append((start, close + 2, (head[1].partition("*")[0].lower(), head[2].lower(), text[head.end() : close])))
        start = text.find("=?", close + 2)
    return found


def _run(words: list[tuple[str, str, str]]) -> str:
    """Neighbours of one charset are decoded together, because writers cut characters in two."""
    out = []
    for charset, alike in groupby(words, key=itemgetter(0)):
        raw = b""
        for encoding, same in groupby(alike, key=itemgetter(1)):
            contents = [content for _, _, content in same]
            raw += b"".join(map(_decode_q, contents)) if encoding == "q" else _decode_b(contents)
        out.append(decode_text(raw, charset))
    return "".join(out)


def _decode_b(contents: list[str]) -> bytes:
    """base64 is joined first if its words are whole quanta only together."""
    joined = "".join(contents)
    if len(joined) % 4 == 0 and any(len(content) % 4 or "=" in content for content in contents[:-1]):
        contents = [joined]
    return b"".join([decode_base64(content.encode("ascii", "ignore")) for content in contents])


def _decode_q(content: str) -> bytes:
    return binascii.a2b_qp(content.encode("utf-8", "replace"), header=True)
