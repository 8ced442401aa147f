"""Address forms <-> Address: what users type, what is displayed, and the 7-byte mailbox of wire and documents.

Rule: a text either means exactly one mailbox or is refused with an AddressError whose message is a short reason.
Nothing is guessed, because a wrong guess delivers mail to a stranger: unknown characters are errors, not skipped.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable

from qmail_core.codec import consts as c
from qmail_core.errors import AddressError, RemoteProtocolError
from qmail_core.model import Address

Lookup = Callable[[str], Address | None]

WORDS = ("bit", "byte", "kilo", "mega", "giga", "epic")  # QMail wire A.10; index = denomination code
MAX_TEXT = 512  # characters; longer than any address, short enough to keep int() and the patterns cheap
MAX_SERIAL = 0xFFFF_FFFF
MAILBOX_SIZE = 7

# QMail wire F.2. The HTTP documents use the first alphabet, the older client the second.
BASE32_HTTP = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
BASE32_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

# [0-9] and not \d: other scripts' digits pass \d and int(), and would make two texts of one address
_NUMERIC = re.compile(r"[0-9.]+(?:@[A-Za-z]*)?")
_TECHNICAL = re.compile(r"0006\.(-?[0-9]+)\.([0-9]+)")
_DIGITS = re.compile(r"[0-9]+")
_CODES = {word: code for code, word in enumerate(WORDS)}
_MAILBOX_BE = struct.Struct(">2sbI")
_MAILBOX_LE = struct.Struct("<2sbI")


def parse(
    text: str, lookup: Lookup | None = None, default_denomination: int = 1, *, allow_bare: bool = True
) -> Address:
    """Read any known form of an address.

    text                  outer blanks are ignored, words are case-insensitive
    lookup                the contacts: text -> Address or None; asked first for every text that is not plainly
                          numeric, and for the denomination of a serial number that comes without one
    default_denomination  for such a serial number when the lookup does not know it
    allow_bare            False refuses a serial number alone, such as "51"
    returns               an address with serial 1..2^32-1
    raises                AddressError with the reason
    source                QMail wire F, QMail node API "Addresses"
    """
    text = text.strip()
    if not text:
        raise AddressError("Address is empty")
    if len(text) > MAX_TEXT:
        raise AddressError(f"Address is longer than {MAX_TEXT} characters")
    if technical := _TECHNICAL.fullmatch(text):
        return _technical(*technical.groups())
    if _DIGITS.fullmatch(text):
        if not allow_bare:
            raise AddressError("Missing denomination")
        return _bare(text, lookup, default_denomination)
    if _NUMERIC.fullmatch(text):
        return _dotted(text)
    found = lookup(text) if lookup else None
    return _named(text, lookup, default_denomination) if found is None else found


def _serial(digits: str) -> int:
    return _checked(int(digits))


def _checked(serial: int) -> int:
    if serial == 0:
        raise AddressError("Serial number 0 is reserved")
    if serial > MAX_SERIAL:
        raise AddressError("Serial number must fit 32 bits")
    return serial


def _technical(denomination: str, digits: str) -> Address:
    """`0006.1.9002`. A first group written `0006` is the coin id; it never means the serial byte 6."""
    code = int(denomination)
    if not -128 <= code <= 127:
        raise AddressError("Denomination code must fit a signed byte")
    return Address(code, _serial(digits))


def _bare(digits: str, lookup: Lookup | None, default_denomination: int) -> Address:
    serial = _serial(digits)
    known = lookup(digits) if lookup else None
    # a contact merely named "9002" must not redirect mail meant for serial 9002
    if known is not None and known.serial == serial:
        return known
    return Address(default_denomination, serial)


def _dotted(text: str) -> Address:
    """`51.254@bit`, and `51.254.0` whose last group is the denomination code."""
    left, at, word = text.partition("@")
    groups = left.split(".")
    if not at:
        code = groups.pop()
        denomination = _group(code)
        if denomination > 4:
            raise AddressError("Denomination code must be 0-4")
    else:
        denomination = _denomination(word)
    serial = 0
    for group in groups:
        serial = serial << 8 | _group(group)
    if len(groups) > 3:
        raise AddressError("At most 3 serial groups are allowed")
    return Address(denomination, _checked(serial))


def _group(text: str) -> int:
    if not text:
        raise AddressError("Empty group")
    if not _DIGITS.fullmatch(text):
        raise AddressError("Serial groups must be decimal")
    value = int(text)
    if value > 255:
        raise AddressError("Group must be 0-255")
    return value


def _code(word: str) -> int | None:
    # ASCII only: lower() maps some foreign letters onto ours
    return _CODES.get(word.lower()) if word.isascii() else None


def _denomination(word: str) -> int:
    if not word:
        raise AddressError("Missing denomination")
    code = _code(word)
    if code is None:
        raise AddressError(f"Unknown denomination '{word}'")
    return code


def _named(text: str, lookup: Lookup | None, default_denomination: int) -> Address:
    """The forms with letters, after the contacts did not know the text."""
    if text.count("@") > 1:
        raise AddressError("More than one '@'")
    if "#" in text:
        return _coded(text, lookup, default_denomination)
    left, _, right = text.partition("@")
    labels = right.split(".")
    if len(labels) >= 3 and _code(labels[-1]) is not None:
        # words map to serials through lists that differ between clients (QMail wire F.1), so only contacts resolve
        # them, whatever name stands before the words
        found = lookup(f"@{right}") if lookup and left else None
        if found is not None:
            return found
        raise AddressError("unknown word address: add it to your contacts")
    if _code(right) is not None:
        return _dotted(text)
    denomination = _code(left.rpartition(".")[2])
    if denomination is not None and _DIGITS.fullmatch(right):  # JANE.SMITH.kilo@8189
        return Address(denomination, _serial(right))
    raise AddressError("Missing domain separator '#'.")


def _coded(text: str, lookup: Lookup | None, default_denomination: int) -> Address:
    """`Ada#16777216` and `First.Last@Description#C23.Giga`: all digits are decimal, anything else is base 32."""
    _, _, tail = text.partition("#")
    if "#" in tail:
        raise AddressError("More than one '#'")
    code, dot, word = tail.partition(".")
    if not code:
        raise AddressError("Missing serial number after '#'")
    decimal = _DIGITS.fullmatch(code) is not None
    if decimal and not dot:
        return _bare(code, lookup, default_denomination)
    serial = _serial(code) if decimal else _checked(_pretty(code))
    return Address(_denomination(word), serial)


def _pretty(code: str) -> int:
    """Base 32 of the pretty form: Crockford if that fits, else the HTTP alphabet (QMail wire F.2)."""
    code = _upper(code)
    return _digits32(code, BASE32_CROCKFORD if set(code) <= set(BASE32_CROCKFORD) else BASE32_HTTP)


def base32_encode(value: int, bits: int = 32) -> str:
    """Write a number in the HTTP alphabet, most significant digit first; zero is "A"."""
    if not 0 <= value < 1 << bits:
        raise AddressError(f"Serial number must fit {bits} bits")
    text = BASE32_HTTP[value & 31]
    while value := value >> 5:
        text = BASE32_HTTP[value & 31] + text
    return text


def base32_decode(text: str, bits: int = 32) -> int:
    """Read a base 32 number.

    text     HTTP alphabet, any case; the Crockford alphabet if a 0 or 1 occurs, which only that one has
    returns  0..2^bits-1
    raises   AddressError for a foreign character, no characters or a larger number
    source   QMail wire F.2
    """
    text = _upper(text)
    return _digits32(text, BASE32_CROCKFORD if "0" in text or "1" in text else BASE32_HTTP, bits)


def _upper(text: str) -> str:
    # ASCII only: upper() would turn one foreign letter into two of ours
    return text.upper() if text.isascii() else text


def _digits32(text: str, alphabet: str, bits: int = 32) -> int:
    if not text:
        raise AddressError("Missing base 32 code")
    value = 0
    for char in text:
        digit = alphabet.find(char)
        if digit < 0:
            raise AddressError(f"Invalid base 32 character '{char}'")
        value = value << 5 | digit
        if value >> bits:
            raise AddressError(f"Serial number must fit {bits} bits")
    return value


def render(address: Address) -> str:
    """Write the canonical text of an address.

    returns  dotted, leading zero groups dropped: `51.254@bit`; a serial above 3 bytes or a denomination without a word
             takes the technical form `0006.-1.42`, so that every mailbox can be shown and read back
    source   QMail wire F
    """
    if not 0 <= address.denomination < len(WORDS) or address.serial > 0xFFFFFF:
        return f"0006.{address.denomination}.{address.serial}"
    size = max(1, (address.serial.bit_length() + 7) // 8)
    return ".".join(map(str, address.serial.to_bytes(size, "big"))) + "@" + WORDS[address.denomination]


def split_list(values: Iterable[str]) -> list[str]:
    """Flatten repeated parameters, each possibly a list with `,` or `;`; blanks stripped, empty items skipped."""
    return [item for value in values for part in re.split("[,;]", value) if (item := part.strip())]


def to_mailbox(address: Address) -> bytes:
    """The 7 bytes of an address on the RAIDA wire: 00 06, DN, SN big-endian. Source QMail wire A.10."""
    return _pack(_MAILBOX_BE, address)


def from_mailbox(raw: bytes) -> Address:
    """Read the 7 wire bytes; RemoteProtocolError for another size or coin id. Source QMail wire A.10."""
    return _unpack(_MAILBOX_BE, raw)


def to_mailbox_le(address: Address) -> bytes:
    """The 7 bytes of an address in a CBDF document: 00 06, DN, SN little-endian. Source QMail wire G.1."""
    return _pack(_MAILBOX_LE, address)


def from_mailbox_le(raw: bytes) -> Address:
    """Read the 7 CBDF bytes; RemoteProtocolError for another size or coin id. Source QMail wire G.1."""
    return _unpack(_MAILBOX_LE, raw)


def _pack(layout: struct.Struct, address: Address) -> bytes:
    try:
        return layout.pack(c.COIN_ID, address.denomination, address.serial)
    except struct.error as error:
        raise AddressError(f"Mailbox out of range: {error}") from error


def _unpack(layout: struct.Struct, raw: bytes) -> Address:
    """Serial 0 and odd denominations pass: they come from peers, and only the caller knows if they matter."""
    if len(raw) != MAILBOX_SIZE:
        raise RemoteProtocolError(f"mailbox of {len(raw)} bytes instead of {MAILBOX_SIZE}")
    coin_id, denomination, serial = layout.unpack(raw)
    if coin_id != c.COIN_ID:
        raise RemoteProtocolError(f"mailbox of coin {coin_id.hex()} instead of {c.COIN_ID.hex()}")
    return Address(denomination, serial)
