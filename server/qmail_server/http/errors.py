"""Errors to HTTP: one table per dialect, one body that every generation of clients understands.

Rule: nothing outside this file turns an exception into a status. The body is the union of what the interface's
documents show, in an order that keeps each documented example a subsequence of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.exceptions import HTTPException

from qmail_core.errors import (
    AddressError,
    Conflict,
    ErasureError,
    Forbidden,
    InputInvalid,
    NotFound,
    PathRefused,
    PaymentError,
    QMailError,
    QuorumError,
    RateLimited,
    TellError,
    UsageError,
)

log = logging.getLogger("qmail.http")


class Dialect:
    """How one family of routes says that something failed.

    statuses   error class -> HTTP status where it differs from the class's hint; the nearest class in the MRO wins
    prefix     members that stand before the error code in every body
    """

    __slots__ = ("prefix", "statuses")
    headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ()  # of every answer, beside those of its error

    def __init__(self, statuses: Mapping[type[QMailError], int], prefix: Mapping[str, Any]) -> None:
        self.statuses = dict(statuses)
        self.prefix = dict(prefix)

    def status(self, error: QMailError) -> int:
        """The HTTP status of an error."""
        if "hint" in vars(error):  # chosen where it was raised
            return error.hint
        return next((self.statuses[kind] for kind in type(error).__mro__ if kind in self.statuses), error.hint)

    def body(self, status: int, message: str, code: str, members: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """The body of an error; `code` is the error's own word."""
        return {
            "success": False,
            "error": True,
            "status": "fail",
            **self.prefix,
            "error_code": status,
            "message": message,
            "code": status,
            **members,
            "request_id": request_id,
        }


class MailboxDialect(Dialect):
    """The mailbox API: `error` is the sentence, `code` a word; routing failures carry `message` as well."""

    _WORDS: ClassVar[dict[int, str]] = {404: "ResourceNotFound", 405: "MethodNotAllowed", 500: "InternalServerError"}

    def body(self, status: int, message: str, code: str, members: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        word = members.get("code") or CODES.get(message) or CODES.get(code) or code or self._WORDS.get(status, "")
        rest = {name: value for name, value in members.items() if name != "code"}
        return {"error": message, "code": word, "message": message, **rest, "request_id": request_id}


# words of the mailbox API by sentence, where a sentence says more than the class of its error, or by the class's code
CODES = {
    "This user does not exist": "UserNotFound",
    "This mailbox does not exist": "NoSuchMailbox",
    "This message does not exist": "MessageNotFound",
    "This attachment does not exist": "AttachmentNotFound",
    "over_quota": "OverQuotaError",
    "not_found": "NotFound",
    "usage": "InputValidationError",
    "store_unavailable": "InternalDatabaseError",
}


class TransferDialect(Dialect):
    """The file-transfer API: a sentence, and for wrong fields what is wrong with each."""

    def body(self, status: int, message: str, code: str, members: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        return {"message": message, **members}


TRANSFER = TransferDialect({}, {})
MAILBOX = MailboxDialect({Conflict: 400}, {})
NODE = Dialect({}, {})  # the bucketed routes: every class answers its hint
LEGACY_UPLOAD = Dialect(
    {
        UsageError: 400,
        AddressError: 422,
        PathRefused: 404,
        PaymentError: 402,
        QuorumError: 503,
        TellError: 502,
    },
    {"operation": "upload"},
)

# `detail` of a failed network operation: the documented word where there is one, the error's own code otherwise
DETAILS: dict[type[QMailError], str] = {QuorumError: "download_error", ErasureError: "download_error"}


class Failed(QMailError):
    """A failure with a status, a message and further members of its body, as the interface documents them."""

    code = "failed"

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(message, hint=status)
        self.headers = headers
        self.members = members


def network_failure(message: str, error: QMailError) -> QMailError:
    """What a failed network operation answers; what the caller did wrong stays as it is."""
    if isinstance(error, (UsageError, NotFound, Forbidden)):
        return error
    detail = next((DETAILS[kind] for kind in type(error).__mro__ if kind in DETAILS), error.code)
    return Failed(500, message, detail=detail, reason=error.message)


def describe(error: Exception, dialect: Dialect, request_id: str) -> tuple[int, dict[str, Any]]:
    """The status and the body of an error; unknown ones are logged and say nothing."""
    if isinstance(error, QMailError):
        status = dialect.status(error)
        members = error.members if isinstance(error, Failed) else _context(error)
        if isinstance(error, InputInvalid):
            members = {"details": error.details}
        return status, dialect.body(status, error.message, error.code, members, request_id)
    if isinstance(error, HTTPException):  # routes that were not found, or not with this method
        return error.status_code, dialect.body(error.status_code, error.detail, "", {}, request_id)
    log.error("unexpected error", exc_info=error)
    return 500, dialect.body(500, "Internal error", "internal", {}, request_id)


def headers_of(error: Exception) -> tuple[tuple[bytes, bytes], ...]:
    """Headers that belong to an error, such as Allow."""
    given = (error.headers or {}) if isinstance(error, (Failed, HTTPException)) else {}
    if isinstance(error, RateLimited):
        given = {"Retry-After": str(error.retry_after)}
    return tuple((name.lower().encode(), value.encode()) for name, value in given.items())


def _context(error: QMailError) -> dict[str, Any]:
    """How far a failed send came (seed 002), in documented order."""
    guid = getattr(error, "guid", b"")
    if not guid:
        return {}
    names = ("files_uploaded", "files_completed", "files_failed")
    return {"file_guid": guid.hex(), **{name: getattr(error, name) for name in names if hasattr(error, name)}}
