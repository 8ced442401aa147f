"""Users' mail in SQLite: the MailboxStore every surface shares, and the node API's view of the engine's own user."""

from __future__ import annotations

import os

from qmail_core.store.database import Database
from qmail_core.store.mail.journal import JournalPart
from qmail_core.store.mail.mailboxes import MailboxPart
from qmail_core.store.mail.messages import MessagePart
from qmail_core.store.mail.node import NodePart
from qmail_core.store.mail.pieces import Pieces, stored_names

__all__ = ["SqliteMail"]


class SqliteMail(NodePart, MailboxPart, MessagePart, JournalPart):
    """MessageStore and MailboxStore.

    folder  where large pieces of raw messages lie; None keeps them in the database
    """

    def __init__(self, database: Database, folder: str | None) -> None:
        self._db = database
        self._pieces = Pieces(folder)
        self._pieces.sweep(stored_names(database))
        self.changed = _nobody


def _nobody() -> None:
    """Until somebody listens."""


def folder_beside(path: str | None) -> str | None:
    """The folder of pieces that belongs to a database file."""
    return None if path is None else os.path.join(os.path.dirname(path) or ".", "Pieces")
