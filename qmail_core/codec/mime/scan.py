"""Raw message -> what lists, details and search show, in one pass; nothing here ever raises on a message.

Bodies are chosen as JMAP does (RFC 8621 4.1.4): of alternatives the plain one is the text and the HTML one the HTML; a
text with a file name, or a later one within multipart/related, is an attachment, and so is a message/rfc822 part.
"""

from __future__ import annotations

import re

from msgspec import Struct

from qmail_core.codec.mime.charset import decode_text
from qmail_core.codec.mime.date import parse_date
from qmail_core.codec.mime.header import MAX_VALUE, Field
from qmail_core.codec.mime.html import html_to_text, text_to_html
from qmail_core.codec.mime.mailbox import MAX_LIST, Person, parse_addresses
from qmail_core.codec.mime.transfer import decode_part
from qmail_core.codec.mime.tree import Entity, Tree
from qmail_core.codec.mime.words import header_text, raw_text

MAX_TEXT = 1 << 20  # characters of text, and of HTML, that are decoded
MAX_IDS = 100  # of References; the newest are kept
MIN_PIECE = 4096  # bytes of an encoded attachment that is worth a piece of its own
MAX_NAME = 255  # characters of a file name

_ID = re.compile(r"<[^<>\s]+>")
_EOL = re.compile(r"\r\n?")
_META = re.compile(rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?([\w-]{1,40})", re.I)
# controls, and what turns the direction of writing, by which "exe" at the end looks like something else
_NOT_IN_NAMES = dict.fromkeys(
    (*range(9), *range(14, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
)
_BODIES = ("text/plain", "text/html")


class Part(Struct, frozen=True):
    """One attachment; its encoded body is raw[offset : offset + length] (transfer.decode_part decodes it)."""

    id: str  # "ATT00001", in the order of the message
    filename: str  # last part of the path its sender gave, "" for none
    content_type: str
    disposition: str  # "attachment" or "inline"
    transfer_encoding: str
    related: bool  # belongs to another part, such as an image shown in the HTML
    cid: str  # Content-ID without brackets
    size_kb: int  # decoded, rounded up
    offset: int
    length: int
    charset: str


class Parsed(Struct, frozen=True, kw_only=True):
    """A message, decoded as far as its limits allow."""

    headers: tuple[tuple[str, str], ...]  # lower-case names, decoded values, in order
    message_id: str = ""  # with its angle brackets
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    thread_index: str = ""
    from_: tuple[Person, ...] = ()
    sender: tuple[Person, ...] = ()
    reply_to: tuple[Person, ...] = ()
    to: tuple[Person, ...] = ()
    cc: tuple[Person, ...] = ()
    bcc: tuple[Person, ...] = ()
    subject: str = ""  # prefixes kept, blanks folded
    date: int | None = None  # Unix seconds
    text: str = ""  # plain parts joined, line ends LF; "" if there are only HTML ones
    html: tuple[str, ...] = ()
    attachments: tuple[Part, ...] = ()
    list_id: str = ""
    list_unsubscribe: str = ""
    cuts: tuple[int, ...] = ()  # offsets at which to cut, so that equal attachments are equal pieces
    limited: bool = False  # some limit left something out

    @property
    def cids(self) -> dict[str, str]:
        """Content ids -> attachment ids, as html.link_cids wants them."""
        return {part.cid: part.id for part in self.attachments if part.cid}


def scan(raw: bytes | memoryview) -> Parsed:
    """Read a message.

    raw      the whole message; a view of contiguous bytes is copied
    returns  what could be read; of a field that may occur once, the first one counts
    cost     O(n), with limits on depth, parts, fields and decoded text
    source   RFC 5322, RFC 2045-2049, RFC 2231, RFC 8621 4.1.4
    """
    raw = bytes(raw)
    tree = Tree(raw)
    texts, htmls, leaves = _choose(tree.root)
    bodies = _Bodies(raw)
    text, html = bodies.read(texts, htmls)
    parts = tuple([_part(raw, index, leaf, related) for index, (leaf, related) in enumerate(leaves, 1)])
    return _parsed(tree, text, html, parts, limited=tree.limited or bodies.limited)


def _parsed(tree: Tree, text: str, html: tuple[str, ...], parts: tuple[Part, ...], *, limited: bool) -> Parsed:
    fields = tree.root.fields
    first = dict(reversed(fields))
    get = first.get
    decoded = tuple([(name.decode("ascii"), header_text(value[:MAX_VALUE])) for name, value in fields])
    return Parsed(
        headers=decoded,
        message_id=next(iter(_ids(get(b"message-id"))), ""),
        in_reply_to=_ids(get(b"in-reply-to")),
        references=_ids(get(b"references")),
        thread_index=raw_text(get(b"thread-index", b"")[:1000]),
        from_=_people(fields, b"from", first),
        sender=_people(fields, b"sender", first),
        reply_to=_people(fields, b"reply-to", first),
        to=_people(fields, b"to", first),
        cc=_people(fields, b"cc", first),
        bcc=_people(fields, b"bcc", first),
        subject=" ".join(header_text(get(b"subject", b"")[:MAX_VALUE]).split()),
        date=parse_date(_dated(get(b"date"))),
        text=text,
        html=html,
        attachments=parts,
        list_id=header_text(get(b"list-id", b"")[:MAX_VALUE]),
        list_unsubscribe=raw_text(get(b"list-unsubscribe", b"")[:MAX_VALUE]),
        cuts=_cuts(parts, len(tree.raw)),
        limited=limited,
    )


def _people(fields: list[Field], name: bytes, first: dict[bytes, bytes]) -> tuple[Person, ...]:
    """All fields of a name, because writers repeat To and Cc."""
    if name not in first:
        return ()
    found: list[Person] = []
    for key, value in fields:
        if key == name and len(found) < 1000:
            found += parse_addresses(raw_text(value[:MAX_LIST]))
    return tuple(found)


def _ids(value: bytes | None) -> tuple[str, ...]:
    if not value:
        return ()
    text = raw_text(value[:MAX_VALUE])
    found = _ID.findall(text)[-MAX_IDS:] or [
        f"<{word.rstrip('>')}>" for word in text.replace("<", " ").split()[:1] if "@" in word
    ]
    return tuple([str(one)[:1000] for one in found])


def _dated(value: bytes | None) -> str:
    return raw_text(value[:200]) if value else ""


def _cuts(parts: tuple[Part, ...], size: int) -> tuple[int, ...]:
    edges = {edge for part in parts if part.length >= MIN_PIECE for edge in (part.offset, part.offset + part.length)}
    return tuple(sorted(edges - {0, size})) if edges else ()


class _Choice:
    """The bodies and attachments of one message; a list that is None takes nothing more."""

    def __init__(self) -> None:
        self.texts: list[Entity] = []
        self.htmls: list[Entity] = []
        self.leaves: list[tuple[Entity, bool]] = []


def _choose(root: Entity) -> tuple[list[Entity], list[Entity], list[tuple[Entity, bool]]]:
    choice = _Choice()
    _walk([root], "mixed", choice, inside=False, text=True, html=True)
    return choice.texts, choice.htmls, choice.leaves


def _walk(parts: list[Entity], kind: str, to: _Choice, *, inside: bool, text: bool, html: bool) -> None:
    """One multipart of the given subtype, as RFC 8621 4.1.4 does it; `inside` some alternative."""
    texts, htmls = len(to.texts), len(to.htmls)
    for index, part in enumerate(parts):
        if part.children:
            sub = part.content_type.partition("/")[2]
            _walk(part.children, sub, to, inside=inside or sub == "alternative", text=text, html=html)
            continue
        shown = part.content_type in _BODIES and part.disposition != "attachment"
        if not shown or (index and (kind == "related" or part.filename)):
            to.leaves.append((part, kind == "related" and index > 0))
            continue
        plain = part.content_type == "text/plain"
        if inside and kind != "alternative":  # a branch of an alternative speaks one language from here on
            text, html = text and plain, html and not plain
        if text and (plain or kind != "alternative"):
            to.texts.append(part)
        if html and (not plain or kind != "alternative"):
            to.htmls.append(part)
    if kind == "alternative" and text and html:
        if texts == len(to.texts):
            to.texts += to.htmls[htmls:]
        elif htmls == len(to.htmls):
            to.htmls += to.texts[texts:]


class _Bodies:
    """Decodes body parts within the limit."""

    def __init__(self, raw: bytes) -> None:
        self.limited = False
        self._raw = raw
        self._known: dict[int, str] = {}
        self._left = 2 * MAX_TEXT

    def read(self, texts: list[Entity], htmls: list[Entity]) -> tuple[str, tuple[str, ...]]:
        """Join the plain parts and list the HTML; the other kind is converted only where both occur."""
        text: list[str] = []
        html: list[str] = []
        if any(part.content_type == "text/plain" for part in texts):
            for part in texts:
                body = self._text(part)
                text.append(body if part.content_type == "text/plain" else html_to_text(body))
        if any(part.content_type == "text/html" for part in htmls):
            for part in htmls:
                body = self._text(part)
                html.append(body if part.content_type == "text/html" else text_to_html(body))
        return _joined(text), tuple(html)

    def _text(self, part: Entity) -> str:
        known = self._known.get(part.body)
        if known is None:
            known = self._known[part.body] = self._decoded(part)
        return known

    def _decoded(self, part: Entity) -> str:
        limit = min(MAX_TEXT, self._left)
        end = min(part.end, part.body + 3 * limit)  # quoted-printable needs up to three bytes for one
        raw = decode_part(self._raw[part.body : end], part.encoding)
        if end < part.end or len(raw) > limit:
            self.limited = True
            raw = raw[:limit]
        self._left -= len(raw)
        text = decode_text(raw, _charset(part, raw))
        if len(raw) == limit:
            text = text.rstrip("\ufffd")
        return _EOL.sub("\n", text) if "\r" in text else text


def _charset(part: Entity, raw: bytes) -> str:
    label = part.params.get("charset", "")
    if not label and part.content_type == "text/html" and (meta := _META.search(raw, 0, 2048)):
        return meta[1].decode("ascii")
    return label


def _joined(texts: list[str]) -> str:
    filled = [text for text in texts if text]
    if len(filled) < 2:
        return filled[0] if filled else ""
    return "\n".join([text if text.endswith("\n") else text + "\n" for text in filled])


def _part(raw: bytes, index: int, leaf: Entity, related: bool) -> Part:
    length = leaf.end - leaf.body
    shown = leaf.disposition
    if shown != "inline":
        shown = "inline" if related and not shown else "attachment"
    return Part(
        id=f"ATT{index:05}",
        filename=file_name(leaf.filename) if leaf.filename else "",
        content_type=leaf.content_type,
        disposition=shown,
        transfer_encoding=leaf.encoding,
        related=related,
        cid=leaf.cid,
        size_kb=-(-_decoded_size(raw, leaf) // 1024),
        offset=leaf.body,
        length=length,
        charset=leaf.params.get("charset", ""),
    )


def file_name(name: str) -> str:
    """Without folders and controls, and short enough for a file system with the extension kept."""
    last = re.split(r"[/\\]", name.rstrip("/\\ "))[-1]
    name = " ".join(last.translate(_NOT_IN_NAMES).split())
    if len(name) <= MAX_NAME:
        return name
    stem, dot, extension = name.rpartition(".")
    return (
        name[:MAX_NAME] if not dot or len(extension) > 16 else stem[: MAX_NAME - 1 - len(extension)] + "." + extension
    )


def _decoded_size(raw: bytes, leaf: Entity) -> int:
    """Exact for clean base64; without decoding, hence an estimate for the rest."""
    length = leaf.end - leaf.body
    if leaf.encoding != "base64":
        return length
    letters = length - raw.count(b"\n", leaf.body, leaf.end) - raw.count(b"\r", leaf.body, leaf.end)
    return letters * 3 // 4 - raw.count(b"=", max(leaf.body, leaf.end - 8), leaf.end)
