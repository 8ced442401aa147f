"""What the document says of the file-transfer API: parameters, headers and the shape of every answer."""

from __future__ import annotations

import inspect
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from qmail_server.http.describe import Facts, Param, flag, text, whole
from qmail_server.http.paths import Endpoint
from qmail_server.http.transfer import downloads, files, inbox, keys, mails, tus
from qmail_server.http.transfer.paging import PER_PAGE
from qmail_server.http.transfer.routes import RESOURCES

_UUID = "3f2b8c1e-5a4d-4e6f-9b7a-0c1d2e3f4a5b"


class Person(Struct, kw_only=True):
    name: str
    initials: str
    email: str
    photo_url: str
    timezone: str


class Sender(Struct, kw_only=True):
    name: str
    email: str


class File(Struct, kw_only=True):
    id: str
    filename: str
    type: str
    extension: str
    full_filename: str
    size: int
    formatted_size: str
    encrypted_size: int
    formatted_encrypted_size: str
    created_by: Person
    created_at: str
    disk: str
    trashed: bool
    checksum: str
    category: str | UnsetType | None = UNSET


class Links(Struct, kw_only=True):
    first: str | None
    last: str | None
    prev: str | None
    next: str | None


class Meta(Struct, kw_only=True):
    current_page: int
    from_: int | None = field(name="from")
    last_page: int
    per_page: int
    to: int | None
    total: int


class FileAnswer(Struct, kw_only=True):
    data: File


class FilesAnswer(Struct, kw_only=True):
    data: File | list[File]


class FileList(Struct, kw_only=True):
    data: list[File]
    links: Links
    meta: Meta


class MailDownload(Struct, kw_only=True):
    id: str
    files: list[File] | UnsetType = UNSET
    created_at: str


class ReceivedMail(Struct, kw_only=True):
    id: str
    identifier: str
    subject: str
    body: str
    sender: Sender
    author: Person | UnsetType = UNSET
    download: MailDownload | UnsetType = UNSET
    received_at: str
    opened: bool


class ReceivedAnswer(Struct, kw_only=True):
    data: ReceivedMail


class ReceivedList(Struct, kw_only=True):
    data: list[ReceivedMail]
    links: Links
    meta: Meta


class SentMail(Struct, kw_only=True):
    id: str
    identifier: str
    subject: str
    body: str
    sender: Sender
    recipient: Person
    recipient_email: str
    author: Person | UnsetType = UNSET
    download: MailDownload | UnsetType = UNSET
    created_at: str
    sent_at: str
    status: str
    opened_at: str


class SentAnswer(Struct, kw_only=True):
    data: SentMail


class SendAnswer(Struct, kw_only=True):
    data: SentMail | list[SentMail]


class SentList(Struct, kw_only=True):
    data: list[SentMail]
    links: Links
    meta: Meta


class Download(Struct, kw_only=True):
    id: str
    files: list[File]
    created_at: str
    expires_at: str
    url: str


class FileDownloadAnswer(Struct, kw_only=True):
    data: Download


class Key(Struct, kw_only=True):
    key: str
    expires_at: str
    url: str | UnsetType = UNSET


class KeyAnswer(Struct, kw_only=True):
    data: Key


class PinState(Struct, kw_only=True):
    set: bool


class PinAnswer(Struct, kw_only=True):
    data: PinState


class TokenItem(Struct, kw_only=True):
    id: int
    name: str
    created_at: str
    token: str | UnsetType = UNSET


class TokenAnswer(Struct, kw_only=True):
    data: TokenItem


class TokenList(Struct, kw_only=True):
    data: list[TokenItem]


def _uuid(what: str) -> Param:
    return text("id", f"Id of the {what}", required=True, example=_UUID)


def _listing(sorts: dict[str, str], *more: Param) -> tuple[Param, ...]:
    words = [sign + name for name in sorts for sign in ("", "-")]
    return (
        text("keyword", "Part of a name, a subject or an address"),
        text("sort", "Order of the rows; `-` turns it round", one_of=words),
        whole("page", "Number of the page", 1, 1_000_000, 1),
        whole("per_page", "Rows on a page", 1, 100, PER_PAGE, example=20),
        *more,
    )


def _strings(name: str, about: str, *, required: bool = False, example: list[str] | None = None) -> Param:
    return Param(name, about, {"type": "array", "items": {"type": "string"}}, required, example)


_INCLUDE = text("include", "More members: `download`, `download.files`, `author`, with commas")
_CATEGORY = text("include", "One more member", one_of=("category",))
_PIN_KEY = text("pinKey", "A temporary key, made with the PIN", required=True, example="Xk3v9QmZ")
_VERSION = text("Tus-Resumable", "The version of tus", required=True, example=tus.VERSION, one_of=(tus.VERSION,))
_CHECKSUM = text("Upload-Checksum", "Algorithm and base64 digest of the bytes")
_BYTES = "application/offset+octet-stream"
_OVERRIDE = text("X-HTTP-Method-Override", "The verb that is meant", required=True, example="HEAD")

