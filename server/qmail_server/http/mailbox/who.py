"""Whose mail a request is about."""

from __future__ import annotations

from qmail_server.http.respond import Call


def user_of(call: Call, oid: bytes) -> int:
    """The user of an id; NotFound if there is none."""
    return call.engine.mailboxes.user(oid)
