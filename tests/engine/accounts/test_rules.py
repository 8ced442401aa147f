"""The one form of an address, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmail_core.codec.mime.mailbox import domain_to_ascii, domain_to_unicode
from qmail_core.engine.accounts.rules import Faults, normal_address, normal_ip
from qmail_core.errors import InputInvalid

ADDRESSES = st.one_of(
    st.text(max_size=30),
    st.builds("{}@{}.{}".format, st.text(max_size=8), st.text(max_size=8), st.text(max_size=8)),
    st.builds("a@xn--{}".format, st.text("abc019-", max_size=12)),
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ada@Example.ORG", "ada@example.org"),
        (" ada@example.org\n", "ada@example.org"),
        ("ada@localhost", "ada@localhost"),
        ("андрис@уайлддак.орг", "андрис@уайлддак.орг"),
        ("АНДРИС@xn--80aalaxjd5d.xn--c1avg", "андрис@уайлддак.орг"),
        ("u\u0308ber@example.org", "über@example.org"),
        ("a.b+c@example.org", "a.b+c@example.org"),
        ("o'neil@example.org", "o'neil@example.org"),
        ("user@हिन्दी.भारत", "user@हिन्दी.भारत"),
        ("ada@ﬁrst.example", "ada@first.example"),
        ("ada@ＥＸＡＭＰＬＥ.org", "ada@example.org"),
    ],
)
def test_addresses_have_one_form(text: str, normal: str) -> None:
    assert normal_address(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "", "ada", "@example.org", "ada@", "ada@.org", "ada@example..org", "ada@-x.org", "ada@x-.org", "a b@x.org",
        "a\0b@x.org", ".a@x.org", "a.@x.org", "a..b@x.org", "a@b@x.org", "*@x.org", "a@x_y.org", "a@x。org",
        "a@x y.org", "a@[127.0.0.1]", "a@x.org,b@x.org", "<a@x.org>", "a@" + "x" * 64 + ".org", "x" * 65 + "@x.org",
        "a@" + ".".join(["x" * 60] * 5), "51.254@bit", "51.254@BYTE", "a@xn--abc-", "a@xn--99999999", "a@xn--",
        "a\u200b@x.org", "\ud800@x.org",
        # what these are on the wire has other labels, or none
        "x@evil⒈com", "x@a＠b.com", "x@a.com＞b", "x@a¨b.com", "x@℀.com", "x@…com", "x@a．com", "51.254@ｂit",
        "a@xn--rst-bo3s.example", "a@" + "ﷺ" * 60 + ".org",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    assert normal_address(text) is None


@given(ADDRESSES)
@example("a@xn--xn--abc--ud4b")
@example("İ@x.org")
@example("a@İ.org")
def test_the_one_form_is_its_own(text: str) -> None:
    normal = normal_address(text)
    if normal is not None:
        assert normal_address(normal) == normal
        assert normal.count("@") == 1
        domain = normal.rpartition("@")[2]
        assert domain_to_unicode(domain_to_ascii(domain)) == domain  # nothing is another domain on the wire


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.0/24", None),
        ("192.0.2.01", None),
        ("host", None),
    ],
)
def test_places_have_one_form(text: str, normal: str | None) -> None:
    assert normal_ip(text) == normal


@pytest.mark.parametrize("name", ["a", "ada.lovelace", "a-b", "a=b", "a:b_c", "1", "x" * 128])
def test_usernames(name: str) -> None:
    faults = Faults()
    assert faults.username(f" {name.upper()} ") == name
    faults.settle()


@pytest.mark.parametrize("name", ["", "a..b", ".a", "a@b", "a b", "ä", "x" * 129, "a\n", "a/b"])
def test_what_is_no_username(name: str) -> None:
    faults = Faults()
    faults.username(name)
    if name.strip() != "a":
        with pytest.raises(InputInvalid):
            faults.settle()
