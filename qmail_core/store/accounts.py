"""What a mail store remembers of accounts: who may log in, by what, and what was tried.

The rules of `store.base` hold. Every method that takes a user touches only that user's rows; a user is named by its
number here and by its object id outside. Secrets come and go hashed or sealed; what holds them prints without them.
A row of the log is written in the transaction of the change it tells of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Account(Struct, frozen=True, kw_only=True):
    """One user, without anything secret."""

    id: int
    oid: bytes
    username: str
    name: str
    address: str  # the main one; empty: none
    language: str
    retention: int  # ms for new mailboxes; 0: for ever
    quota: int  # bytes; 0: the service's default
    used: int
    recipients: int  # per day; 0: the service's default
    forwards: int  # per day; 0: the service's default
    forward: str
    target_url: str
    activated: bool
    disabled: bool
    enabled2fa: bool
    has_password: bool
    password_at: int
    created_at: int
    updated_at: int
    meta: bytes  # JSON


class NewMailbox(Struct, frozen=True):
    """A mailbox a new user starts with."""

    oid: bytes
    path: str
    special_use: str | None
    retention: int


class NewAccount(Struct, frozen=True, kw_only=True):
    """A user to be made. Prints without its password."""

    oid: bytes
    username: str
    password: str  # hashed
    address: str
    address_oid: bytes
    mailboxes: tuple[NewMailbox, ...]
    fields: Mapping[str, object]  # other columns

    def __repr__(self) -> str:
        return f"NewAccount({self.username})"


class Credentials(Struct, frozen=True):
    """What a login is checked against. Prints nothing of it."""

    password: str  # hashed; empty: none
    totp_seed: bytes | None  # sealed
    totp_enabled: bool

    def __repr__(self) -> str:
        return "Credentials()"


class AddressState(Struct, frozen=True):
    """One address of a user."""

    id: int
    oid: bytes
    user: bytes  # object id
    address: str
    main: bool
    created_at: int


class Asp(Struct, frozen=True, kw_only=True):
    """An application-specific password, without the password."""

    oid: bytes
    description: str
    scopes: tuple[str, ...]
    created_at: int
    used_at: int = 0


class Token(Struct, frozen=True, kw_only=True):
    """An access token, without its secret."""

    oid: bytes
    user: bytes | None  # object id; None: not bound to a user
    description: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None


class Entry(Struct, frozen=True):
    """A row of a user's authentication log."""

    oid: bytes
    action: str
    created_at: int
    detail: Mapping[str, str]


class Gate(Struct, frozen=True):
    """How many failures of one kind, of one user or one place, are borne within some time."""

    name: str
    most: int
    seconds: int


class TotpAttempt(Struct, frozen=True, kw_only=True):
    """A code of a second factor that was given, and what it was found to be. Prints nothing of it."""

    sealed: bytes  # the seed it was checked against
    step: int | None  # the step whose code it is; None: of none
    enable: bool  # switch the second factor on with it
    gates: Sequence[Gate]
    passed: Entry
    failed: Entry

    def __repr__(self) -> str:
        return "TotpAttempt()"


class Page(Struct, Generic[T], frozen=True):
    """Some rows of a list, in its order."""

    rows: tuple[T, ...]
    total: int
    more: bool  # rows behind this page
    earlier: bool  # rows in front of it


