"""The parameters of the node API, by endpoint, so that a route's older names need no words of their own.

Numbers outside their limits are clamped to them; texts have no case where they are words of a list. A test compares
this table with what each endpoint's source reads.
"""

from __future__ import annotations

from msgspec import structs

from qmail_server.http.describe import Facts, Param, decimal, flag, several, text, whole
from qmail_server.http.params import MAX_FILES
from qmail_server.http.paths import Endpoint
from qmail_server.http.qmail import bills, legacy, local, net, objects, raida, status, system
from qmail_server.http.qmail.answers.objects import TransferAnswer
from qmail_server.http.qmail.answers.sends import DownloadStarted
from qmail_server.http.qmail.db import attachments, contacts, drafts, messages, payments, queue
from qmail_server.http.qmail.db import schema as db
from qmail_server.http.qmail.db.contacts import MAX_SERIAL
from qmail_server.http.qmail.db.ids import MAX_OFFSET, MAX_PAGE

_ID = "^[0-9a-fA-F]{32}$"
_EXAMPLE_ID = "5d0e7a1c9b8f42d3a6e07714c2bb9f10"
_FOLDERS = ("inbox", "sent", "drafts", "trash", "starred", "archive", "0", "1", "2", "3", "4", "5")
_FOLDER = "Name or number of the folder"

DEBUG = flag("debug", "Adds debug lines of this one request to the log")


def _id(name: str, about: str, *, required: bool = True, shown: bool = True) -> Param:
    return text(name, about, required=required, example=_EXAMPLE_ID if shown else None, pattern=_ID)


def _optional(param: Param) -> Param:
    return structs.replace(param, required=False, example=None)


def _limit(default: int = 50, most: int = MAX_PAGE) -> Param:
    return whole("limit", "How many rows at most", 1, most, default, example=min(default, 20))


EMAIL_ID = _id("email_id", "Id of the message")
FILE_GUID = _id("file_guid", "GUID of the mail")
WALLET = text("wallet_path", "Name or path of the wallet that pays; `Default` if left out")
OFFSET = whole("offset", "How many rows to leave out first", 0, MAX_OFFSET, 0)
PAGE = whole("page", "Number of the page, from 1; `offset` wins", 1, MAX_OFFSET, 1)
SINCE = whole("since", "Only what came after this time, in seconds since 1970", 0, (1 << 32) - 1, 0, example=0)
TASK = (
    text("id", "Id of the task", required=True, example="task_5a91c802"),
    text("task_id", "The same under its other name"),
)
VALUE = text("value", "What to convert", required=True, example="1048576")


_PEOPLE = (
    several("to", "Addresses; commas and semicolons separate too", most=50, example=("16.0.0@byte",)),
    several("cc", "Addresses of copies", most=50),
    several("bcc", "Addresses of copies nobody else is told of", most=50),
)
_FILES = (
    several("attachment_file_path", "Paths of files of the engine's machine, one each", most=MAX_FILES),
    several("attachments", "The same, also with commas; in a multipart body, files", most=MAX_FILES),
)
_UPLOAD = (
    *_PEOPLE,
    text("subject", "The subject, at most 255 bytes", example="Minutes", maxLength=255),
    text("body", "The text; one of `body`, `plain_text_qmail_path` and `email_file` is needed", example="Dear all"),
    text("plain_text_qmail_path", "Path of a file with the text"),
    text("email_file", "Path of a ready document"),
    *_FILES,
    _optional(_id("file_guid", "GUID of the mail, if the client chooses it; it must not have been used")),
    whole("duration", "Weeks the servers keep it", 1, net.MAX_WEEKS, 4, example=4),
    WALLET,
    text("durability", "How many servers are waited for", one_of=("fast", "safe", "full")),
    whole("hold_seconds", "Wait this long before anybody is told, so that it can be taken back", 0, net.MAX_HOLD, 0),
    text("idempotency_key", "Names this request, which may then be repeated; also a header", maxLength=255),
)
_PERSON = tuple(text(name, name.replace("_", " ").capitalize()) for name in ("middle_name", "last_name", "class_name"))
_DRAFT = (
    text("subject", "The subject", example="Plan"),
    text("subsubject", "The second line of the subject"),
    text("body", "The text, at most 1 MB", example="First"),
    *_PEOPLE,
)


def _serial(name: str, about: str, *, required: bool = True) -> Param:
    return whole(name, about, 1, MAX_SERIAL, required=required, example=1441 if required else None)


def _refused(name: str) -> Param:
    return text(name, "Refused here", maxLength=0)


