"""Varied messages for tests and benches: written by the standard library from a seed, and then, for some, broken."""

from __future__ import annotations

import random
from collections.abc import Iterator
from email.headerregistry import Address
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP

LF = SMTP.clone(linesep="\n")
WORDS = "alpha beta gamma delta Grüße naïve 日本語 привет שלום emoji😀 x=y a_b".split()  # noqa: SIM905
CHARSETS = ("utf-8", "utf-8", "utf-7", "gb18030")
TYPES = (("image", "png"), ("application", "pdf"), ("application", "octet-stream"), ("audio", "mpeg"))


def words(draw: random.Random, count: int) -> str:
    """So many words, some of them outside ASCII."""
    return " ".join(draw.choices(WORDS, k=count))


def message(draw: random.Random) -> EmailMessage:
    """One message: plain, HTML or both, with or without inline images, attachments and an attached message."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = Address(words(draw, 2), "from", "example.org")
    mail["To"] = [Address(words(draw, draw.randrange(3)), f"to{index}", "example.net") for index in range(1, 4)]
    mail["Subject"] = words(draw, draw.randrange(1, 20))
    mail["Date"] = "Fri, 21 Nov 1997 09:55:06 -0600"
    mail["Message-ID"] = f"<{draw.getrandbits(64):x}@example.org>"
    lines = "\n".join([words(draw, draw.randrange(12)) for _ in range(draw.randrange(1, 30))]) + "\n"
    mail.set_content(lines, charset=draw.choice(CHARSETS), cte=draw.choice(("base64", "quoted-printable")))
    if draw.random() < 0.5:
        page = f"<html><body><p>{lines}</p><img src='cid:one@example'></body></html>"
        mail.add_alternative(page, subtype="html", cte=draw.choice(("base64", "quoted-printable")))
        if draw.random() < 0.5:
            parts = mail.get_payload()
            assert isinstance(parts, list)
            html = parts[1]
            assert isinstance(html, MIMEPart)
            html.add_related(draw.randbytes(500), "image", "png", cid="<one@example>")
    for _ in range(draw.choice((0, 0, 1, 3))):
        kind, subtype = draw.choice(TYPES)
        name = f"{words(draw, draw.randrange(1, 9))}.bin"
        mail.add_attachment(draw.randbytes(draw.choice((0, 1, 100, 9000))), kind, subtype, filename=name)
    if draw.random() < 0.1:
        inner = EmailMessage(policy=SMTP)
        inner["Subject"] = "inner"
        inner.set_content("within\n")
        mail.add_attachment(inner)
    return mail


def mails(count: int, seed: int = 1) -> Iterator[tuple[EmailMessage, bytes]]:
    """`count` well-formed messages: what was written, and the bytes, some of them with LF."""
    draw = random.Random(seed)
    for _ in range(count):
        mail = message(draw)
        yield mail, mail.as_bytes(policy=LF if draw.random() < 0.2 else SMTP)


def messages(count: int, seed: int = 1) -> Iterator[bytes]:
    """The bytes alone."""
    for _, raw in mails(count, seed):
        yield raw


def broken(raw: bytes, draw: random.Random) -> bytes:
    """The message with a few bytes lost, doubled or changed, or its end missing."""
    data = bytearray(raw)
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(data)) if data else 0
        match draw.randrange(4):
            case 0:
                del data[at : at + draw.choice((1, 2, 100))]
            case 1:
                data[at:at] = data[at : at + draw.randrange(200)]
            case 2:
                data[at : at + 1] = draw.choice((b"\0", b"\r", b"\n", b'"', b"=", b"\xff", b"--", b"\r\n\r\n"))
            case _:
                del data[at + len(data) // 2 :]
    return bytes(data)
