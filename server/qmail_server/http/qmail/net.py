"""Endpoints that reach the network: upload, tell, download, beacons, repair.

The order of the checks of an upload is part of the interface: body source, guid, recipient lists, addresses, wallet,
attachments, and only then reading the body.
"""

from __future__ import annotations

import os.path
import re
import time
from collections.abc import Callable
from typing import BinaryIO

from qmail_core.errors import AddressError, Conflict, NotFound, PathRefused, QMailError, UsageError
from qmail_core.model import Draft, Durability, Kind, Polled, Recipient, RequestKey, Source
from qmail_server.http.errors import network_failure
from qmail_server.http.params import MAX_FILES, Params
from qmail_server.http.qmail import pings, repeats, schema
from qmail_server.http.qmail.answers import sends
from qmail_server.http.respond import Call, Json

MAX_RECIPIENTS = 50  # per field
MAX_PATH = 4096
MAX_WEEKS = 520
MAX_HOLD = 86_400  # seconds
MAX_WAIT = 600.0  # seconds of a long poll
_WEEKS = 4
_GUID = re.compile(r"[0-9a-fA-F]{32}")
_SERIAL = re.compile(r"[0-9]{1,10}", re.ASCII)
_TOO_LONG = {Kind.TO: "Recipient list too long", Kind.CC: "CC list too long", Kind.BCC: "BCC list too long"}
_NO_TELL = "No pending tell found for this file_guid. Pass sender_sn to download directly."
_BODIES = ("body", "plain_text_qmail_path", "email_file")


async def upload(call: Call) -> schema.UploadStarted:
    """Stage a mail; tell nobody."""
    return await _start(call, "qmail-upload", "Upload started (no Tell)", tell=False)


async def upload_and_tell(call: Call) -> schema.UploadStarted:
    """Stage a mail and tell its recipients."""
    return await _start(call, "qmail-upload-and-tell", "Upload+Tell started", tell=True)


async def tell(call: Call) -> schema.TellStarted:
    """Tell the recipients of a staged mail."""
    guid = guid_of(call.params, "file_guid")
    if call.params.has("to", "cc", "bcc"):
        raise Conflict("Recipient overrides are not allowed; recipients come from the receipt")
    return schema.tell_started(await call.engine.start_tell(guid), call.request_id)


async def download(call: Call) -> schema.DownloadAnswer | Json:
    """Fetch a mail from the network into the store.

    With `async` a task does it: the answer to a mail that is not here yet is 202, and an event tells when it is.
    """
    guid = guid_of(call.params, "file_guid")
    sender = _sender_sn(call.params)
    try:
        if call.params.flag("async"):
            begun = call.engine.start_download(guid, sender)
            if isinstance(begun, str):
                return Json(sends.download_started(guid, begun, call.request_id), 202)
            return schema.downloaded(begun)
        return schema.downloaded(await call.engine.download(guid, sender))
    except NotFound as error:
        raise (error if sender is not None else NotFound(_NO_TELL)) from error
    except QMailError as error:
        raise network_failure("Download failed", error) from error


async def peek(call: Call) -> schema.PeekAnswer:
    """What waits at the beacons, at once."""
    since = _since(call.params)
    try:
        polled = await call.engine.peek(since)
    except QMailError as error:
        raise network_failure("Peek failed", error) from error
    return schema.peek(_items(call, polled), _debug(call, since), call.request_id)


async def older_ping(call: Call) -> sends.OlderPing:
    """A peek under its oldest name, with other members."""
    polled = (await peek(call)).notifications
    rows = [sends.OlderMessage(id=row.file_guid, timestamp=row.timestamp, size=row.total_file_size) for row in polled]
    active = call.engine.beacon.state.running
    return sends.OlderPing(
        timestamp=int(time.time()),
        beacon_status="active" if active else "idle",
        has_mail=bool(rows),
        message_count=len(rows),
        messages=rows,
    )


async def ping(call: Call) -> schema.PingAnswer | Json:
    """Wait at the beacons until something comes, the time is over or the client has left."""
    since, timeout = _since(call.params), _timeout(call.params)
    begun = time.monotonic()
    try:
        polled = await pings.polled(call, timeout, since)
    except QMailError as error:
        raise network_failure("Ping failed", error) from error
    return pings.answer(call, polled, _debug(call, since), int((time.monotonic() - begun) * 1000))