_KNOWN: dict[Any, Facts] = {
    inbox.list_inbox: Facts(takes=_listing(inbox.SORTS, _INCLUDE), answer=ReceivedList),
    inbox.get_mail: Facts(takes=(_uuid("mail"), _INCLUDE), answer=ReceivedAnswer),
    mails.list_mails: Facts(takes=_listing(mails.SORTS, _INCLUDE), answer=SentList),
    mails.get_mail: Facts(takes=(_uuid("mail"), _INCLUDE), answer=SentAnswer),
    mails.send: Facts(
        takes=(
            text("recipient_email", "The recipient", example="16.0.0@byte"),
            _strings("recipients", "Several recipients; the answer is a list then"),
            text("subject", "The subject", required=True, example="Minutes", maxLength=255),
            text("body", "The text, or HTML", example="Dear all"),
            _strings("files", "Ids of uploaded files"),
            text("pinKey", "A temporary key; needed with files"),
        ),
        answer=SendAnswer,
    ),
    files.list_files: Facts(
        takes=_listing(files.SORTS, _CATEGORY, flag("trashed", "What is in the trash")), answer=FileList
    ),
    files.upload: Facts(
        takes=(Param("file", "A file; `files[]` takes several", {"type": "string"}, True, "content"),),
        answer=FilesAnswer,
        only="multipart/form-data",
    ),
    files.get_file: Facts(takes=(_uuid("file"), _CATEGORY), answer=FileAnswer),
    files.change_file: Facts(
        takes=(
            _uuid("file"),
            text("filename", "A new name, without extension", example="Minutes", maxLength=200),
            text("full_filename", "A new name as a whole", maxLength=200),
            flag("trashed", "Into the trash, or out of it", None),
        ),
        answer=FileAnswer,
    ),
    files.delete_file: Facts(takes=(_uuid("file"),), status=204),
    downloads.add_download: Facts(
        takes=(_strings("files", "Ids of files", required=True, example=[_UUID]),), answer=FileDownloadAnswer
    ),
    downloads.get_download: Facts(
        takes=(_uuid("download"), text("key", "The key of the download; without it, its record")),
        answer=FileDownloadAnswer,
        media="application/octet-stream",
    ),
    downloads.delete_download: Facts(takes=(_uuid("download"),), status=204),
    downloads.add_key: Facts(takes=(_uuid("download"), _PIN_KEY), answer=KeyAnswer),
    keys.add_key: Facts(takes=(text("pin", "The PIN", required=True, example="1234"),), answer=KeyAnswer),
    keys.delete_key: Facts(takes=(text("key", "The temporary key", required=True, example="Xk3v9QmZ"),), status=204),
    keys.get_pin: Facts(answer=PinAnswer),
    keys.set_pin: Facts(
        takes=(
            text("pin", "The new PIN", required=True, example="1234"),
            text("current_pin", "The PIN so far", example="1234"),
        ),
        status=204,
    ),
    keys.list_tokens: Facts(answer=TokenList),
    keys.add_token: Facts(
        takes=(
            text("name", "What it is for", required=True, example="laptop", maxLength=100),
            text("user", "Id of the user it speaks for; the engine's own otherwise"),
        ),
        answer=TokenAnswer,
    ),
    keys.delete_token: Facts(takes=(text("id", "Number of the token", required=True, example="7"),), status=204),
    tus.about: Facts(takes=(_uuid("upload"),), status=204),
    tus.create: Facts(
        headers=(
            _VERSION,
            text("Upload-Length", "Bytes of the whole file", example="5"),
            text("Upload-Defer-Length", "`1` where that is not known yet", one_of=("1",)),
            text("Upload-Metadata", "Pairs of a name and a base64 value", example="filename bm90ZXMudHh0"),
            _CHECKSUM,
        ),
        status=201,
    ),
    tus.look: Facts(takes=(_uuid("upload"),), headers=(_VERSION,), empty=True),
    tus.add: Facts(
        takes=(_uuid("upload"),),
        headers=(
            _VERSION,
            text("Upload-Offset", "Where the bytes belong", required=True, example="0"),
            text("Upload-Length", "Bytes of the whole file, if not said before"),
            _CHECKSUM,
        ),
        only=_BYTES,
        status=204,
    ),
    tus.terminate: Facts(takes=(_uuid("upload"),), headers=(_VERSION,), status=204),
    tus.overridden: Facts(takes=(_uuid("upload"),), headers=(_VERSION, _OVERRIDE), empty=True),
}


# by the endpoints of the routes, which check who speaks before those above are asked
FACTS: dict[Endpoint, Facts] = {
    endpoint: _KNOWN[inspect.unwrap(endpoint)]
    for resource in RESOURCES
    for endpoint in resource.verbs.values()
    if inspect.unwrap(endpoint) in _KNOWN
}
