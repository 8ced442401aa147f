"""Addresses of RFC 5322: lists as they occur in headers, one normal form to compare and store, and domain names.

Rule: reading never fails and takes linear time; what is no address comes out as a name with an empty address. Groups
are flattened, comments become names where there is none, words of RFC 2047 are decoded after the structure is read,
so that a comma within a name stays one.
"""

from __future__ import annotations

import re
import unicodedata

from msgspec import Struct

from qmail_core.codec.mime.words import decode_words

MAX_ADDRESSES = 1000
MAX_LIST = 128 * 1024  # characters of one header that are read
MAX_DOMAIN = 255
MAX_UNCLOSED = 10  # brackets and quotes whose end is looked for in vain, before all are taken as nothing
MAX_COMMENT = 10_000  # characters within one pair of brackets

_SIMPLE = re.compile(
    r"(?:((?:[\w .-][\w .'-]*+)?+)[ \t]*+<([^\s<>@\",;:()]+@[^\s<>@\",;:()]+)>|([^\s<>@\",;:()=]+@[^\s<>@\",;:()]+))\s*"
)
_WORD = r"(?P<word>=\?[^?\s]{1,64}\?[bBqQ]\?[^?]{0,2000}\?=)"
_QUOTES = r"""|"(?P<quoted>(?:[^"\\]|\\.){0,250}+)"
    |<(?P<angle>(?:[^<>"]|"(?:[^"\\]|\\.){0,100}"){0,1000}+)>"""
_REST = r"""|(?P<comment>\()
    |<(?P<open>[^<>,;]*+)
    |(?P<mark>[,;:])
    |(?P<space>\s+)
    |(?P<quote>")
    |(?P<atom>[^\s"(<>,;:]+|.)"""
