"""Errors to HTTP: one table per dialect, one body that every generation of clients understands.

Rule: nothing outside this file turns an exception into a status. The body is the union of what the interface's
documents show, in an order that keeps each documented example a subsequence of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from qmail_core.errors import (
    AddressError,
    ErasureError,
    Forbidden,
    NotFound,
    PathRefused,
    PaymentError,
    QMailError,
    QuorumError,
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

    def __init__(self, statuses: Mapping[type[QMailError], int], prefix: Mapping[str, Any]) -> None:
        self.statuses = dict(statuses)
        self.prefix = dict(prefix)

    def status(self, error: QMailError) -> int:
        """The HTTP status of an error."""
        if "hint" in vars(error):  # chosen where it was raised
            return error.hint
        return next((self.statuses[kind] for kind in type(error).__mro__ if kind in self.statuses), error.hint)


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
        members = error.members if isinstance(error, Failed) else _context(error)
        return _answer(dialect.status(error), error.message, members, dialect, request_id)
    if isinstance(error, HTTPException):  # routes that were not found, or not with this method
        return _answer(error.status_code, error.detail, {}, dialect, request_id)
    log.error("unexpected error", exc_info=error)
    return _answer(500, "Internal error", {}, dialect, request_id)


def headers_of(error: Exception) -> tuple[tuple[bytes, bytes], ...]:
    """Headers that belong to an error, such as Allow."""
    given = (error.headers or {}) if isinstance(error, (Failed, HTTPException)) else {}
    return tuple((name.lower().encode(), value.encode()) for name, value in given.items())


def _context(error: QMailError) -> dict[str, Any]:
    """How far a failed send came (seed 002), in documented order."""
    guid = getattr(error, "guid", b"")
    if not guid:
        return {}
    names = ("files_uploaded", "files_completed", "files_failed")
    return {"file_guid": guid.hex(), **{name: getattr(error, name) for name in names if hasattr(error, name)}}


def _answer(
    status: int, message: str, members: Mapping[str, Any], dialect: Dialect, request_id: str
) -> tuple[int, dict[str, Any]]:
    return status, {
        "success": False,
        "error": True,
        "status": "fail",
        **dialect.prefix,
        "error_code": status,
        "message": message,
        "code": status,
        **members,
        "request_id": request_id,
    }
