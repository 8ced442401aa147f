"""Structured input -> RFC 5322 bytes: seven bits, CR LF, short lines; the same input gives the same bytes.

mixed( alternative( text, related( html, inline parts ) ), attachments ), each level only where it is needed; a report
has its parts in the order given. Bcc is never written. Boundaries come from the caller's seed.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator

from msgspec import Struct

from qmail_core.codec.mime.date import END, format_date
from qmail_core.codec.mime.encode import address_field, clean, id_field, text_field, value_field
from qmail_core.codec.mime.mailbox import Person
from qmail_core.codec.mime.scan import file_name
from qmail_core.errors import UsageError

_LINE_END = re.compile(r"\r\n?|\n")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")  # RFC 6838 4.2
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,75}")
_CID = re.compile(r"[!-;=?-~]{1,900}")
_SEVEN_BIT = re.compile(rb"(?:[\t -~]{0,998}\r\n)*+[\t -~]{0,998}")
_OURS = re.compile(
    "content-.*|bcc|cc|date|from|in-reply-to|message-id|mime-version|references|reply-to|sender|subject|to", re.I
)
_READABLE = ("message/rfc822", "message/delivery-status", "text/rfc822-headers")  # not encoded where it can be helped
BASE64_LINE = 57  # bytes that make the 76 characters of a line


class Attachment(Struct, frozen=True):
    """A file to send along."""

    name: str
    data: bytes
    content_type: str = "application/octet-stream"
    cid: str = ""  # set: shown inside the HTML as cid:<this>


class Compose(Struct, frozen=True, kw_only=True):
    """A message to write."""

    seed: bytes  # at least 16 random bytes, which nobody can foresee; boundaries come from it
    date: int  # Unix seconds
    message_id: str  # "<left@right>"
    from_: tuple[Person, ...] = ()
    sender: tuple[Person, ...] = ()
    reply_to: tuple[Person, ...] = ()
    to: tuple[Person, ...] = ()
    cc: tuple[Person, ...] = ()
    bcc: tuple[Person, ...] = ()  # for the envelope; not written
    subject: str = ""
    text: str = ""
    html: str = ""
    attachments: tuple[Attachment, ...] = ()
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()  # further fields, unstructured
    report: str = ""  # such as delivery-status: the attachments are the parts of a report of this type (RFC 6522)


def compose(draft: Compose) -> bytes:
    """Write a message.

    returns  the message with CR LF; scan() gives back what was put in, blanks in header texts folded
    raises   AddressError for an address that seven bits cannot carry, UsageError for a bad id, date, field or type
    source   RFC 5322, RFC 2045-2047, RFC 2231, RFC 2387
    """
    root = _structure(draft)
    writer = _Writer(draft.seed, root)
    writer.out.append(_header(draft).encode("ascii"))
    writer.put(root)
    if not writer.out[-1].endswith(b"\r\n"):
        writer.out.append(b"\r\n")
    return b"".join(writer.out)


def _header(draft: Compose) -> str:
    if not 0 <= draft.date < END:
        raise UsageError("Date is outside the years 1970 to 9999")
    nobody = not draft.to and not draft.cc
    return "".join(
        [
            f"Date: {format_date(draft.date)}\r\n",
            address_field("From", draft.from_),
            address_field("Sender", draft.sender),
            address_field("Reply-To", draft.reply_to),
            "To: undisclosed-recipients:;\r\n" if nobody and draft.bcc else address_field("To", draft.to),
            address_field("Cc", draft.cc),
            text_field("Subject", draft.subject),
            id_field("Message-ID", (draft.message_id,)),
            id_field("In-Reply-To", draft.in_reply_to),
            id_field("References", draft.references),
            *[_further(name, value) for name, value in draft.headers],
            "MIME-Version: 1.0\r\n",
        ]
    )


def _further(name: str, value: str) -> str:
    if not _NAME.fullmatch(name) or _OURS.fullmatch(name):
        raise UsageError("A further header field has a name that is not allowed")
    return text_field(name, value)


class _Leaf(Struct, frozen=True):
    """A part that is ready to be written."""

    header: str
    body: bytes
    verbatim: bool  # not encoded, so a boundary could occur in it


class _Branch(Struct, frozen=True):
    """A multipart."""

    subtype: str
    children: tuple[_Leaf | _Branch, ...]
    params: tuple[tuple[str, str], ...] = ()


def _structure(draft: Compose) -> _Leaf | _Branch:
    """The parts of a message, each level only where it is needed."""
    inline = [file for file in draft.attachments if file.cid and draft.html]
    page: _Leaf | _Branch = _text("html", draft.html) if draft.html else _text("plain", draft.text)
    if inline:
        page = _Branch("related", (page, *[_file(file, "inline") for file in inline]), (("type", "text/html"),))
    if draft.html and draft.text:
        page = _Branch("alternative", (_text("plain", draft.text), page))
    files = [_file(file, "attachment") for file in draft.attachments if not (file.cid and draft.html)]
    if draft.report:
        return _Branch("report", (page, *files), (("report-type", draft.report),))
    return _Branch("mixed", (page, *files)) if files else page


def _text(subtype: str, text: str) -> _Leaf:
    raw = _LINE_END.sub("\n", text).encode("utf-8", "replace")
    body = raw.replace(b"\n", b"\r\n")
    charset = "us-ascii" if raw.isascii() else "utf-8"
    if _SEVEN_BIT.fullmatch(body):
        encoding = "7bit"
    else:
        encoding, body = "quoted-printable", binascii.b2a_qp(raw, quotetabs=False).replace(b"\n", b"\r\n")
        if len(body) > len(raw) * 5 // 3:  # little of it is ASCII
            encoding, body = "base64", _base64(raw.replace(b"\n", b"\r\n"))
    header = value_field("Content-Type", f"text/{subtype}", [("charset", charset)])
    return _Leaf(header + f"Content-Transfer-Encoding: {encoding}\r\n", body, encoding == "7bit")


def passed_on(name: str, data: bytes, content_type: str, cid: str = "") -> Attachment:
    """A part of somebody else's message as a file to send along, without what compose would refuse of it."""
    kind = content_type if _writable(content_type.lower()) else "application/octet-stream"
    return Attachment(name, data, kind, cid if _CID.fullmatch(cid) else "")


