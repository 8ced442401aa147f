"""Address forms: the accept and reject matrix of QMail wire F, the older forms, and the 7-byte mailboxes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec import address as codec
from qmail_core.codec.address import parse, render
from qmail_core.errors import AddressError, RemoteProtocolError
from qmail_core.model import Address

BIT, BYTE, KILO, MEGA, GIGA, EPIC = range(6)

serials = st.integers(1, 0xFFFF_FFFF)
addresses = st.builds(Address, st.integers(-128, 127), serials)


def nobody(text: str) -> Address | None:
    return None


@pytest.mark.parametrize(
    ("serial", "denomination", "text"),
    [
        (0x0033FE, BIT, "51.254@bit"),
        (0x0100FE, GIGA, "1.0.254@giga"),
        (0x0000FE, BYTE, "254@byte"),
        (0xFFFFFF, GIGA, "255.255.255@giga"),
        (0x010000, KILO, "1.0.0@kilo"),
        (0x000105, EPIC, "1.5@epic"),
    ],
)
def test_canonical_form_both_ways(serial: int, denomination: int, text: str) -> None:
    assert parse(text) == Address(denomination, serial)
    assert render(Address(denomination, serial)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.51.254.0", Address(BIT, 0x33FE)),
        ("51.254.0", Address(BIT, 0x33FE)),
        ("0.0.254.1", Address(BYTE, 254)),
        ("1.2.3.4", Address(GIGA, 0x010203)),
        ("51.254@BIT", Address(BIT, 0x33FE)),
        ("051.254@bit", Address(BIT, 0x33FE)),
        ("  51.254@bit ", Address(BIT, 0x33FE)),
        ("0006.1.9002", Address(BYTE, 9002)),
        ("0006.-8.3", Address(-8, 3)),
        ("6.1.2", Address(KILO, 0x0601)),
        ("9002", Address(BYTE, 9002)),
        ("4294967295", Address(BYTE, 0xFFFF_FFFF)),
        ("Sean#16777216", Address(BYTE, 16777216)),
        ("Sean.W@CEO#16777216.Giga", Address(GIGA, 16777216)),
        ("Sean.Worthington@CEO#C23.Giga", Address(GIGA, 12355)),
        ("a.b@c#8sa.mega", Address(MEGA, 9002)),
        ("Jerry.Doe@myOrg#FUV.Giga", Address(GIGA, 5 * 1024 + 18 * 32 + 19)),
        ("JANE.SMITH.kilo@8189", Address(KILO, 8189)),
    ],
)
def test_accepted_forms(text: str, expected: Address) -> None:
    assert parse(text) == expected
    assert parse(text, nobody) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Address is empty"),
        ("  ", "Address is empty"),
        ("9" * 600, "Address is longer than 512 characters"),
        ("9" * 500, "Serial number must fit 32 bits"),
        ("0.0.0.0", "Serial number 0 is reserved"),
        ("0@bit", "Serial number 0 is reserved"),
        ("0", "Serial number 0 is reserved"),
        ("x#0", "Serial number 0 is reserved"),
        ("a.b@c#00.giga", "Serial number 0 is reserved"),
        ("51.254.255", "Denomination code must be 0-4"),
        ("51.254.5", "Denomination code must be 0-4"),
        ("51.254@deci", "Unknown denomination 'deci'"),
        ("51.254@", "Missing denomination"),
        ("256.1.1.0", "Group must be 0-255"),
        ("abc.def@bit", "Serial groups must be decimal"),
        ("51..254@bit", "Empty group"),
        ("51.254@tera", "Unknown denomination 'tera'"),
        ("-1.2@bit", "Serial groups must be decimal"),
        ("51. 254@bit", "Serial groups must be decimal"),
        ("Sean@Founder|73F.Giga", "Missing domain separator '#'."),
        ("Giga~Org.First.Last#8D2P", "Missing denomination"),
        ("51.254.0.", "Empty group"),
        (".", "Empty group"),
        ("@bit", "Empty group"),
        ("1.2.3.4.0", "At most 3 serial groups are allowed"),
        ("1.2.3.4@bit", "At most 3 serial groups are allowed"),
        ("@51.254@bit", "More than one '@'"),
        ("51.254@bit@bit", "More than one '@'"),
        ("billy.jenkins@hotdog", "Missing domain separator '#'."),
        ("billy", "Missing domain separator '#'."),
        ("billy.jenkins@8189", "Missing domain separator '#'."),
        ("a.b@c#", "Missing serial number after '#'"),
        ("a.b@c#C23", "Missing denomination"),
        ("a.b@c#C23.deci", "Unknown denomination 'deci'"),
        ("a#b#1", "More than one '#'"),
        ("a.b@c#C!3.giga", "Invalid base 32 character '!'"),
        ("a.b@c#U01.giga", "Invalid base 32 character '0'"),
        ("a.b@c#\N{LATIN SMALL LETTER SHARP S}.giga", "Invalid base 32 character '\N{LATIN SMALL LETTER SHARP S}'"),
        ("a.b@c#C23.\N{KELVIN SIGN}ilo", "Unknown denomination '\N{KELVIN SIGN}ilo'"),
        ("a.b@c#ZZZZZZZZ.giga", "Serial number must fit 32 bits"),
        ("0006.128.1", "Denomination code must fit a signed byte"),
        ("0006.1.0", "Serial number 0 is reserved"),
        ("\N{ARABIC-INDIC DIGIT NINE}@bit", "Serial groups must be decimal"),
        ("@chariot.harbor.byte", "unknown word address: add it to your contacts"),
        ("Ada@1.silk.square.kilo", "unknown word address: add it to your contacts"),
    ],
)
def test_refused_texts_name_the_reason(text: str, reason: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse(text, nobody)
    assert caught.value.message == reason


def test_bare_serial_can_be_refused() -> None:
    with pytest.raises(AddressError, match="Missing denomination"):
        parse("51", allow_bare=False)


def test_default_denomination_is_used_only_without_contact() -> None:
    contacts = {"9002": Address(GIGA, 9002), "16777216": Address(MEGA, 16777216)}
    assert parse("9002", contacts.get, KILO) == Address(GIGA, 9002)
    assert parse("Sean#16777216", contacts.get, KILO) == Address(MEGA, 16777216)
    assert parse("9003", contacts.get, KILO) == Address(KILO, 9003)


def test_contact_named_like_a_serial_does_not_redirect_it() -> None:
    assert parse("9002", {"9002": Address(GIGA, 1)}.get) == Address(BYTE, 9002)


def test_contacts_resolve_words_and_names_first() -> None:
    contacts = {"@chariot.harbor.byte": Address(BYTE, 55077), "mum": Address(KILO, 7), "a#C23.giga": Address(BIT, 1)}
    for text, expected in contacts.items():
        assert parse(text, contacts.get) == expected


def test_words_are_resolved_whatever_name_stands_before_them() -> None:
    contacts = {
        "@chariot.harbor.byte": Address(BYTE, 55077),
        "ann@chariot.harbor.byte": Address(KILO, 7),
        "@byte": Address(BIT, 1),
    }
    assert parse("Bob@chariot.harbor.byte", contacts.get) == Address(BYTE, 55077)
    assert parse("ann@chariot.harbor.byte", contacts.get) == Address(KILO, 7)
    for text in ("Bob@chariot.harbor.kilo", "Bob@chariot.harbor", "Bob@byte", "Bob@x@chariot.harbor.byte"):
        with pytest.raises(AddressError):
            parse(text, contacts.get)


def test_plainly_numeric_texts_never_ask_the_contacts() -> None:
    def forbidden(text: str) -> Address | None:
        raise AssertionError(text)

    for text in ("51.254@bit", "51.254.0", "0006.1.9002"):
        parse(text, forbidden)


@given(st.integers(0, 5), st.integers(1, 0xFF_FFFF))
def test_render_then_parse(denomination: int, serial: int) -> None:
    address = Address(denomination, serial)
    assert parse(render(address)) == address


@given(st.integers(-128, 127).filter(lambda code: not 0 <= code <= 5), serials)
def test_render_without_word_then_parse(denomination: int, serial: int) -> None:
    address = Address(denomination, serial)
    assert parse(render(address)) == address


def test_large_serial_shows_four_groups() -> None:
    assert render(Address(BYTE, 16777216)) == "0006.1.16777216"


@given(st.text() | st.from_regex(r"[0-9A-Za-z.@#-]{0,12}(bit|giga|#[0-9A-Z]{1,8}\.kilo)?", fullmatch=True))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    with suppress(AddressError):
        assert 1 <= parse(text).serial <= 0xFFFF_FFFF


@given(st.integers(0, 0xFFFF_FFFF))
def test_base32_both_ways(value: int) -> None:
    assert codec.base32_decode(codec.base32_encode(value).lower()) == value


def test_base32_known_values() -> None:
    assert codec.base32_decode("FVH") == 5735
    assert codec.base32_encode(5735) == "FVH"
    assert codec.base32_encode(0) == "A"
    assert codec.base32_decode("10") == 32


@pytest.mark.parametrize("text", ["", "I", "0U", "ZZZZZZZZ", "\N{LATIN SMALL LETTER SHARP S}"])
def test_base32_refuses(text: str) -> None:
    with pytest.raises(AddressError):
        codec.base32_decode(text)


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_base32_encode_range(value: int) -> None:
    with pytest.raises(AddressError):
        codec.base32_encode(value)


def test_split_list() -> None:
    assert codec.split_list(["a, b;c", "", " ; ", "d"]) == ["a", "b", "c", "d"]


def test_mailbox_bytes() -> None:
    address = Address(BYTE, 42)
    assert codec.to_mailbox(address) == bytes.fromhex("0006010000002a")
    assert codec.to_mailbox_le(address) == bytes.fromhex("0006012a000000")


@given(addresses)
def test_mailbox_both_ways(address: Address) -> None:
    assert codec.from_mailbox(codec.to_mailbox(address)) == address
    assert codec.from_mailbox_le(codec.to_mailbox_le(address)) == address


@pytest.mark.parametrize("address", [Address(128, 1), Address(0, 1 << 32), Address(0, -1)])
def test_mailbox_out_of_range(address: Address) -> None:
    with pytest.raises(AddressError, match="Mailbox out of range"):
        codec.to_mailbox(address)


@pytest.mark.parametrize("raw", ["", "000601000000", "0006010000002a00", "0007010000002a"])
def test_mailbox_malformed(raw: str) -> None:
    for read in (codec.from_mailbox, codec.from_mailbox_le):
        with pytest.raises(RemoteProtocolError, match="mailbox of"):
            read(bytes.fromhex(raw))
