"""The MIME reader under arbitrary bytes: `python -m tests.fuzz.fuzz_mime` (needs atheris; its options apply).

Rule: `parse` is all there is to fuzz. Nothing may come out of it but what it returns: reading mail never raises, its
texts can be stored as UTF-8, its offsets lie within the message. The ordinary tests run the same function over examples
of hypothesis.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import msgspec

from qmail_core.codec.mime import Parsed, decode_part, decoder, html_to_text, intro, link_cids, scan, thread_keys
from qmail_core.codec.mime.html import INTRO

ENCODINGS = ("base64", "quoted-printable", "x-uuencode", "7bit")


def parse(data: bytes) -> None:
    """Everything that is done to a message between its delivery and its display, and the decoders on the same bytes."""
    parsed = scan(data)
    check(data, parsed)
    for encoding in ENCODINGS:
        in_pieces(data, encoding, 1 + len(data) // 7)


def check(data: bytes, parsed: Parsed) -> None:
    """What holds for the answer, whatever the message."""
    msgspec.json.encode(parsed)  # fails for lone surrogates
    assert "\0" not in parsed.text
    assert list(parsed.cuts) == sorted(set(parsed.cuts))
    assert all(0 < cut < len(data) for cut in parsed.cuts)
    for part in parsed.attachments:
        assert 0 <= part.offset <= part.offset + part.length <= len(data)
        decode_part(data[part.offset : part.offset + part.length], part.transfer_encoding)
    assert len(intro(parsed.text, parsed.html)) <= INTRO
    for source in parsed.html:
        html_to_text(source).encode()
        link_cids(source, parsed.cids, lambda attachment: f"attachment:{attachment}").html.encode()
    assert all(len(key) == 16 for key in thread_keys(parsed))


def in_pieces(data: bytes, encoding: str, size: int) -> None:
    """The streaming decoders give what decoding at once gives."""
    pieces = decoder(encoding)
    fed = b"".join([pieces.feed(data[at : at + size]) for at in range(0, len(data), size)]) + pieces.finish()
    assert fed == decode_part(data, encoding)


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
