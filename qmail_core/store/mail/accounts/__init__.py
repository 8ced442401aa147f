"""AccountStore in SQLite: users, their addresses, and everything that opens or guards them."""

from __future__ import annotations

from qmail_core.store.database import Database
from qmail_core.store.mail import SqliteMail
from qmail_core.store.mail.accounts.addresses import AddressPart
from qmail_core.store.mail.accounts.asps import AspPart
from qmail_core.store.mail.accounts.authlog import AuthlogPart
from qmail_core.store.mail.accounts.tokens import TokenPart
from qmail_core.store.mail.accounts.totp import TotpPart
from qmail_core.store.mail.accounts.users import UserPart

__all__ = ["SqliteAccounts"]


class SqliteAccounts(UserPart, AddressPart, AspPart, TotpPart, AuthlogPart, TokenPart):
    """AccountStore.

    mail  whose listeners are told of mailboxes that come and go with their users
    """

    def __init__(self, database: Database, mail: SqliteMail) -> None:
        self._db = database
        self._mail = mail