_TOKEN = re.compile(_WORD + _QUOTES + _REST, re.VERBOSE | re.DOTALL)
# once too many quotes are open: none counts, so that nothing is looked at more than twice
_PLAIN_TOKEN = re.compile(_WORD + r"""|<(?P<angle>[^<>"]{0,1000}+)>""" + _REST, re.VERBOSE | re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ROUTE = re.compile(r"\s*@[^:<>]*:\s*")
_BRACKET = re.compile(r"\\.|[()]", re.DOTALL)
_SPACES = re.compile(r"\s+")
_DOTS = re.compile("[.。．｡]")


class Person(Struct, frozen=True):
    """One entry of an address header."""

    name: str  # display name, decoded; "" when there is none
    address: str  # with the domain in Unicode; "" when the header has only a name


class _Entry:
    """The entry being read: its words in order, and what was in angle brackets or parentheses."""

    __slots__ = ("angle", "bare", "comments", "named", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []  # everything outside brackets and comments, blanks as written
        self.bare = False  # one of the pieces is an unquoted "@"
        self.angle: str | None = None
        self.named = 0  # how many pieces stood before the angle bracket
        self.comments: list[str] = []


def parse_addresses(text: str) -> list[Person]:
    """Read an address list.

    text     the unfolded value, encoded words still encoded (words.raw_text)
    returns  at most MAX_ADDRESSES entries
    """
    if simple := _SIMPLE.fullmatch(text):
        name, angle, bare = simple.groups()
        return [Person((name or "").rstrip(" \t"), domain_to_unicode(angle or bare))]
    people: list[Person] = []
    entry = _Entry()
    text = text[:MAX_LIST]
    at = unclosed = 0
    pattern = _TOKEN
    while (token := pattern.match(text, at)) and len(people) < MAX_ADDRESSES:  # any character is a token
        at = token.end()
        kind, value = token.lastgroup, token[token.lastgroup or 0]
        if kind in ("open", "quote"):
            unclosed += 1
        if kind == "comment":
            end = _comment(text, at) if unclosed < MAX_UNCLOSED else -1
            unclosed += end < 0  # such a bracket is dropped and hides nothing
            if end >= 0:
                entry.comments.append(_ESCAPED.sub(r"\1", text[at:end]))
                at = end + 1
        elif kind == "mark":
            entry = _mark(people, entry, value)
        else:
            entry = _take(people, entry, kind, value)
        if unclosed >= MAX_UNCLOSED:
            pattern = _PLAIN_TOKEN
    _flush(people, entry)
    return people[:MAX_ADDRESSES]


def _take(people: list[Person], entry: _Entry, kind: str | None, value: str) -> _Entry:
    if kind in ("angle", "open"):
        if entry.angle is not None and "@" in entry.angle:  # two addresses without a comma between them
            entry = _split(people, entry)
        entry.angle = value
        entry.named = len(entry.pieces)
    elif kind == "quoted":
        # a quoted local part keeps its quotes until it is known whether it is one
        entry.pieces.append(f'"{value}"')
    elif kind == "word" and entry.angle is not None and decode_words(value).strip() == ",":
        return _mark(people, entry, ",")  # Python before 3.12 encodes the comma along with the next name
    else:
        entry.bare = entry.bare or (kind == "atom" and "@" in value)
        entry.pieces.append(value)
    return entry


def _split(people: list[Person], entry: _Entry) -> _Entry:
    """End the entry at its address; the words after it are the next one's."""
    following = _Entry()
    following.pieces = entry.pieces[entry.named :]
    del entry.pieces[entry.named :]
    _flush(people, entry)
    return following


def _mark(people: list[Person], entry: _Entry, mark: str) -> _Entry:
    if mark == ":":
        if entry.bare or entry.angle is not None:  # no group can begin here
            entry.pieces.append(mark)
            return entry
        return _Entry()
    _flush(people, entry)
    return _Entry()


def _comment(text: str, at: int) -> int:
    """Where a comment ends whose bracket was just read, -1 if nowhere; nested ones belong to it."""
    depth = 1
    for mark in _BRACKET.finditer(text, at, at + MAX_COMMENT):
        depth += {"(": 1, ")": -1}.get(mark[0], 0)
        if not depth:
            return mark.start()
    return -1


def _flush(people: list[Person], entry: _Entry) -> None:
    phrase = "".join(entry.pieces).strip()
    comment = " ".join(entry.comments)
    if entry.angle is not None:
        _add(people, Person(_name(phrase) or _name(comment), _cleaned(entry.angle)))
    elif entry.bare:
        _add(people, _bare(phrase, comment))
    elif phrase:
        decoded = decode_words(phrase)
        if decoded is not phrase and decoded != phrase and "@" in decoded and "=?" not in decoded:
            people.extend(parse_addresses(decoded))  # a writer that encoded the address along with the name
        elif " " in phrase or decoded != phrase:
            _add(people, Person(_name(phrase), ""))
        else:
            _add(people, Person(_name(comment), _unquoted(phrase)))


def _add(people: list[Person], person: Person) -> None:
    if person.name or person.address:
        people.append(person)


def _bare(phrase: str, comment: str) -> Person:
    """`a@b`, `a @ b`, and `Some Name a@b` whose brackets are missing."""
    words = phrase if phrase.startswith('"') else "@".join([piece.strip() for piece in phrase.split("@")])
    if words.startswith('"') and (close := words.rfind('"@')) > 0:  # "quoted local"@example.org
        return Person(_name(comment), _cleaned(words) if " " not in words[close:] else _cleaned(words.split('" ')[0]))
    split = words.split()
    at = next((index for index, word in enumerate(split) if "@" in word.strip("@")), 0)
    rest = " ".join(split[:at] + split[at + 1 :])
    return Person(_name(rest) or _name(comment), _cleaned(split[at]))


def _cleaned(address: str) -> str:
    """What stood in angle brackets: without source route, blanks outside quotes, and encoded words."""
    if "=?" in address:
        address = decode_words(address)
    if route := _ROUTE.match(address):
        address = address[route.end() :]
    if '"' not in address:
        address = _SPACES.sub("", address)
    address = address.strip()
    if address[:7].lower() == "mailto:":
        address = address[7:]
    return domain_to_unicode(address)


def _name(phrase: str) -> str:
    phrase = phrase.strip()
    if not phrase:
        return ""
    if '"' in phrase:
        phrase = _unquoted(phrase)
    if phrase[:1] == phrase[-1:] == "'" and len(phrase) > 2:
        phrase = phrase[1:-1]
    return _SPACES.sub(" ", decode_words(phrase)).strip()


_QUOTED = re.compile(r'"((?:[^"\\]|\\.){0,250}+)("?)', re.DOTALL)


def _unquoted(text: str) -> str:
    # what does not end is passed over whole, not looked at from each of its quotes
    return _QUOTED.sub(lambda found: _ESCAPED.sub(r"\1", found[1]) if found[2] else found[0], text)


def normalise_address(address: str) -> str:
    """The form under which an address is stored and compared: NFC, lower case, trimmed, domain in Unicode."""
    address = unicodedata.normalize("NFC", address.strip()).lower()
    return unicodedata.normalize("NFC", domain_to_unicode(address))


def domain_to_unicode(address: str) -> str:
    """Read the punycode labels of an address or domain; labels that are not what they would be written as stay."""
    if "xn--" not in address.lower():
        return address
    local, at, domain = address.rpartition("@")
    if len(domain) > MAX_DOMAIN:
        return address
    return local + at + ".".join(map(_unicode_label, domain.split(".")))


def _unicode_label(label: str) -> str:
    if label[:4].lower() != "xn--" or not label.isascii() or len(label) > 63:
        return label
    try:
        text = label[4:].encode("ascii").decode("punycode")
        text.encode()
    except (UnicodeError, ValueError, OverflowError):
        return label
    # another spelling of the same label, or one that hides dots and blanks, is shown as it is
    same = text.isprintable() and not _DOTS.search(text) and _ascii_label(text) == label.lower()
    return text if same else label


def domain_to_ascii(domain: str) -> str:
    """The name as it goes on the wire: NFKC, lower case, punycode labels. Source RFC 5891."""
    if domain.isascii():
        return domain
    return ".".join(map(_ascii_label, _DOTS.split(domain[:MAX_DOMAIN])))


def _ascii_label(label: str) -> str:
    label = unicodedata.normalize("NFKC", label.lower())
    return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
