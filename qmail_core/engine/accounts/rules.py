"""What parameters must look like, and the one form of an address that all its spellings come to.

A `Faults` collects every broken rule and raises once. Its sentences are those of the mailbox API and show no value.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Sequence

from qmail_core.codec.address import WORDS
from qmail_core.errors import InputInvalid

MAX_NUMBER = 2**53 - 1  # JSON's
_USERNAME = re.compile(r"[a-z0-9-]+(?:[._=:][a-z0-9-]+)*")
_SPECIAL = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_LOCAL = frozenset("!#$%&'+-/=?^_`{|}~.")  # RFC 5322's, without the asterisk, which is everybody
_DOTS = frozenset("。．｡")  # taken for dots by browsers
_ACE = "xn--"


class Faults:
    """Rules that were broken, by parameter."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def add(self, name: str, text: str) -> None:
        """One more; the first of each parameter stays."""
        self._found.setdefault(name, f'"{name}" {text}')

    def settle(self) -> None:
        """Raise InputInvalid if there is any."""
        if self._found:
            raise InputInvalid(self._found)

    # ------------------------------------------------------------------ rules
    def text(self, name: str, value: str, *, least: int = 0, most: int = 256) -> None:
        """So many characters."""
        if least and not value:
            self.add(name, "is not allowed to be empty")
        elif len(value) < least:
            self.add(name, f"length must be at least {least} characters long")
        elif len(value) > most:
            self.add(name, f"length must be less than or equal to {most} characters long")

    def number(self, name: str, value: int) -> None:
        """A size, a count, a time."""
        if value < 0:
            self.add(name, "must be greater than or equal to 0")
        elif value > MAX_NUMBER:
            self.add(name, "must be a safe number")

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def username(self, value: str) -> str:
        """A username in its one form."""
        name = value.strip().lower()
        self.text("username", name, least=1, most=128)
        if not _USERNAME.fullmatch(name):
            self.add("username", "must only contain letters and numbers, and single . - _ = : between them")
        return name

    def language(self, value: str) -> str:
        """A language code in lower case."""
        self.text("language", value, least=2, most=20)
        return value.lower()

    def address(self, name: str, value: str, *, plus: bool = False) -> str:
        """An address in its one form; one with a label (`plus`) is somebody's already."""
        address = normal_address(value)
        if address is None:
            self.add(name, "must be a valid email")
        elif "+" in address.partition("@")[0] and not plus:
            self._found.setdefault(name, "Address can not contain +")
        return address or ""

    def among(self, name: str, value: str, allowed: Iterable[str]) -> None:
        """One of some words."""
        words = list(allowed)
        if value not in words:
            self.add(name, f"must be one of [{', '.join(words)}]")

    def scopes(self, values: Sequence[str], allowed: Sequence[str]) -> None:
        """Some of some words, none twice."""
        if not values:
            self.add("scopes", "must contain at least 1 items")
        if len(set(values)) < len(values):
            self.add("scopes", "contains a duplicate value")
        for value in values:
            self.among("scopes", value, allowed)


def normal_ip(value: str) -> str | None:
    """An IP address as it is written shortest; None if it is none."""
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def normal_address(text: str) -> str | None:
    """The one form of an address: NFC, lower case, no blanks around it, no punycode; None if it is no address.

    The domain words of QMail addresses mean mailboxes of the network, so nobody is given an address below one of them.
    """
    text = _fold(text.strip())
    local, at, domain = text.rpartition("@")
    if not at or len(text) > 254 or not _is_local(local):
        return None
    found = normal_domain(domain)
    return f"{local}@{found}" if found and len(local) + len(found) < 254 else None


def normal_domain(text: str) -> str | None:
    """The one form of the domain of an address, as there; None if addresses cannot have it.

    Its labels are in the form that goes on the wire (NFKC, RFC 5891): else `a⒈b` were seen here and `a1.b` written to.
    """
    labels = [_wide(_decode(label)) for label in _fold(text).split(".")]
    found = ".".join(labels)
    return found if found not in WORDS and all(map(_is_label, labels)) else None


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _wide(text: str) -> str:
    """What compatibility makes of a text: ligatures and wide letters are others, and some signs are several."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())


def _is_local(local: str) -> bool:
    if not local or len(local.encode("utf-8", "surrogatepass")) > 64 or local != local.strip(".") or ".." in local:
        return False
    return all((sign not in _SPECIAL or sign in _LOCAL) and _visible(sign) for sign in local)


def _is_label(label: str) -> bool:
    if not 1 <= len(label) <= 63 or label != label.strip("-") or label.startswith(_ACE):
        return False
    return all((sign not in _SPECIAL or sign == "-") and sign not in _DOTS and _visible(sign) for sign in label)


def _visible(sign: str) -> bool:
    """Neither control nor blank nor half of a character."""
    return unicodedata.category(sign)[0] not in "CZ"


def _decode(label: str) -> str:
    """A label out of punycode; one that cannot be is left as it is, which is not a label."""
    if not label.startswith(_ACE) or not label.isascii() or len(label) > 63:
        return label
    try:
        decoded = _fold(label[len(_ACE) :].encode().decode("punycode"))
    except ValueError:
        return label
    return label if decoded.isascii() or decoded != _wide(decoded) else decoded
