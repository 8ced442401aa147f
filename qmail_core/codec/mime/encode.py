"""Text -> header lines: folding, encoded words, parameters, addresses. Everything written is ASCII.

Rule: what is given cannot start a line of its own. Control characters become blanks in text and are refused in
addresses and ids. Lines with encoded words stay within 76 characters (RFC 2047 2), others within 78 where their words
allow it, and none passes 998.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from qmail_core.codec.mime.mailbox import Person, domain_to_ascii
from qmail_core.errors import AddressError, UsageError

LINE = 76
MAX_WORD = 900  # characters without a blank; a line takes 998
_WORD_BYTES = 33  # in one base64 word, so that the longest field name still fits before it
_WORD_LETTERS = 44
_SECTION = 54  # characters of one RFC 2231 section

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$&^_.+-]+")
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LOCAL = re.compile(r"[ -~]{1,128}")
_DOMAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[[A-Za-z0-9.:-]{1,60}\]")
_ID = re.compile(r"<[!-;=?-~]{1,900}>")
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")


def fold(name: str, words: Iterable[str]) -> str:
    """One field with its CR LF; lines break only between words."""
    lines: list[str] = []
    line = f"{name}:"
    for index, word in enumerate(words):
        if index and len(line) + 1 + len(word) > LINE:
            lines.append(line)
            line = ""
        line = f"{line} {word}"
    return "\r\n".join([*lines, line]) + "\r\n"


def clean(text: str) -> str:
    """Text without control characters, line ends first of all."""
    return _CONTROLS.sub(" ", text).strip()


def text_field(name: str, value: str) -> str:
    """An unstructured field, such as Subject."""
    return fold(name, _text_words(clean(value)))


def _text_words(text: str) -> list[str]:
    words = text.split(" ")
    if text.isascii() and "=?" not in text and all(0 < len(word) < MAX_WORD for word in words):
        return words
    return encoded_words(text) if text else []


def encoded_words(text: str) -> list[str]:
    """Words of RFC 2047 in UTF-8, no character cut in two, in the shorter encoding."""
    raw = text.encode()
    letters = sum(1 if byte in _Q_SAFE or byte == 32 else 3 for byte in raw)
    short = letters <= len(raw) * 4 // 3
    words: list[str] = []
    held = b""
    size = 0
    for char in text:
        piece = char.encode()
        cost = sum(1 if byte in _Q_SAFE or byte == 32 else 3 for byte in piece) if short else len(piece)
        if size + cost > (_WORD_LETTERS if short else _WORD_BYTES):
            words.append(_word(held, short=short))
            held, size = b"", 0
        held += piece
        size += cost
    words.append(_word(held, short=short))
    return words


def _word(raw: bytes, *, short: bool) -> str:
    if not short:
        return f"=?utf-8?b?{binascii.b2a_base64(raw, newline=False).decode()}?="
    content = "".join(["_" if b == 32 else chr(b) if b in _Q_SAFE else f"={b:02X}" for b in raw])
    return f"=?utf-8?q?{content}?="


def address_field(name: str, people: Sequence[Person]) -> str:
    """A list of addresses; "" for nobody. Raises AddressError for what cannot be written in seven bits."""
    words: list[str] = []
    for person in people:
        words += _person(person)
        words[-1] += ","
    if not words:
        return ""
    words[-1] = words[-1][:-1]
    return fold(name, words)


def _person(person: Person) -> list[str]:
    address = address_text(person.address)
    name = clean(person.name)
    if not name:
        return [address]
    if _PHRASE.fullmatch(name) and "=?" not in name and "  " not in name:
        return [*_text_words(name), f"<{address}>"]
    if name.isascii() and len(name) < LINE - 16 and "=?" not in name:
        return [_quoted(name), f"<{address}>"]
    return [*encoded_words(name), f"<{address}>"]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def address_text(address: str) -> str:
    """An address as it goes into a header: the local part quoted if it must be, the domain in punycode.

    raises  AddressError; a local part outside ASCII has no seven-bit form (RFC 6532)
    """
    local, _, domain = address.strip().rpartition("@")
    if len(local) > 1 and local[0] == local[-1] == '"':
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    if not _LOCAL.fullmatch(local):
        raise AddressError("Address has no local part, or one that plain headers cannot carry")
    domain = domain_to_ascii(domain)
    if not _DOMAIN.fullmatch(domain) or ".." in domain or any(len(label) > 63 for label in domain.split(".")):
        raise AddressError("Address has no valid domain")
    return f"{local if _DOT_ATOM.fullmatch(local) else _quoted(local)}@{domain}"


def writable_ids(ids: Iterable[str]) -> tuple[str, ...]:
    """The ids of somebody else's message that id_field takes; reading is less strict than writing is."""
    return tuple([one for one in ids if _ID.fullmatch(one)])


def id_field(name: str, ids: Sequence[str]) -> str:
    """Message ids, each within its angle brackets; "" for none."""
    for one in ids:
        if not _ID.fullmatch(one):
            raise UsageError(f"{name} has an id that is not of the form <left@right>")
    return fold(name, ids) if ids else ""


def value_field(name: str, token: str, params: Iterable[tuple[str, str]]) -> str:
    """A field such as Content-Type with its parameters."""
    words = [token]
    for key, value in params:
        for word in _parameter(key, clean(value)):
            words[-1] += ";"
            words.append(word)
    return fold(name, words)


def _parameter(name: str, value: str) -> list[str]:
    """One parameter, in sections if it must be. Source RFC 2231 3, 4."""
    if _TOKEN.fullmatch(value) and len(value) <= _SECTION:
        return [f"{name}={value}"]
    if value.isascii() and len(value) <= _SECTION and "=?" not in value:
        return [f"{name}={_quoted(value)}"]
    sections = [""]
    for char in value:
        escaped = quote(char, safe="!#$&+^`{}|~", encoding="utf-8")
        if len(sections[-1]) + len(escaped) > _SECTION:
            sections.append("")
        sections[-1] += escaped
    if len(sections) == 1:
        return [f"{name}*=utf-8''{sections[0]}"]
    return [f"{name}*{index}*={'' if index else _CHARSET}{section}" for index, section in enumerate(sections)]


_CHARSET = "utf-8''"
