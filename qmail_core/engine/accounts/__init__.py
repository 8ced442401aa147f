"""Accounts: users, what opens their mailboxes, and the log of who tried."""

from qmail_core.engine.accounts.asps import NewAsp
from qmail_core.engine.accounts.desk import NOWHERE, Origin
from qmail_core.engine.accounts.facade import Accounts
from qmail_core.engine.accounts.login import Authenticated
from qmail_core.engine.accounts.tokens import Bearer, IssuedToken
from qmail_core.engine.accounts.totp import TotpSetup
from qmail_core.engine.accounts.users import NewUser, UserChanges
from qmail_core.store.accounts import Account, AddressState, Asp, Entry, Page, Token

__all__ = [
    "NOWHERE",
    "Account",
    "Accounts",
    "AddressState",
    "Asp",
    "Authenticated",
    "Bearer",
    "Entry",
    "IssuedToken",
    "NewAsp",
    "NewUser",
    "Origin",
    "Page",
    "Token",
    "TotpSetup",
    "UserChanges",
]
