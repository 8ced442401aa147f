"""A mail <-> its two CBDF objects, meta (file type 0) and body (file type 1)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from qmail_core.codec import cbdf
from qmail_core.codec.cbdf import MailMeta

# CBDF meta keys (QMail wire G.1) that `stamp` sets in a document somebody else built
_KEY_GUID = 1
_KEY_ATTACHMENT_NAME = 3
_KEY_ATTACHMENT_COUNT = 12


class Mail(Struct, frozen=True):
    """What the two objects of a mail say."""

    meta: MailMeta
    text: str


def compose(meta: MailMeta, text: str) -> tuple[bytes, bytes]:
    """The meta and body objects of a plain-text mail. BCC never enters them."""
    return cbdf.build_mail_meta(meta), cbdf.build_body(text)


def stamp(document: bytes, guid: bytes, names: Sequence[str]) -> tuple[bytes, bytes]:
    """Split a ready document for sending.

    Only three things in its meta change: its GUID becomes the upload's (readers refuse a mail whose GUID is not its
    tell's), pairs that are local to a receiver are dropped, and attachments it does not name are named.
    raises   RemoteProtocolError if it is not a CBDF document
    """
    raw, body = cbdf.split_document(document)
    meta = cbdf.parse_meta(raw)[0].without_local()
    pairs = [pair for pair in meta.pairs if pair[0] != _KEY_GUID]
    if names and not meta.all(_KEY_ATTACHMENT_NAME):
        pairs = [pair for pair in pairs if pair[0] != _KEY_ATTACHMENT_COUNT]
        pairs += [(_KEY_ATTACHMENT_NAME, cbdf.cut_name(name)) for name in names]
        pairs.append((_KEY_ATTACHMENT_COUNT, bytes((min(len(names), 255),))))
    return cbdf.build_meta([(_KEY_GUID, guid), *pairs]), body


def parse(meta: bytes, body: bytes) -> Mail:
    """Read the two objects of a mail; RemoteProtocolError if they are not CBDF."""
    return Mail(cbdf.parse_mail_meta(meta), cbdf.parse_body(body))