OPERATION_ID = _id("operation_id", "Id of the operation")
_SERVER = whole("raida_id", "Number of the server; the healthiest, or the one known to hold the object", 0, 31)
_TYPE = whole("file_type", "File type of the object", 0, objects.MAX_TYPE, 2)
_TARGET = whole("target_generation", "Its generation afterwards; the next one if left out", 0, objects.MOST)
_CHUNK = (1, objects.MAX_CHUNK, 1 << 20)

TAKES: dict[Endpoint, tuple[Param, ...]] = {
    net.upload: (*(param for param in _UPLOAD if param.name != "hold_seconds"), _refused("hold_seconds")),
    net.upload_and_tell: _UPLOAD,
    net.tell: (FILE_GUID, *map(_refused, ("to", "cc", "bcc"))),
    net.download: (
        FILE_GUID,
        whole("sender_sn", "Serial number of the sender, where no Tell says it", 1, (1 << 32) - 1),
        flag("async", "Do not wait for the mail"),
    ),
    net.cancel_hold: (FILE_GUID,),
    net.explain: (FILE_GUID,),
    net.repair: (FILE_GUID,),
    net.peek: (SINCE,),
    net.older_ping: (SINCE,),
    net.ping: (
        SINCE,
        decimal("timeout", "Seconds to wait at most", 0, net.MAX_WAIT, example=1),
        decimal("timeout_ms", "The same in milliseconds; wins", 0, net.MAX_WAIT * 1000),
    ),
    objects.capabilities: (_SERVER, WALLET),
    objects.upload: (
        text("source_path", "Path of the file", required=True, example="test1.qmail"),
        _SERVER,
        _TYPE,
        _optional(_id("object_id", "Id of the object; drawn if left out")),
        text("locker_key", "Code of a locker that pays; one of the wallet's if left out"),
        whole("retention_seconds", "How long it is kept; what the server likes if 0", 0, objects.MOST, 0),
        whole("storage_class", "Number of a storage class; what the server likes if 0", 0, objects.MAX_CLASS, 0),
        whole("preferred_chunk_bytes", "Size of the ranges it is sent in", *_CHUNK),
        whole("operation", "0 creates, 1 replaces", 0, 1, 0),
        whole("expected_generation", "Generation to be replaced", 0, objects.MOST, 0),
        _TARGET,
        WALLET,
    ),
    objects.download: (
        _id("object_id", "Id of the object"),
        text("destination_path", "Path of the file, which must not exist", required=True, example="copy.qmail"),
        _SERVER,
        _TYPE,
        whole("generation", "Generation to be read; the current one if 0", 0, objects.MOST, 0),
        whole("preferred_range_bytes", "Size of the ranges it is read in", *_CHUNK),
        WALLET,
    ),
    objects.delete: (
        _id("object_id", "Id of the object"),
        whole("expected_generation", "Generation to be deleted", 0, objects.MOST, 1),
        _TARGET,
        _SERVER,
        _TYPE,
    ),
    objects.status: (OPERATION_ID,),
    objects.resume: (OPERATION_ID,),
    objects.cancel: (OPERATION_ID,),
    legacy.upload: (
        *_PEOPLE,
        text("email_file", "Path of a ready document", required=True, example="test1.qmail"),
        *_FILES,
        whole("duration", "Weeks the servers keep it", 1, net.MAX_WEEKS, 35),
        WALLET,
    ),
    local.receipt: (_id("guid", "GUID of the mail"), text("file_guid", "The same under its other name", pattern=_ID)),
    local.task: TASK,
    local.locker_pool: (WALLET,),
    system.receipts: (text("status", "Only these", one_of=system.RECEIPT_STATUSES), _limit(), OFFSET),
    system.tasks: (text("status", "Only these"), _limit(50, 1000)),
    system.cancel_task: TASK,
    system.balance: (WALLET,),
    system.prepare_change: (WALLET,),
    bills.bills: (
        WALLET,
        text("filename", "Only this one, with its content", pattern=r"^[0-9a-f]{32}\.json$"),
        _limit(200, 1000),
        OFFSET,
    ),
    messages.list_messages: (
        text("folder", _FOLDER, one_of=_FOLDERS, default="0", example="inbox"),
        text("sort", "Order of the rows", one_of=(*messages.SORTS, "0", "1", "2", "3"), default="newest"),
        _limit(),
        OFFSET,
    ),
    messages.get_message: (EMAIL_ID, flag("peek", "Leave it unread")),
    messages.search_messages: (
        text("query", "Words that must all occur", required=True, example="minutes"),
        text("q", "The same under its other name"),
        _limit(),
    ),
    messages.trash_message: (EMAIL_ID,),
    messages.delete_message: (EMAIL_ID,),
    messages.move_message: (EMAIL_ID, text("folder", _FOLDER, one_of=_FOLDERS, required=True, example="archive")),
    messages.set_star: (EMAIL_ID, flag("starred", "False takes the star away", True)),
    messages.set_read: (EMAIL_ID, flag("is_read", "False marks it unread", True)),
    contacts.list_contacts: (text("q", "Part of an address or a name"), _limit(10_000, 10_000), OFFSET, PAGE),
    contacts.create_contact: (
        _serial("serial_number", "Serial number of the mailbox"),
        text("auto_address", "The address, as it is written", example="16.0.0@byte"),
        text("first_name", "First name", example="Ada"),
        *_PERSON,
        text("description", "Who this is"),
        text("user_notes", "Notes"),
        text("custom_sn", "Another name of the serial number"),
        whole("denomination", "Denomination code of the coin", -8, 11, 1),
        whole("trust_level", "-1 blocked, 0 unknown, 1 trusted", -1, 1),
    ),
    contacts.delete_contact: (_serial("serial_number", "Serial number of the contact"),),
    contacts.popular_contacts: (_limit(10, 100),),
    contacts.favorite_contact: (
        _serial("sn", "Serial number of the contact"),
        _serial("serial_number", "The same under its other name", required=False),
        flag("value", "False takes the mark away", True),
    ),
    drafts.list_drafts: (_limit(), OFFSET, PAGE),
    drafts.create_draft: _DRAFT,
    drafts.update_draft: (
        _id("email_id", "Id of the draft"),
        *(text(name, "The same under its other name", pattern=_ID) for name in ("draft_id", "id")),
        *_DRAFT,
    ),
    attachments.list_attachments: (EMAIL_ID,),
    attachments.get_attachment: (
        EMAIL_ID,
        whole("attachment_id", "Number of the attachment", 0, 10**18 - 1, required=True, example=1),
        flag("info", "Answer what is known of it, not its bytes", example=True),
    ),
    payments.get_payment: (EMAIL_ID,),
    payments.mark_refunded: (EMAIL_ID,),
    payments.sent_payments: (_limit(), OFFSET),
    queue.list_pending_tells: (text("status", "Only these", one_of=queue.STATUSES), _limit(1000, 1000)),
    queue.retry_tell: (whole("tell_id", "Number of the tell", 0, 10**18 - 1, required=True, example=1),),
    queue.list_notifications: (_limit(), flag("include_downloaded", "Those already downloaded too")),
    queue.dismiss_notification: (
        whole("id", "Number of the notification; or `file_guid`", 0, 10**18 - 1, example=1),
        text("file_guid", "GUID of its mail, where `id` is left out", pattern=_ID),
    ),
    raida.claim_payment: (EMAIL_ID, WALLET),
    raida.import_credentials: (
        text("locker_key", "Code of the locker", required=True, example="AAA-BBBBB"),
        text("locker_code", "The same under its other name"),
        WALLET,
    ),
    raida.replenish: (WALLET,),
    status.control_beacon: (
        text("action", "What to do", one_of=("start", "stop", "status"), default="status", example="status"),
    ),
    status.inbox_fee: (*_PEOPLE, *_FILES),
    status.can_send: (
        *_PEOPLE,
        WALLET,
        whole("upload_lockers", "Price of the storage, if not that of a mail without attachments", 0, 1_000_000),
        whole("inbox_fee", "Price of the recipients, if not what they ask for", 0, 1_000_000),
    ),
    status.from_sn: (_serial("sn", "Serial number"), whole("denomination", "Denomination code of the coin", 0, 4)),
    status.encode: (whole("value", "The number", 0, (1 << 64) - 1, required=True, example=1048576),),
    status.decode: (text("value", "The letters", required=True, example="BAAAA"),),
    status.base32: (text("value", "What to convert", required=True, example="1048576"),
                    text("mode", "`decode` reads letters, everything else writes them", default="encode")),
    **dict.fromkeys(
        (
            local.identity, local.whoami, local.wallets, messages.list_folders, messages.count_folders,
            queue.clear_sent_tells, raida.heal_identity, raida.echo, status.exists, status.status, system.version,
            system.sync,
        ),
        (),
    ),
}  # fmt: skip


_ANSWERS: dict[Endpoint, Facts] = {
    **dict.fromkeys(
        (objects.upload, objects.download, objects.delete, objects.resume, objects.cancel),
        Facts(answer=TransferAnswer, status=202),
    ),
    net.download: Facts(later=DownloadStarted),
    drafts.create_draft: Facts(answer=db.DraftCreated, status=201),
    attachments.get_attachment: Facts(media="application/octet-stream"),
}
FACTS: dict[Endpoint, Facts] = {
    endpoint: structs.replace(_ANSWERS.get(endpoint, Facts()), takes=takes) for endpoint, takes in TAKES.items()
}
