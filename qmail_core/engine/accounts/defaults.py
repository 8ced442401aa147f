"""What a user has who asks for nothing: limits, and the mailboxes of a language."""

from __future__ import annotations

from collections.abc import Callable

from qmail_core.store.accounts import NewMailbox

QUOTA = 1 << 30  # bytes
RECIPIENTS = 2000  # a day
FORWARDS = 2000  # a day
BRIEF_RETENTION = 30 * 24 * 3600 * 1000  # ms; nothing stays longer in trash and junk

_BRIEF = ("\\Trash", "\\Junk")
_USES = ("\\Sent", "\\Trash", "\\Drafts", "\\Junk", "\\Archive")
_NAMES = {
    "en": ("Sent Mail", "Trash", "Drafts", "Junk", "Archive"),
    "et": ("Saadetud kirjad", "Prügikast", "Mustandid", "Rämpspost", "Arhiiv"),
}


def mailboxes(language: str, retention: int, new_oid: Callable[[], bytes]) -> tuple[NewMailbox, ...]:
    """The inbox and five special mailboxes; an unknown language is English."""
    names = _NAMES.get(language, _NAMES["en"])
    return (
        NewMailbox(new_oid(), "INBOX", None, retention),
        *(NewMailbox(new_oid(), name, use, _retention(use, retention)) for name, use in zip(names, _USES, strict=True)),
    )


def _retention(use: str, retention: int) -> int:
    if use not in _BRIEF:
        return retention
    return min(retention or BRIEF_RETENTION, BRIEF_RETENTION)  # 0 is for ever