def _writable(kind: str) -> bool:
    return _TYPE.fullmatch(kind) is not None and not kind.startswith("multipart/")


def _file(file: Attachment, disposition: str) -> _Leaf:
    kind = file.content_type.lower()
    if not _writable(kind):
        raise UsageError("An attachment has a content type that is not of the form type/subtype")
    verbatim = kind in _READABLE and _SEVEN_BIT.fullmatch(file.data) is not None
    if kind == "message/rfc822" and not verbatim:
        kind = "message/global"  # the only one that may be encoded (RFC 6532 3.7)
    name = [("filename", file_name(file.name))] if file_name(clean(file.name)) else []
    header = value_field("Content-Type", kind, []) + value_field("Content-Disposition", disposition, name)
    header += f"Content-Transfer-Encoding: {'7bit' if verbatim else 'base64'}\r\n"
    if file.cid:
        if not _CID.fullmatch(file.cid):
            raise UsageError("An attachment has a content id with blanks, brackets or characters outside ASCII")
        header += f"Content-ID: <{file.cid}>\r\n"
    return _Leaf(header, file.data if verbatim else _base64(file.data), verbatim)


def _base64(raw: bytes) -> bytes:
    view = memoryview(raw)
    lines = [binascii.b2a_base64(view[at : at + BASE64_LINE], newline=False) for at in range(0, len(raw), BASE64_LINE)]
    return b"\r\n".join(lines)


class _Writer:
    """Collects the pieces of one message, so that a large attachment is copied once more and not per level."""

    def __init__(self, seed: bytes, root: _Leaf | _Branch) -> None:
        self.out: list[bytes] = []
        self._seed = seed
        self._count = 0
        self._verbatim = list(_verbatim(root))

    def put(self, part: _Leaf | _Branch) -> None:
        """Write the rest of a part's header and its body."""
        if isinstance(part, _Leaf):
            self.out += (part.header.encode("ascii"), b"\r\n", part.body)
            return
        boundary = self._boundary()
        header = value_field("Content-Type", f"multipart/{part.subtype}", [*part.params, ("boundary", boundary)])
        delimiter = f"--{boundary}\r\n".encode()
        self.out += (header.encode("ascii"), b"\r\n")
        for child in part.children:
            self.out.append(delimiter)
            self.put(child)
            self.out.append(b"\r\n")
        self.out.append(f"--{boundary}--\r\n".encode())

    def _boundary(self) -> str:
        """The next one that stands in no body; encoded bodies cannot have it, because of its first two characters."""
        while True:
            self._count += 1
            number = self._count.to_bytes(4, "big")
            boundary = "=_" + hashlib.blake2b(number, key=self._seed[:64], digest_size=15).hexdigest()
            if not any(boundary.encode() in body for body in self._verbatim):
                return boundary


def _verbatim(part: _Leaf | _Branch) -> Iterator[bytes]:
    if isinstance(part, _Branch):
        for child in part.children:
            yield from _verbatim(child)
    elif part.verbatim:
        yield part.body
