"""Endpoints of Object Transfer: files as objects at one server, followed, resumed and cancelled by an operation's id.

Unlike elsewhere, a number out of range is refused and not clamped, and each route has but one verb.
"""

from __future__ import annotations

import re

from qmail_core.errors import Conflict, PathRefused, QMailError, UsageError
from qmail_server.http.errors import Failed, network_failure
from qmail_server.http.qmail.answers import objects as answers
from qmail_server.http.qmail.net import MAX_PATH, wallet_of
from qmail_server.http.respond import Call, Json

MOST = (1 << 64) - 1
MAX_CHUNK = (1 << 32) - 1
MAX_TYPE, MAX_CLASS = 255, (1 << 16) - 1
_TYPE, _CHUNK = 2, 1 << 20
_ID = re.compile(r"[0-9a-fA-F]{32}")
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)


async def capabilities(call: Call) -> answers.CapabilitiesAnswer:
    """What a server offers to those who store objects."""
    wallet_of(call)
    node = _server(call)
    try:
        return answers.capabilities(await call.engine.operations.capabilities(node))
    except QMailError as error:
        raise Failed(502, "Capability query failed", detail=error.code, reason=error.message) from error


async def upload(call: Call) -> Json:
    """Store a file as one object at one server."""
    source = _path(call, "source_path")
    operation = _number(call, "operation", 0, 1)
    try:
        begun = await call.engine.operations.upload(
            source,
            node=_server(call),
            file_type=_number(call, "file_type", _TYPE, MAX_TYPE),
            object_id=_id(call, "object_id") if call.params.has("object_id") else None,
            locker=call.params.text("locker_key").strip(),
            retention=_number(call, "retention_seconds", 0, MOST),
            storage_class=_number(call, "storage_class", 0, MAX_CLASS),
            chunk=_number(call, "preferred_chunk_bytes", _CHUNK, MAX_CHUNK, least=1),
            replaces=operation == 1,
            expected=_number(call, "expected_generation", 0, MOST),
            target=_target(call),
            wallet=wallet_of(call),
        )
    except PathRefused as error:
        raise UsageError("source_path not found or not readable") from error
    except QMailError as error:
        raise _not_begun("upload", error) from error
    return Json(answers.shown("object-upload", "Upload accepted", begun, accepted=True), 202)


async def download(call: Call) -> Json:
    """Bring an object of one server into a file."""
    object_id = _id(call, "object_id")
    destination = _path(call, "destination_path")
    wallet_of(call)
    try:
        begun = await call.engine.operations.download(
            object_id,
            destination,
            node=_server(call),
            file_type=_number(call, "file_type", _TYPE, MAX_TYPE),
            generation=_number(call, "generation", 0, MOST),
            chunk=_number(call, "preferred_range_bytes", _CHUNK, MAX_CHUNK, least=1),
        )
    except PathRefused as error:
        raise UsageError("destination_path is not in a folder files may be written to") from error
    except Conflict as error:
        raise Conflict("destination_path exists already") from error
    except QMailError as error:
        raise _not_begun("download", error) from error
    return Json(answers.shown("object-download", "Download accepted", begun, accepted=True), 202)


async def delete(call: Call) -> Json:
    """Delete an object of one server."""
    object_id = _id(call, "object_id")
    try:
        begun = await call.engine.operations.delete(
            object_id,
            _number(call, "expected_generation", 1, MOST),
            _target(call),
            node=_server(call),
            file_type=_number(call, "file_type", _TYPE, MAX_TYPE),
        )
    except QMailError as error:
        raise _not_begun("object deletion", error) from error
    return Json(answers.shown("object-delete", "Deletion accepted", begun, accepted=True), 202)


async def status(call: Call) -> answers.TransferAnswer:
    """How far a transfer is."""
    operation = call.engine.operations.get(_id(call, "operation_id"))
    return answers.shown("object-transfer-status", operation.last_result, operation)


async def resume(call: Call) -> Json:
    """Go on with a transfer that was paused."""
    operation = await call.engine.operations.resume(_id(call, "operation_id"))
    return Json(answers.shown("object-transfer-resume", "Transfer resumed", operation, accepted=True), 202)


async def cancel(call: Call) -> Json:
    """Give a transfer up."""
    operation = await call.engine.operations.cancel(_id(call, "operation_id"))
    return Json(answers.shown("object-transfer-cancel", "Transfer cancelled", operation), 202)


def _not_begun(what: str, error: QMailError) -> QMailError:
    return network_failure(f"Could not create {what}", error)


def _path(call: Call, name: str) -> str:
    path = call.params.text(name)
    if not path:
        raise UsageError(f"{name} is required")
    if len(path) > MAX_PATH:
        raise UsageError(f"{name} is too long")
    return path


def _id(call: Call, name: str) -> bytes:
    text = call.params.text(name).strip()
    if not text:
        raise UsageError(f"{name} is required")
    if not _ID.fullmatch(text):
        raise UsageError(f"Invalid {name}")
    return bytes.fromhex(text)


def _number(call: Call, name: str, default: int, most: int, least: int = 0) -> int:
    text = call.params.text(name).strip()
    if not text:
        return default
    if not _DIGITS.fullmatch(text):
        raise UsageError(f"Invalid {name}")
    if not least <= int(text) <= most:
        raise UsageError(f"{name} is out of range")
    return int(text)


def _target(call: Call) -> int | None:
    return _number(call, "target_generation", 0, MOST) if call.params.has("target_generation") else None


def _server(call: Call) -> int | None:
    if not call.params.has("raida_id"):
        return None
    return _number(call, "raida_id", 0, len(call.engine.network.servers()) - 1)
