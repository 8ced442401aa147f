"""HTML <-> plain text, as much as a preview, a search index and a quoted body need.

Rule: linear time and no errors, whatever the HTML is; this is no sanitiser, and its text is shown as text only.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable

from msgspec import Struct

INTRO = 128  # characters, the ellipsis included
_LOOK = 4096  # characters of text an intro is looked for in

_TAG = re.compile(r"<(?:(/?)([A-Za-z][^\s/<>]*+)([^<>]*+)>|(!--)|[!?/][^<>]*+>)")
_HUGE = re.compile(r"&#(?:\d{8,}|[xX][0-9a-fA-F]{7,});?")
_SPACES = re.compile(r"[ \t\r\n\f\xa0]+")
_GAPS = re.compile(r"\n{3,}")
_INVISIBLE = re.compile("(?:[\u00ad\u034f\u061c\u180e\u200b-\u200f\u2007\u2060\ufeff]\\s*+){3,}")
_HIDDEN = {name: re.compile(rf"</{name}(?=[\s/>])", re.I) for name in ("script", "style", "title", "template")}
_WORD = re.compile(r"\w+")
_LINES = frozenset(
    _WORD.findall(
        "address article aside blockquote body br dd div dl dt fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr"
        " html li main nav ol option p pre section table tbody tfoot thead tr ul"
    )
)
_PARAGRAPHS = frozenset(_WORD.findall("blockquote dl h1 h2 h3 h4 h5 h6 ol p pre table ul"))
_LINK = re.compile(r"\b(https?://[^\s<>&\"']++(?:&amp;[^\s<>&\"']++)*+)")
_CID = re.compile(r"\bcid:([^\s\"'<>)]{1,1000})", re.I)


def html_to_text(source: str, limit: int = 1 << 30) -> str:
    """The readable text of an HTML document.

    limit    stop once about so many characters are made
    returns  lines without blanks at their ends; paragraphs are one empty line apart
    """
    out: list[str] = []
    size = 0
    at = 0
    gone: set[str] = set()  # what was searched for to the end in vain, and need not be again
    while size < limit:
        tag = _TAG.search(source, at)
        if tag is None:
            break
        if tag.start() > at:
            out.append(_inline(source[at : tag.start()]))
            size += len(out[-1])
        at = _after(source, tag, gone)
        out.append(_break(tag))
    else:
        return _tidied("".join(out))
    out.append(_inline(source[at:]))
    return _tidied("".join(out))


def _inline(text: str) -> str:
    if "&" in text:
        text = html.unescape(_HUGE.sub("\ufffd", text))
    return _SPACES.sub(" ", text)


def _break(tag: re.Match[str]) -> str:
    name = (tag[2] or "").lower()
    if name not in _LINES:
        return " " if name in ("td", "th") else ""
    if name == "li":
        return "" if tag[1] else "\n* "
    return "\n\n" if name in _PARAGRAPHS else "\n"


def _after(source: str, tag: re.Match[str], gone: set[str]) -> int:
    """Where reading goes on: behind comments, scripts, and a `>` within quotes."""
    if tag[4]:
        return _find(source, "-->", tag.end(), gone)
    name = (tag[2] or "").lower()
    end = tag.end()
    if name and tag[3].count('"') & 1 and '"' not in gone:
        quote = source.find('"', end)
        if quote < 0:
            gone.add('"')
        elif (close := source.find(">", quote)) >= 0:
            end = close + 1
    if name in _HIDDEN and not tag[1] and name not in gone:
        closing = _HIDDEN[name].search(source, end)
        if closing and (close := source.find(">", closing.end())) >= 0:
            return close + 1
        gone.add(name)
        return len(source) if name in ("script", "style") else end
    return end


def _find(source: str, what: str, at: int, gone: set[str]) -> int:
    found = -1 if what in gone else source.find(what, at)
    if found < 0:
        gone.add(what)
        return at
    return found + len(what)


def _tidied(text: str) -> str:
    lines = [" ".join(line.split()) for line in _INVISIBLE.sub("", text).split("\n")]
    return _GAPS.sub("\n\n", "\n".join(lines).replace("\0", "")).strip()


def text_to_html(text: str) -> str:
    """Plain text as HTML: escaped, links clickable, lines kept."""
    escaped = html.escape(text.strip("\n"), quote=False)
    linked = _LINK.sub(r'<a href="\1">\1</a>', escaped) if "http" in escaped else escaped
    paragraphs = re.split(r"\n\n+", linked)
    return "\n".join(["<p>" + paragraph.replace("\n", "<br/>\n") + "</p>" for paragraph in paragraphs])


def intro(text: str, sources: Iterable[str] = ()) -> str:
    """The first words of a message, for lists.

    text     its plain text; if there is none, the text of `sources`, its HTML
    returns  at most INTRO characters on one line, cut at a space, with an ellipsis if there is more
    """
    start = text.lstrip()
    if not start:
        start = "\n".join([html_to_text(source[: 256 * 1024], _LOOK) for source in sources][:10])
    words = " ".join(_INVISIBLE.sub(" ", start[:_LOOK]).split())
    if len(words) <= INTRO:
        return words
    cut = words.rfind(" ", 1, INTRO)
    return words[: cut if cut > 0 else INTRO - 1].rstrip() + "…"


class Linked(Struct, frozen=True):
    """HTML whose inline images were found among the parts."""

    html: str
    used: tuple[str, ...]  # attachment ids that it shows


def link_cids(source: str, ids: dict[str, str], url: Callable[[str], str]) -> Linked:
    """Point `cid:` links to where the parts can be fetched.

    ids  content id -> attachment id (`Parsed.cids`)
    url  attachment id -> link; its answer is put into an attribute and is escaped here
    """
    used: dict[str, None] = {}

    def link(found: re.Match[str]) -> str:
        cid = html.unescape(_HUGE.sub("", found[1]))
        attachment = ids.get(cid) or ids.get(_unquoted(cid))
        if attachment is None:
            return found[0]
        used[attachment] = None
        return html.escape(url(attachment))

    return Linked(_CID.sub(link, source), tuple(used))


def _unquoted(cid: str) -> str:
    return re.sub("%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), cid)
