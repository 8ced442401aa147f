"""HTML and text: previews, search text, links to inline images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmail_core.codec.mime import html_to_text, intro, link_cids, text_to_html
from qmail_core.codec.mime.html import INTRO


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("one<br>two<BR/>three", "one\ntwo\nthree"),
        ("<div>one <b>two</b>\n three</div>", "one two three"),
        ("<ul><li>a</li><li>b</li></ul>", "* a\n* b"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("<head><title>t</title><style>p{}</style></head><body>x<script>if (a<b) y()</script>z", "xz"),
        ("<script>never closed", ""),
        ("<title>never closed", "never closed"),
        ("a<!-- > <p> -->b", "ab"),
        ("a<!-- never closed", "a never closed"),
        ('<img alt="a > b">text', "text"),
        ('<img alt="never closed>text', "text"),
        ("a &lt;b&gt; &amp; &#228;&nbsp;&nope; &#99999999999999;", "a <b> & ä &nope; \ufffd"),
        ("1 < 2 <3 and a<", "1 < 2 <3 and a<"),
        ("<!DOCTYPE html><?xml ?>x", "x"),
        ("", ""),
    ],
)
def test_html_to_text(source: str, text: str) -> None:
    assert html_to_text(source) == text


def test_html_to_text_stops_at_its_limit() -> None:
    assert len(html_to_text("<p>word</p>" * 1000, 100)) < 200


@given(st.text("<>a\"'!-/ &#;9bscript\n", max_size=80))
def test_any_html_is_text(source: str) -> None:
    html_to_text(source).encode()


@given(st.text(max_size=100))
def test_plain_text_comes_back_from_html(text: str) -> None:
    assert html_to_text(text_to_html(text)).split() == text.replace("\0", "").split() or not text.isprintable()


def test_plain_text_as_html() -> None:
    made = text_to_html("a <b>\nhttps://example.org/?a=1&b=2\n\nnext")
    link = "https://example.org/?a=1&amp;b=2"
    assert made == f'<p>a &lt;b&gt;<br/>\n<a href="{link}">{link}</a></p>\n<p>next</p>'


@pytest.mark.parametrize(
    ("text", "sources", "first"),
    [
        ("  hello\n\n world ", (), "hello world"),
        ("", ("<p>hello</p>", "world"), "hello world"),
        ("text", ("<p>page</p>",), "text"),
        ("word " * 40, (), "word " * 25 + "…"),
        ("x" * 200, (), "x" * 127 + "…"),
        ("x" * 128, (), "x" * 128),
        ("preheader" + "\u200c\u00a0\u034f " * 60 + "text", (), "preheader text"),
        ("", (), ""),
    ],
)
def test_intro(text: str, sources: tuple[str, ...], first: str) -> None:
    assert intro(text, sources) == (first.replace(" …", "…") if first.endswith("…") else first)


@given(st.text(max_size=400))
def test_an_intro_is_one_short_line(text: str) -> None:
    assert len(intro(text)) <= INTRO
    assert len(intro(text).splitlines()) <= 1


def test_links_to_inline_images() -> None:
    page = "<img src='cid:a@b'><img src=CID:c%40d><a href=\"cid:unknown\">incid:a@b</a>"
    linked = link_cids(page, {"a@b": "ATT00001", "c@d": "ATT00002"}, lambda found: f"/get?a=1&id={found}")
    assert linked.used == ("ATT00001", "ATT00002")
    assert linked.html == (
        "<img src='/get?a=1&amp;id=ATT00001'><img src=/get?a=1&amp;id=ATT00002><a href=\"cid:unknown\">incid:a@b</a>"
    )


@pytest.mark.parametrize(
    ("source", "end"),
    [
        ("<" + "a" * 2_000_000, "a"),  # a name whose tag never ends
        ("<" + "a/" * 1_000_000, "/"),
        ("<script>" + "</script " * 200_000, ""),  # ends of tags that never end themselves
        ("<title>" + "</title/" * 200_000, "/"),
        ("<a " * 500_000, " "),
    ],
)
def test_broken_html_is_read_once(source: str, end: str) -> None:
    """None of these would end within the time a test has, were anything searched for again and again."""
    assert html_to_text(source).endswith(end.strip())
