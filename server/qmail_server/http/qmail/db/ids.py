"""Ids in parameters, with the words each route says when one is missing or wrong."""

from __future__ import annotations

from qmail_core.errors import UsageError
from qmail_server.http.params import Params
from qmail_server.http.qmail.net import guid_of

_MISSING = "Missing required parameter: email_id"
_INVALID = "Invalid email_id format"
MAX_PAGE = 200
MAX_OFFSET = (1 << 31) - 1


def email_id(params: Params, missing: str = _MISSING, invalid: str = _INVALID, *names: str) -> bytes:
    """The e-mail id under one of these names, `email_id` if none are given."""
    names = names or ("email_id",)
    if not params.has(*names):
        raise UsageError(missing)
    try:
        return guid_of(params, *names)
    except UsageError:
        raise UsageError(invalid) from None


def number(params: Params, name: str, missing: str, invalid: str) -> int:
    """A row number."""
    text = params.text(name).strip()
    if not text:
        raise UsageError(missing)
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UsageError(invalid)
    return int(text)


def limit(params: Params, default: int = 50, most: int = MAX_PAGE) -> int:
    """How many rows at most."""
    return params.integer("limit", default, 1, most)
