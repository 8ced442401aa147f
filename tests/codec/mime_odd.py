"""Messages no library would write, but mailboxes receive: made from a seed, each with a word to find it by."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from urllib.parse import quote

CHARSETS = (
    "utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252", "windows-1251", "koi8-r", "iso-2022-jp",
    "shift_jis", "euc-kr", "gb2312", "gb18030", "big5", "utf-7", "utf-16", "utf-16le", "cp037", "tis-620", "x-unknown",
    "unicode-1-1-utf-7", "rot13", "base64", "", "utf-8\0", "ansi_x3.110-1983", "'utf-8'", "cp65001", "iso-8859-8-i",
)  # fmt: skip
TEXT = "Grüße, привет, 日本語 - plain words between\r\nand a second line = so\r\n"
ENCODINGS = ("7bit", "8bit", "binary", "base64", "quoted-printable", "x-uuencode", "BASE64 ", "nonsense", "", "7bit; x")


def encoded(text: str, charset: str) -> bytes:
    """A text in a charset as far as Python has it, else as garbage."""
    try:
        return text.encode(charset or "latin-1", "replace")
    except (LookupError, ValueError, UnicodeError, AttributeError):
        return text.encode("utf-8")


def header_word(draw: random.Random) -> bytes:
    """A piece of a header: encoded words whole, broken, nested, in the wrong place, and bytes as they are."""
    charset = draw.choice(CHARSETS).encode("ascii", "ignore")
    raw = encoded("Grüße 日本", charset.decode())
    return draw.choice(
        (
            b"=?%s?B?%s?=" % (charset, base64.b64encode(raw)),
            b"=?%s?Q?%s?=" % (charset, quote(raw).replace("%", "=").encode()),
            b"=?%s?B?%s" % (charset, base64.b64encode(raw)[:-3]),
            b"=?%s*en?q?a=?=" % charset,
            b"=?utf-8?B?8J+Y?= =?utf-8?B?gA==?=",
            b"=?utf-8?Q?=?utf-8?Q?x?=?=",
            b'"=?utf-8?Q?quoted?="',
            raw.replace(b"\r", b"").replace(b"\n", b""),
            b"=?", b"?=", b"\xff\xfe\x00", b"\t", b"(comment (nested) ", b"a" * draw.randrange(300),
        )
    )  # fmt: skip


def parameter(draw: random.Random, name: str) -> bytes:
    """A parameter of a MIME header, by RFC 2231, RFC 2047, both, or neither."""
    key, file = name.encode(), encoded("ä b.txt", draw.choice(CHARSETS))
    safe = quote(file).encode()
    return b";" + draw.choice(
        (
            b' %s="%s"' % (key, file.replace(b'"', b"")),
            b" %s*=utf-8''%s" % (key, safe),
            b" %s*=%s" % (key, safe),
            b" %s*0*=utf-8'en'%s; %s*1=plain.txt" % (key, safe, key),
            b" %s*1*=%s; %s*0=first" % (key, safe, key),
            b" %s*0=a; %s*2=c; %s*999999=z" % (key, key, key),
            b' %s="=?utf-8?B?%s?="' % (key, base64.b64encode(file)),
            b" %s=\"=?utf-8?Q?a?=; %s*=utf-8''b" % (key, key),
            b' %s="../../etc/passwd"' % key,
            b' %s="unclosed' % key,
            b" %s=;;=;%s==x" % (key, key),
            b"",
        )
    )


def content(draw: random.Random, text: str = TEXT) -> bytes:
    """A part with a header of its own: text in any charset and encoding, or garbage that says it is something."""
    charset, encoding = draw.choice(CHARSETS), draw.choice(ENCODINGS)
    kind = draw.choice(
        ("text/plain", "text/html", "TEXT/PLAIN", "image/png", "message/rfc822", "text", "", "a/b/c", "*/*")
    )
    body = encoded(text, charset)
    match encoding.strip().lower():
        case "base64":
            body = base64.encodebytes(body) if draw.random() < 0.7 else base64.b64encode(body)[:-5] + b"\xff*"
        case "quoted-printable":
            body = body.replace(b"=", b"=3D") if draw.random() < 0.7 else b"=\r\n==3=3g=\r" + body
        case "x-uuencode":
            body = b"begin 644 a.txt\r\n#86)C\r\n`\r\nend\r\n" if draw.random() < 0.5 else b"begin 644\r\nxx"
    lines = [
        b"Content-Type: " + kind.encode() + b'; charset="' + charset.encode() + b'"' + parameter(draw, "name"),
        b"Content-Transfer-Encoding: " + encoding.encode(),
    ]
    if draw.random() < 0.5:
        how = draw.choice((b"attachment", b"inline", b"", b"form-data", b"ATTACHMENT"))
        lines.append(b"Content-Disposition: " + how + parameter(draw, "filename"))
    if draw.random() < 0.3:
        lines.append(b"Content-ID: " + draw.choice((b"<a@b>", b"a@b", b"<>", b"<a@b", b"<\xff>")))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def nested(draw: random.Random, depth: int) -> bytes:
    """Multiparts in multiparts, whose boundaries are missing, equal, prefixes of each other, or never closed."""
    if depth == 0:
        return content(draw)
    name = draw.choice((b"b", b"b%d" % depth, b"bb" * depth, b"=_x y", b"b'()+_,-./:=?", b"\xc3\xa4", b"", b"x" * 90))
    kind = draw.choice((b"mixed", b"alternative", b"related", b"digest", b"report", b"signed", b"x"))
    declared = b'; boundary="%s"' % name if draw.random() < 0.9 else b""
    parts = [nested(draw, depth - 1 if draw.random() < 0.8 else 0) for _ in range(draw.randrange(4))]
    end = b"\r\n--" + name + b"--\r\nepilogue" if draw.random() < 0.7 else b""
    return (
        b"Content-Type: multipart/" + kind + declared + b"\r\n\r\npreamble\r\n"
        + b"".join([b"--" + name + b"\r\n" + part + b"\r\n" for part in parts]) + end
    )  # fmt: skip


def garbage(draw: random.Random) -> bytes:
    """A header that ends in the middle, or a body of any bytes."""
    return draw.choice(
        (
            b"",
            b"X-Broken\r\nno colon here\r\n: no name\r\n\r\n\r\n",
            b"X-Long: " + b"y" * draw.choice((900, 70_000)) + b"\r\n\r\nbody",
            b"X-Folded: a" + b"\r\n b" * draw.choice((10, 9_000)) + b"\r\n\r\nbody",
            b"".join([b"X-%d: v\r\n" % number for number in range(3000)]) + b"\r\nbody",
            b"\r\n" + draw.randbytes(draw.randrange(3000)),
            b"\r\r\n\n\r" + draw.randbytes(40),
            b"To: " + b"<a@b>, " * 3000 + b"\r\n\r\n",
            b"Date: Fri, 99 Foo 99999 99:99:99 +9999\r\nReferences: " + b"<x@y> " * 2000 + b"\r\n\r\nx",
            b"From mbox@example.org Thu Jan  1 00:00:00 1970\r\n\r\nx\0y\0z",
        )
    )


SHAPES: tuple[Callable[[random.Random], bytes], ...] = (
    content,
    garbage,
    lambda draw: nested(draw, draw.randrange(1, 5)),
    lambda draw: nested(draw, draw.choice((6, 40))) if draw.random() < 0.2 else nested(draw, 2),
)


def odd(count: int, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """`count` messages, each with the word that stands in its subject."""
    draw = random.Random(seed)
    for number in range(count):
        word = f"odd{seed}n{number}"
        head = b"Subject: %s\r\n" % word.encode()
        if draw.random() < 0.7:
            # at the front, where no half of an encoded word swallows it
            head = b"Subject: " + b" ".join([word.encode(), header_word(draw), header_word(draw)]).strip() + b"\r\n"
        for name in (b"From", b"To", b"Cc", b"Reply-To", b"Sender", b"Message-ID", b"In-Reply-To", b"List-ID", b"Date"):
            if draw.random() < 0.5:
                head += name + b": " + b" ".join([header_word(draw) for _ in range(draw.randrange(4))]) + b"\r\n"
        head += b"MIME-Version: 1.0\r\n" + draw.choice(SHAPES)(draw)
        yield word, head if draw.random() < 0.8 else head.replace(b"\r\n", b"\n")