class AccountStore(Protocol):
    """Accounts. Cursors of pages are object ids: rows behind `after`, or the last ones in front of `before`."""

    # ------------------------------------------------------------------ users
    async def adopt_home(self, username: str, address: str, oid: bytes, address_oid: bytes, now: int) -> None:
        """Name the engine's own user and list its address; the first time give it its object id. UserExists."""
        ...

    async def create_account(self, new: NewAccount, now: int) -> Account:
        """Make a user with mailboxes and main address, all or nothing; UserExists, AddressExists."""
        ...

    def account(self, oid: bytes) -> Account | None: ...
    def account_named(self, username: str) -> Account | None:
        """By username; dots make no difference."""
        ...

    def account_at(self, address: str) -> Account | None:
        """By any address, in its normal form."""
        ...

    def accounts(
        self, limit: int, *, words: str = "", after: bytes | None = None, before: bytes | None = None
    ) -> Page[Account]:
        """Users by object id; with `words`, those whose username contains them."""
        ...

    async def change_account(
        self, user: int, fields: Mapping[str, object], now: int, entry: Entry | None = None
    ) -> bool:
        """Set columns; a new password MUST also end the user's tokens. False if there is no such user."""
        ...

    async def remove_account(self, user: int, now: int) -> tuple[list[str], list[bytes]]:
        """Remove a user with everything; returns files nobody needs any more, and the ids of files and uploads."""
        ...

    async def recount(self, user: int) -> tuple[int, int]:
        """Count the bytes of all messages anew; returns what was thought and what is."""
        ...

    def credentials(self, user: int) -> Credentials: ...

    # ------------------------------------------------------------------ addresses
    def addresses(self, user: int) -> list[AddressState]:
        """By address, in the order of code points."""
        ...

    def address(self, user: int, oid: bytes) -> AddressState | None: ...
    def all_addresses(
        self, limit: int, *, words: str = "", after: bytes | None = None, before: bytes | None = None
    ) -> Page[AddressState]:
        """Everybody's addresses by object id; with `words`, those that contain them."""
        ...

    async def add_address(self, user: int, oid: bytes, address: str, now: int, *, main: bool) -> None:
        """AddressExists; the first address of a user is the main one."""
        ...

    async def set_main_address(self, user: int, oid: bytes) -> None:
        """AddressNotFound; UsageError if it is the main one."""
        ...

    async def remove_address(self, user: int, oid: bytes) -> None:
        """AddressNotFound; UsageError if it is the main one."""
        ...

    # ------------------------------------------------------------------ application passwords
    def asps(self, user: int) -> list[Asp]:
        """By object id."""
        ...

    def selected_asps(self, user: int, selector: bytes) -> list[tuple[Asp, bytes]]:
        """Those of a selector, with their hashes."""
        ...

    async def add_asp(self, user: int, asp: Asp, selector: bytes, hashed: bytes, entry: Entry) -> None: ...
    async def remove_asp(self, user: int, oid: bytes, entry: Entry) -> bool:
        """False if the user has none of this id."""
        ...

    # ------------------------------------------------------------------ second factor
    async def seed_totp(self, user: int, sealed: bytes, entry: Entry) -> bool:
        """Keep a seed that is not in use yet; False if another is in use."""
        ...

    async def use_totp(self, user: int, attempt: TotpAttempt, now: int) -> bool:
        """Accept a code, or count a failure.

        A code is accepted if its seed is still the user's and its step is behind the last one accepted; the same
        statement MUST make it the last one, so that of two attempts one succeeds. RateLimited, and nothing is changed,
        if a gate is closed.
        """
        ...

    async def drop_totp(self, user: int, entry: Entry) -> bool:
        """False if the second factor was off."""
        ...

    # ------------------------------------------------------------------ log and gates
    async def record_login(
        self, user: int | None, entry: Entry | None, failed: Sequence[Gate], now: int, *, asp: bytes | None = None
    ) -> None:
        """Log an attempt, count it at the gates it failed at, stamp the application password it was made with."""
        ...

    def log(
        self,
        user: int,
        since: int,
        limit: int,
        *,
        action: str | None = None,
        after: bytes | None = None,
        before: bytes | None = None,
    ) -> Page[Entry]:
        """A user's log not older than `since`, newest first."""
        ...

    def closed_for(self, gates: Sequence[Gate], now: int) -> int:
        """Seconds until all gates are open; 0: they are."""
        ...

    async def forget(self, before: int, now: int) -> None:
        """Remove log rows older than `before`, and tokens and counters whose time is over."""
        ...

    # ------------------------------------------------------------------ tokens
    async def add_token(self, token: Token, hashed: bytes) -> None:
        """UserNotFound if its user is gone."""
        ...

    def token(self, oid: bytes) -> tuple[Token, bytes] | None:
        """A token with the hash of its secret."""
        ...

    def tokens(self, user: int | None) -> list[Token]:
        """A user's tokens, or with None those of no user, by object id."""
        ...

    async def remove_token(self, user: int | None, oid: bytes) -> bool: ...