async def cancel_hold(call: Call) -> sends.HoldCancelled:
    """Tell nobody of a mail whose Tell is held."""
    guid = guid_of(call.params, "file_guid")
    await call.engine.cancel_hold(guid)
    return sends.HoldCancelled(file_guid=guid.hex())


async def explain(call: Call) -> sends.ExplainAnswer:
    """Where a mail lies, who answers, what it survives."""
    guid = guid_of(call.params, "file_guid")
    return sends.explained(await call.engine.network.explain(guid))


async def repair(call: Call) -> schema.RepairAnswer:
    """Look after the stripes of a mail."""
    guid = guid_of(call.params, "file_guid")
    return schema.repaired(await call.engine.repair(guid), call.request_id)


def spool(call: Call, name: str) -> tuple[BinaryIO, Source]:
    """A file for an attachment that comes along, filed under the guid of its mail."""
    if not call.guid:
        guid = guid_of(call.params, "file_guid", optional=True)
        if guid and repeats.has_key(call) and call.engine.receipt_exists(guid):
            guid = b""  # most likely a repetition, whose files nobody needs
        _refuse_used(call, guid)
        call.guid = guid or call.engine.new_guid()
    return call.engine.spool(call.guid, name)


# ------------------------------------------------------------------------------------------------------------------
# Parameters to engine values


async def _start(call: Call, command: str, what: str, *, tell: bool) -> schema.UploadStarted:
    key = await repeats.key_of(call, command)
    started = None if key is None else call.engine.repeated(key)
    if started is None:
        draft = _draft(call, tell, key)
        try:
            started = await call.engine.start_upload(draft, tell=tell)
        except Conflict:
            # the same request may have come in twice at the same moment
            started = None if key is None else call.engine.repeated(key)
            if started is None:
                raise
    if call.guid and call.guid != started.guid:
        call.engine.drop_spool(call.guid)
    return schema.upload_started(command, what, started, call.request_id)


def _draft(call: Call, tell: bool, key: RequestKey | None) -> Draft:
    params = call.params
    given = [name for name in _BODIES if params.has(name)]
    if not given:
        raise UsageError("Missing body source: supply one of body, plain_text_qmail_path, or email_file")
    if len(given) > 1:
        raise UsageError("body, plain_text_qmail_path and email_file are mutually exclusive")
    guid = guid_of(params, "file_guid", optional=True)
    _refuse_used(call, guid)
    if call.guid and guid not in (b"", call.guid):
        raise UsageError("file_guid must come before the attachments")
    recipients = recipients_of(call, complain)
    if tell and not recipients:
        raise UsageError("At least one recipient required (to/cc/bcc)")
    wallet = wallet_of(call)
    attachments = attachments_of(call, "Attachment not found or not readable: {}")
    return Draft(
        subject=params.text("subject"),
        body=_body(call) if given != ["email_file"] else None,
        document=document_of(call) if given == ["email_file"] else None,
        recipients=recipients,
        attachments=attachments,
        duration_weeks=params.integer("duration", _WEEKS, 1, MAX_WEEKS),
        guid=guid or call.guid or None,
        wallet=wallet,
        durability=_durability(call),
        hold_seconds=_hold(params, tell),
        key=key,
    )


def _hold(params: Params, tell: bool) -> int:
    if not tell and params.has("hold_seconds"):
        raise UsageError("hold_seconds needs a Tell to hold: use upload_and_tell")
    return params.integer("hold_seconds", 0, 0, MAX_HOLD)


def _refuse_used(call: Call, guid: bytes) -> None:
    if guid and call.engine.receipt_exists(guid):
        raise Conflict("A receipt already exists for that file_guid")


def guid_of(params: Params, *names: str, optional: bool = False) -> bytes:
    """The GUID under the first of these names; empty when it is optional and not given."""
    text = params.text(*names).strip()
    if not text and optional:
        return b""
    if not text:
        raise UsageError(f"Missing required parameter: {names[0]}")
    if not _GUID.fullmatch(text):
        raise UsageError(f"Invalid {names[0]} format (expected 32 hex chars)")
    return bytes.fromhex(text)


