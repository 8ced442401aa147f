"""Every parser under arbitrary bytes: `python -m tests.fuzz.fuzz_parsers NAME` (needs atheris; its options apply).

Rule: whatever the bytes are, a parser returns a value or raises the errors its description names; anything else fails.
What was read must also be readable again after it was written, where there is a writer. The ordinary tests run the same
targets over some thousand seeded mutations of valid input (`test_fuzz.py`).
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from qmail_core.codec import (
    address,
    cbdf,
    cbdf_sections,
    cbdf_text,
    change,
    coins,
    directory,
    exchange,
    healing,
    keys,
    lockers,
    mail,
    message,
)
from qmail_core.codec.cbdf import Document, MailMeta, Meta
from qmail_core.codec.cbdf_sections import Resource
from qmail_core.codec.cbdf_text import Control
from qmail_core.errors import AddressError, QMailError, RemoteProtocolError
from qmail_core.model import Address
from tests.fuzz import fuzz_frame
from tests.published import FOLDER
from tests.reference import commands, record_frames


class Target(Struct, frozen=True):
    """One parser, and valid input to start from."""

    parse: Callable[[bytes], None]
    seeds: Sequence[bytes]


def each(*parsers: Callable[[Any], object], errors: type[QMailError] = RemoteProtocolError) -> Callable[[bytes], None]:
    """Give the same bytes to several parsers."""

    def parse(data: bytes) -> None:
        for parser in parsers:
            with contextlib.suppress(errors):
                parser(data)

    return parse


def views(*parsers: Callable[[memoryview], object]) -> Callable[[bytes], None]:
    """The same for parsers of a frame's payload, which is a view."""
    return each(*(lambda data, parser=parser: parser(memoryview(data)) for parser in parsers))


def read_exchange(data: bytes) -> None:
    """The size of a message never depends on more than its header, and never shrinks what is there already."""
    for enc in (0, 1, 2, 4):
        size = exchange.reply_size(memoryview(data), enc)
        assert size is None or size == exchange.reply_size(memoryview(data)[:48], enc)
    with contextlib.suppress(RemoteProtocolError):
        size = exchange.request_size(memoryview(data))
        assert size is None or size == exchange.request_size(memoryview(data)[:48])


def read_record(data: bytes) -> None:
    """A tell record says how long it is, and is the same after it was written again."""
    with contextlib.suppress(RemoteProtocolError):
        tell, size = mail.parse_record(memoryview(data))
        assert 0 < size <= len(data)
        str(tell)


def read_document(data: bytes) -> None:
    """A document that is read is the same after it was written again."""
    with contextlib.suppress(RemoteProtocolError):
        document = cbdf.decode_document(data)
        assert cbdf.decode_document(cbdf.encode_document(document)).text == document.text
    with contextlib.suppress(RemoteProtocolError):
        meta, body = cbdf.split_document(data)
        assert cbdf.join_document(meta, body) == data


def read_address(data: bytes) -> None:
    """A text that is an address is the same one after it was shown."""
    with contextlib.suppress(AddressError):
        found = address.parse(data.decode("utf-8", "replace"))
        assert address.parse(address.render(found)) == found


def read_mail(data: bytes) -> None:
    """Both objects of a mail, cut anywhere, and a ready document."""
    with contextlib.suppress(RemoteProtocolError):
        message.stamp(data, bytes(16), ["name.txt"])
    half = int.from_bytes(data[:1]) * len(data) // 256
    for meta, body in ((data[1:half], data[half:]), (META, data), (data, b"")):
        with contextlib.suppress(RemoteProtocolError):
            message.parse(meta, body)


def _payloads(group: int) -> list[bytes]:
    rows = [command for command in commands.COMMANDS if command.group == group]
    return [part for row in rows for part in (row.request, row.answer) if part]


