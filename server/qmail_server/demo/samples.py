"""Files the demo puts where the documented examples expect them."""

from __future__ import annotations

from pathlib import Path

from qmail_core.codec import cbdf
from qmail_core.codec.cbdf import MailMeta
from qmail_core.folders import make_private
from qmail_core.model import Address

PHOTO = Path(__file__).parent / "photo.jpg"


def pdf(text: str) -> bytes:
    """A small, valid one-page PDF that shows a line of ASCII text."""
    stream = f"BT /F1 18 Tf 72 720 Td ({text}) Tj ET".encode("ascii")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        out += b"%010d 00000 n \n" % offset
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def document(sender: Address, subject: str, text: str) -> bytes:
    """A ready .qmail document."""
    meta = MailMeta(guid=bytes(range(16)), subject=subject, sender=sender, timestamp=0)
    return cbdf.join_document(cbdf.build_mail_meta(meta), cbdf.build_body(text))


def place(outgoing: Path, files: Path, sender: Address) -> tuple[tuple[str, str], ...]:
    """Write the sample files.

    returns  the drive rules that let the documents' Windows paths find them
    """
    make_private(str(files / "outbox"))
    make_private(str(outgoing))
    mail = document(sender, "A ready document", "This mail was built before it was sent.\n")
    for path, data in {
        outgoing / "test1.qmail": mail,
        outgoing / "attachment1.pdf": pdf("First attachment"),
        outgoing / "attachment2.pdf": pdf("Second attachment"),
        files / "outbox" / "message.qmail": mail,
        files / "outbox" / "msg001.qmail": mail,
        files / "doc.pdf": pdf("A document"),
        files / "photo.jpg": PHOTO.read_bytes(),
    }.items():
        path.write_bytes(data)
    return (
        ("E:\\Client1\\Client_Data\\Wallets\\Mail\\Outgoing", str(outgoing)),
        ("E:\\Client_Data\\outbox", str(files / "outbox")),
        ("E:\\outbox", str(files / "outbox")),
        ("E:\\files", str(files)),
    )