def recipients_of(call: Call, complain: Callable[[Kind, str, str], UsageError]) -> tuple[Recipient, ...]:
    """All recipients; `complain` words the error for a text that is no address (kind, text, reason)."""
    lists = {kind: call.engine.split_list(call.params.many(kind.value)) for kind in Kind}
    for kind, texts in lists.items():
        if len(texts) > MAX_RECIPIENTS:
            raise UsageError(_TOO_LONG[kind])
    found = []
    for kind, texts in lists.items():
        for text in texts:
            try:
                found.append(Recipient(kind, text, call.engine.resolve(text)))
            except AddressError as error:
                raise complain(kind, text, error.message) from error
    return tuple(found)


def complain(kind: Kind, text: str, reason: str) -> UsageError:
    """The words for a text that is no address."""
    return UsageError(f'Invalid {kind.value.capitalize()} address "{text}": {reason}')


def wallet_of(call: Call, *, pays: bool = True) -> str:
    """The wallet that pays, or that is only looked at."""
    text = call.params.text("wallet_path")
    return call.engine.wallet_name(text, pays=pays) if text else "Default"


def attachments_of(call: Call, refusal: str) -> tuple[Source, ...]:
    """Files named by path, then files that came with the request; `refusal` words the error for a path."""
    # a repeated path is one path each, commas and all; only the older single parameter is a list
    paths = call.params.many("attachment_file_path") or call.engine.split_list(call.params.many("attachments"))
    if len(paths) + len(call.params.files) > MAX_FILES:
        raise UsageError(f"Too many attachments: maximum is {MAX_FILES}")
    return (*(_attachment(call, path, refusal) for path in paths), *call.params.files)


def _attachment(call: Call, path: str, refusal: str) -> Source:
    if len(path) > MAX_PATH:
        raise UsageError("Attachment path is too long")
    try:
        resolved = call.engine.allow_path(path)
    except PathRefused as error:
        raise PathRefused(refusal.format(path)) from error
    return Source(name=os.path.basename(resolved), path=resolved)


def _body(call: Call) -> str:
    path, limit = call.params.text("plain_text_qmail_path"), call.engine.config.max_body
    if not path:
        text = call.params.text("body")
        if len(text) > limit // 4 and len(text.encode()) > limit:  # a character has four bytes at most
            raise UsageError(f"body is too large (max {_megabytes(limit)} MB)")
        return text
    try:
        return call.engine.read_path(path, limit).decode()
    except PathRefused as error:
        raise UsageError("plain_text_qmail_path not found or not readable") from error
    except UnicodeDecodeError as error:
        raise UsageError("plain_text_qmail_path is not UTF-8 text") from error
    except UsageError as error:
        raise UsageError(f"plain_text_qmail_path is empty or too large (max {_megabytes(limit)} MB)") from error


def document_of(call: Call, refusal: QMailError | None = None) -> bytes:
    """The ready document; `refusal` is raised for a path instead of the usual error."""
    limit = call.engine.config.max_document
    try:
        return call.engine.read_path(call.params.text("email_file"), limit)
    except PathRefused as error:
        raise (refusal or UsageError("email_file not found or not readable")) from error
    except UsageError as error:
        raise UsageError(f"email_file is empty or too large (max {_megabytes(limit)} MB)") from error


def _megabytes(size: int) -> int:
    return round(size / 1_000_000)


def _durability(call: Call) -> Durability:
    text = call.params.text("durability").strip().lower()
    try:
        return Durability(text) if text else call.engine.config.durability
    except ValueError:
        raise UsageError("Invalid durability (fast, safe or full)") from None


def _sender_sn(params: Params) -> int | None:
    text = params.text("sender_sn").strip()
    if not text:
        return None
    if not _SERIAL.fullmatch(text) or not 0 < int(text) < 1 << 32:
        raise UsageError("Invalid sender_sn (must be a positive integer)")
    return int(text)


def _since(params: Params) -> int:
    return params.integer("since", 0, 0, (1 << 32) - 1)  # the wire has 32 bits for it


def _timeout(params: Params) -> float:
    seconds = params.number("timeout", MAX_WAIT, 0.0, MAX_WAIT)
    return params.number("timeout_ms", seconds * 1000, 0.0, MAX_WAIT * 1000) / 1000


def _items(call: Call, polled: Polled) -> list[schema.NotificationItem]:
    return [schema.notification(row, call.engine.render(row.tell.sender)) for row in polled.notifications]


def _debug(call: Call, since: int) -> schema.BeaconDebug:
    address = call.engine.address
    return schema.BeaconDebug(
        beacon_raida=call.engine.config.beacons[0],
        serial_number=address.serial,
        denomination=address.denomination,
        since_timestamp=since,
    )