def _vectors(suite: str) -> list[bytes]:
    texts = [path.read_text(encoding="utf-8") for path in sorted((FOLDER / suite).iterdir())]
    found = [bytes.fromhex(piece.split('"')[1]) for text in texts for piece in text.split('_hex": ')[1:]]
    return [raw for raw in found if len(raw) > 4]


def _frames() -> list[bytes]:
    rows = record_frames.record()
    return [bytes.fromhex(str(row[side])) for row in rows for side in ("request", "answer")]


META = cbdf.build_mail_meta(
    MailMeta(guid=bytes(16), subject="s", sender=Address(1, 42), to=(Address(0, 7),), attachment_names=("a.txt",))
)
_TEXT = cbdf_text.build_text(["Hello ", Control(0x0E, b"\0\x04site"), "x", Control(0x0F), "An apple a day. " * 20])
_DOCUMENT = Document(meta=Meta(((2, b"subject"), (19, bytes.fromhex("0006012a000000")))), text=_TEXT)
_DOCUMENTS = [
    *_vectors("cbdf"),
    META + cbdf.build_body("Hello"),
    cbdf.encode_document(_DOCUMENT, compress=True, digest=True),
    cbdf.encode_document(Document(meta=_DOCUMENT.meta, text=_TEXT, resources=(Resource(1, 0, b"png"),))),
]
_ADDRESSES = (
    "51.254@bit 0.51.254.0 0006.1.9002 9002 Sean#16777216 Sean.Worthington@CEO#C23.Giga @chariot.harbor.byte"
    " JANE.SMITH.kilo@8189 255.255.255@giga"
)

TARGETS = {
    "frame": Target(fuzz_frame.parse, _frames()),
    "exchange": Target(read_exchange, _frames()),
    "mail": Target(
        views(
            mail.parse_identity,
            mail.parse_download,
            mail.parse_page,
            mail.parse_tell,
            mail.parse_tells,
            lambda view: mail.parse_upload(view, paged=False),
            lambda view: mail.parse_upload(view, paged=True),
            lambda view: mail.parse_poll(view, exact=False),
        ),
        _payloads(6),
    ),
    "record": Target(read_record, [mail.build_record(commands.TELL)]),
    "coins": Target(
        views(
            coins.parse_detect,
            coins.parse_triples,
            coins.parse_detect_sum,
            coins.parse_pown_sum,
            coins.parse_coin_list,
            lockers.parse_put,
            lockers.parse_put_many,
            lockers.parse_peek,
            lockers.parse_remove,
            lockers.parse_download,
            healing.parse_validate,
            healing.parse_fix,
            change.parse_available,
            change.parse_serials,
            change.parse_change,
            lambda view: coins.parse_bitmap(view, 9),
        ),
        [part for group in (1, 2, 8, 9) for part in _payloads(group)],
    ),
    "directory": Target(
        each(
            directory.parse_get_user,
            directory.parse_post_user,
            directory.parse_search_users,
            directory.parse_owned,
            directory.parse_list_set,
            directory.parse_list_remove,
            directory.parse_user_record,
            directory.parse_search_answer,
            directory.parse_list_answer,
        ),
        _payloads(16),
    ),
    "keys": Target(each(keys.parse_preload_master_key, keys.parse_get_key_share, keys.parse_key_share), _payloads(15)),
    "cbdf": Target(
        each(
            cbdf.parse_meta,
            cbdf.parse_mail_meta,
            cbdf.parse_body,
            cbdf_sections.parse_resources,
            cbdf_sections.inflate,
            cbdf_text.check_text,
            cbdf_text.extract_text,
        ),
        [*_DOCUMENTS, META, cbdf.build_body("Hello"), _TEXT],
    ),
    "document": Target(read_document, _DOCUMENTS),
    "address": Target(read_address, [text.encode() for text in _ADDRESSES.split()]),
    "message": Target(read_mail, [*_DOCUMENTS, b"\x80" + META + cbdf.build_body("Hello")]),
}


def main() -> None:
    name = sys.argv.pop(1)
    atheris: Any = importlib.import_module("atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, TARGETS[name].parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
