"""Encoded words, addresses, dates, charsets: what the standards write and what is found in the wild."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec.mime import decode_text, normalise_address, parse_addresses
from qmail_core.codec.mime.date import END, format_date, parse_date
from qmail_core.codec.mime.header import parse_value
from qmail_core.codec.mime.mailbox import domain_to_ascii, domain_to_unicode
from qmail_core.codec.mime.thread import normal_subject
from qmail_core.codec.mime.words import header_text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"(=?ISO-8859-1?Q?a?=)", "(a)"),  # RFC 2047 8
        (b"=?ISO-8859-1?Q?a?= b", "a b"),
        (b"=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=", "ab"),
        (b"=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=", "ab"),
        (b"=?ISO-8859-1?Q?a_b?=", "a b"),
        (b"=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
        (b"=?US-ASCII*en?Q?Keith_Moore?=", "Keith Moore"),  # RFC 2231 5
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"),
        (b"=?utf-8?b?w6?= =?UTF-8?B?Q=?=", "ä"),
        (b"=?utf-8?b?w6Q?==?utf-8?b?w6Q=?=", "ää"),
        (b"a=?utf-8?q?b?=c", "abc"),
        (b"=?utf-8?q?with blanks in it?=", "with blanks in it"),
        (b"=?utf-8?q?never ends", "=?utf-8?q?never ends"),
        (b"=?utf-8?q?one =?utf-8?q?two?=", "=?utf-8?q?one two"),
        (b"=?utf-8?x?what?=", "=?utf-8?x?what?="),
        (b"=?unknown?q?=E4?=", "ä"),
        (b"=?iso-8859-1?q?=93quoted=94?=", "“quoted”"),
        (b"=?utf-8?q?a=0D=0ABcc:_x?=", "a Bcc: x"),
        (b"=?utf-8?q??=", ""),
        ("grün".encode(), "grün"),
        ("grün".encode("latin-1"), "grün"),
        (b"a\0b\x07c", "abc"),
        (b"folded\r\n\tline", "folded line"),
    ],
)
def test_header_texts(raw: bytes, text: str) -> None:
    assert header_text(raw) == text


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("a@b.org", [("", "a@b.org")]),
        ("<a@b.org>", [("", "a@b.org")]),
        ("A B <a@b.org>", [("A B", "a@b.org")]),
        ('"B, A" <a@b.org>, c@d.org', [("B, A", "a@b.org"), ("", "c@d.org")]),
        ('"a \\"q\\" b" <a@b.org>', [('a "q" b', "a@b.org")]),
        ("a@b.org (A (nested) B)", [("A (nested) B", "a@b.org")]),
        ("A (c) <a@b.org>", [("A", "a@b.org")]),
        ("a@b.org (never closed, c@d.org", [("never closed", "a@b.org"), ("", "c@d.org")]),
        ("team: a@b.org, C <c@d.org>; e@f.org", [("", "a@b.org"), ("C", "c@d.org"), ("", "e@f.org")]),
        ("undisclosed-recipients:;", []),
        ("A B a@b.org", [("A B", "a@b.org")]),
        ("a @ b.org", [("", "a@b.org")]),
        ("< a@b.org >", [("", "a@b.org")]),
        ("A <a@b.org", [("A", "a@b.org")]),
        ("<@relay.org,@two.org:a@b.org>", [("", "a@b.org")]),
        ('"john doe"@b.org', [("", '"john doe"@b.org')]),
        ('<"john > doe"@b.org>', [("", '"john > doe"@b.org')]),
        ("a@b.org; c@d.org", [("", "a@b.org"), ("", "c@d.org")]),
        ("A <a@b.org> C <c@d.org>", [("A", "a@b.org"), ("C", "c@d.org")]),
        ("'Quoted' <a@b.org>", [("Quoted", "a@b.org")]),
        ("=?utf-8?q?M=C3=BCller=2C_A?= <a@b.org>", [("Müller, A", "a@b.org")]),
        ("=?utf-8?q?M=C3=BCller, A?= <a@b.org>", [("Müller, A", "a@b.org")]),
        ('"=?utf-8?q?M=C3=BCller?=" <a@b.org>', [("Müller", "a@b.org")]),
        ("=?utf-8?q?A_=3Ca=40b=2Eorg=3E?=", [("A", "a@b.org")]),
        ("A <a@b.org>=?utf-8?q?=2C?= C <c@d.org>", [("A", "a@b.org"), ("C", "c@d.org")]),
        ("A <a@xn--mnchen-3ya.de>", [("A", "a@münchen.de")]),
        ("用户@例子.中国", [("", "用户@例子.中国")]),
        ("MAILER-DAEMON", [("", "MAILER-DAEMON")]),
        ("Only A Name", [("Only A Name", "")]),
        ("mailto:a@b.org", [("", "a@b.org")]),
        ("<=?utf-8?q?a=40b.org?=>", [("", "a@b.org")]),
        ("A <a@xn--" + "b." * 150 + "org>", [("A", "a@xn--" + "b." * 150 + "org")]),
        ("<mailto:a@b.org>", [("", "a@b.org")]),
        ('"never closed <a@b.org>', [("never closed", "a@b.org")]),
        (",, ;,", []),
        ("", []),
        ("<>", []),
        ('""', []),
        ('" " <>', []),
        ('"" (c) <a@b.org>', [("c", "a@b.org")]),
    ],
)
def test_address_lists(text: str, people: list[tuple[str, str]]) -> None:
    assert [
        (one.name.strip('"'), one.address) if "never" in text else (one.name, one.address)
        for one in parse_addresses(text)
    ] == people


@given(st.text(alphabet='a@<>(),:;"\\ =?', max_size=40) | st.text(max_size=40))
def test_any_text_is_an_address_list(text: str) -> None:
    for person in parse_addresses(text):
        assert person.name or person.address


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        (" A.B@Example.ORG ", "a.b@example.org"),
        ("a@XN--MNCHEN-3YA.de", "a@münchen.de"),
        ("a@mu\u0308nchen.de", "a@münchen.de"),
        ("a@xn--a.org", "a@xn--a.org"),  # not what anybody would write for it
        ("a@xn--" + "9" * 50 + ".org", "a@xn--" + "9" * 50 + ".org"),
        ("a@xn--ls8h.la", "a@💩.la"),
    ],
)
def test_addresses_have_one_form(address: str, normal: str) -> None:
    assert normalise_address(address) == normal
    assert normalise_address(normal) == normal


@given(st.from_regex(r"[a-zäöüßшд中]{1,12}(\.[a-zé]{2,5}){1,2}", fullmatch=True))
def test_domains_come_back_from_punycode(domain: str) -> None:
    plain = domain_to_ascii(domain)
    assert plain.isascii()
    assert domain_to_unicode(plain) == domain


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("Fri, 21 Nov 1997 09:55:06 -0600", 880127706),
        ("21 Nov 97 09:55:06 CST", 880127706),
        ("Fri, 21 Nov 1997 15:55:06 (Zulu)", 880127706),
        ("Fri, 21 Nov 1997 15:55:06 GMT+0000 (GMT)", 880127706),
        ("Friday, 21-Nov-97 15:55:06 GMT", 880127706),
        ("Fri Nov 21 15:55:06 1997", 880127706),
        ("Fri Nov 21 15:55:06 UTC 1997", 880127706),
        ("1997-11-21T15:55:06.123Z", 880127706),
        ("21 Nov 1997 15:55", 880127700),
        ("21 Nov 1997 15.55.06 +0000", 880127706),
        ("31 Feb 2020 00:00:00 +0000", None),
        ("1 Jan 1960 00:00:00 +0000", None),
        ("1 Xyz 2000 00:00:00 +0000", None),
        ("1 Jan 2000 99:00:00 +0000", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates(text: str, when: int | None) -> None:
    assert parse_date(text) == when


@given(st.integers(0, END - 1))
def test_dates_come_back(when: int) -> None:
    assert parse_date(format_date(when)) == when


@pytest.mark.parametrize(
    ("raw", "label", "text"),
    [
        (b"\x93a\x94", "iso-8859-1", "“a”"),
        (b"\x81", "windows-1252", "\x81"),
        (b"\xc3\xa4", "us-ascii", "ä"),
        (b"\xc3\xa4", "iso-8859-1", "Ã¤"),
        (b"\xc3\xa4\xff", "utf-8", "ä\ufffd"),
        (b"\xc4\xe3", "GB2312", "你"),
        (b"\xb0\xa1", '"KS_C_5601-1987"', "가"),
        (b"\x82\xa0", "x-sjis", "あ"),
        (b'\x1b$B$"\x1b(B', "ISO-2022-JP", "あ"),
        (b"+AOQ-", "UTF-7", "ä"),
        (b"+2AA-", "unicode-1-1-utf-7", "\ufffd"),
        (b"\xef\xbb\xbfa", "utf8", "a"),
        (b"\xe4", "no-such", "ä"),
        (b"+AOQ-", "rot13", "+AOQ-"),
        (b"x\x9c", "zlib", "xœ"),
        (b"\\u00e4", "unicode_escape", "\\u00e4"),
    ],
)
def test_charsets(raw: bytes, label: str, text: str) -> None:
    assert decode_text(raw, label) == text


@given(
    st.binary(max_size=50), st.sampled_from(["utf-7", "utf-16", "gb2312", "iso-2022-jp", "hz", "big5", "cp864", "x"])
)
def test_whatever_the_bytes_the_text_can_be_stored(raw: bytes, label: str) -> None:
    assert "\0" not in decode_text(raw, label).encode().decode()


@pytest.mark.parametrize(
    ("raw", "kind", "params"),
    [
        (b"Text/Plain; CharSet=UTF-8", "text/plain", {"charset": "UTF-8"}),
        (b"text/plain; charset=us-ascii (Plain text)", "text/plain", {"charset": "us-ascii"}),
        (b'text/plain; a="x;y"; b = c ;; d', "text/plain", {"a": "x;y", "b": "c"}),
        (b'text/plain; a="not closed', "text/plain", {"a": "not closed"}),
        (b"text/plain; a=b; a=c", "text/plain", {"a": "b"}),
        (b'a/b; x="q\\"q\\\\"', "a/b", {"x": 'q"q\\'}),
        (b"", "", {}),
        (b"; a=b", "", {"a": "b"}),
        (b"a/b; x*0=1; x*1=2; x*2=3", "a/b", {"x": "123"}),
        (b"a/b; x*=no-quotes%41", "a/b", {"x": "no-quotesA"}),
    ],
)
def test_parameters(raw: bytes, kind: str, params: dict[str, str]) -> None:
    assert parse_value(raw) == (kind, params)


_HALF_QUOTED = '<\\"' * 49 + '""'  # whatever bracket one begins with, the others stand within quotes


@pytest.mark.parametrize(
    "text",
    [
        "a" + " " * 1_000_000 + "b",
        "a" + " '" * 500_000,
        _HALF_QUOTED * 900,
        '\\"' * 64_000,
        "(" * 128_000,
        "<a" * 64_000,
        '<"' * 64_000,
        "<" + '"a"' * 40_000,
    ],
)
def test_broken_address_lists_are_read_once(text: str) -> None:
    """None of these may take more than a few steps a character."""
    assert len(parse_addresses(text)) < 1000


def test_what_never_ends_hides_nothing() -> None:
    odd = '"' + "," * 300
    assert parse_addresses(odd * 20 + " <a@b.example>")[-1].address == "a@b.example"
    assert parse_addresses("(" * 50 + ", a@b.example")[-1].address == "a@b.example"


def test_words_after_many_forwards_stay() -> None:
    assert normal_subject("s (fwd)(FWD) (fwd)") == "s"
    assert normal_subject("(fwd)") == ""
    assert normal_subject("a (fwd) b(fwd)") == "a (fwd) b"
    assert normal_subject("(fwd)" * 400_000 + "x(fwd)").endswith(")x")
