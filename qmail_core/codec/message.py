"""A mail <-> its two CBDF objects, meta (file type 0) and body (file type 1)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from qmail_core.codec import cbdf
from qmail_core.codec.cbdf import MailMeta


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
    pairs = [pair for pair in meta.pairs if pair[0] != cbdf.KEY_GUID]
    if names and not meta.all(cbdf.KEY_ATTACHMENT_NAME):
        pairs = [pair for pair in pairs if pair[0] != cbdf.KEY_ATTACHMENT_COUNT]
        pairs += [(cbdf.KEY_ATTACHMENT_NAME, cbdf.cut_name(name)) for name in names]
        pairs.append((cbdf.KEY_ATTACHMENT_COUNT, bytes((min(len(names), 255),))))
    return cbdf.build_meta([(cbdf.KEY_GUID, guid), *pairs]), body


def parse(meta: bytes, body: bytes) -> Mail:
    """Read the two objects of a mail; RemoteProtocolError if they are not CBDF.

    A body written in a way this reader does not know gives the summary or preview its writer put beside it, so that
    the mail and its attachments are not lost.
    """
    pairs, _ = cbdf.parse_meta(meta)
    known = cbdf.readable(pairs) and not (pairs.only and not body)
    return Mail(cbdf.parse_mail_meta(meta), cbdf.parse_body(body, pairs) if known else cbdf.fallback_text(pairs))
