"""Users: make, find, change, remove."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET, Struct, UnsetType

from qmail_core.engine.accounts import defaults
from qmail_core.engine.accounts.desk import NOWHERE, UNKNOWN, Desk, Origin, login_gates
from qmail_core.engine.accounts.passwords import MAX_PASSWORD
from qmail_core.engine.accounts.rules import Faults
from qmail_core.engine.mailboxes import remove_files
from qmail_core.errors import (
    AuthFailed,
    ChangeNotAllowed,
    NothingChanged,
    StoreUnavailable,
    UserExists,
    UserNotCreated,
    UserNotFound,
)
from qmail_core.store.accounts import Account, NewAccount, Page
from qmail_core.store.mailbox import HOME

_LEAST_PASSWORD = 8  # of one that replaces another
_MAX_META = 64 * 1024
_NUMBERS = ("retention", "quota", "recipients", "forwards")


class NewUser(Struct, kw_only=True, frozen=True):
    """What a user is made with. Prints without the password."""

    username: str
    password: str
    address: str = ""  # empty: the username at the engine's domain
    name: str = ""
    language: str = "en"
    retention: int = 0  # ms
    quota: int = 0
    recipients: int = 0
    forwards: int = 0
    forward: str = ""
    target_url: str = ""
    meta: bytes = b"{}"  # JSON

    def __repr__(self) -> str:
        return f"NewUser({self.username!r})"


class UserChanges(Struct, kw_only=True, frozen=True):
    """What is to be changed; the rest stays. Prints without values."""

    existing_password: str | UnsetType = UNSET  # checked first, if given
    password: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    language: str | UnsetType = UNSET
    retention: int | UnsetType = UNSET  # ms; of mailboxes to be made
    quota: int | UnsetType = UNSET
    recipients: int | UnsetType = UNSET
    forwards: int | UnsetType = UNSET
    forward: str | UnsetType = UNSET  # empty: none
    target_url: str | UnsetType = UNSET  # empty: none
    disabled: bool | UnsetType = UNSET
    meta: bytes | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"UserChanges({', '.join(self._given())})"

    def _given(self) -> dict[str, object]:
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}

    def fields(self) -> dict[str, object]:
        """What was given, but for the passwords."""
        return {name: value for name, value in self._given().items() if name not in ("password", "existing_password")}


class Users:
    """The users of one engine."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store
        self.drop: Callable[[bytes], None] = lambda _: None  # the sealed file of an id without a row

    # ------------------------------------------------------------------ finding
    def get(self, oid: bytes) -> Account:
        """UserNotFound if there is none."""
        return self._desk.need(oid)

    def resolve(self, text: str) -> Account:
        """By username or any address; UserNotFound."""
        found = self._desk.resolve(text)
        if found is None:
            raise UserNotFound(UNKNOWN)
        return found

    def recipient(self, address: str) -> Account | None:
        """Whose mail it is that is sent to an address; a label (`user+label@`) makes no difference."""
        local, at, domain = address.strip().rpartition("@")
        plain, plus, _ = local.partition("+")
        return self._desk.resolve(f"{plain if plus and plain else local}{at}{domain}")

    def page(
        self, limit: int = 20, *, query: str = "", after: bytes | None = None, before: bytes | None = None
    ) -> Page[Account]:
        """Users by id; with `query`, those whose username contains it."""
        faults = Faults()
        faults.text("query", query, most=100)
        faults.settle()
        return self._store.accounts(limit, words=query.strip().lower(), after=after, before=before)

    # ------------------------------------------------------------------ changing
    async def create(self, new: NewUser, origin: Origin = NOWHERE) -> Account:
        """Make a user with six mailboxes and a main address, all or nothing; UserExists, AddressExists."""
        account = self._check_new(new, origin)
        if self._store.account_named(account.username) is not None:  # before the dear part; the store asks again
            raise UserExists("This username already exists")
        account = msgspec.structs.replace(account, password=await self._desk.passwords.hash(new.password))
        try:
            return await self._store.create_account(account, self._desk.ctx.now())
        except StoreUnavailable as error:
            raise UserNotCreated("Database Error, failed to create user") from error

    def _check_new(self, new: NewUser, origin: Origin) -> NewAccount:
        faults = Faults()
        username = faults.username(new.username)
        faults.text("password", new.password, least=1, most=MAX_PASSWORD)
        names = (*_NUMBERS, "name", "language", "forward", "target_url", "meta")
        fields = _check(faults, {name: getattr(new, name) for name in names})
        address = new.address
        if address or "username" not in faults:
            address = faults.address("address", address or f"{username}@{self._desk.ctx.config.domain}")
        origin.check(faults)
        faults.settle()
        new_oid = self._desk.ctx.new_oid
        return NewAccount(
            oid=new_oid(),
            username=username,
            password="",
            address=address,
            address_oid=new_oid(),
            mailboxes=defaults.mailboxes(str(fields["language"]), new.retention, new_oid),
            fields=fields,
        )

    async def update(self, oid: bytes, changes: UserChanges, origin: Origin = NOWHERE) -> None:
        """Change what is given; NothingChanged, AuthFailed, UserNotFound. A new password ends the user's tokens."""
        fields = self._check_changes(changes, origin)
        account = self._desk.need(oid, "user was not found")
        if changes.existing_password is not UNSET:
            await self._verify(account, changes.existing_password, origin)
        entry = None
        if changes.password is not UNSET:
            fields["password"] = await self._desk.passwords.hash(changes.password)
            entry = self._desk.entry("password change", origin, result="success")
        if not await self._store.change_account(account.id, fields, self._desk.ctx.now(), entry):
            raise UserNotFound("user was not found")

    def _check_changes(self, changes: UserChanges, origin: Origin) -> dict[str, object]:
        faults = Faults()
        fields = _check(faults, changes.fields())
        if changes.password is not UNSET:
            faults.text("password", changes.password, least=_LEAST_PASSWORD, most=MAX_PASSWORD)
        if changes.existing_password is not UNSET:
            faults.text("existingPassword", changes.existing_password, least=1, most=MAX_PASSWORD)
        origin.check(faults)
        faults.settle()
        if not fields and changes.password is UNSET:
            raise NothingChanged("Nothing was updated")
        return fields

    async def _verify(self, account: Account, password: str, origin: Origin) -> None:
        """Check the present password, as a login would be."""
        desk, gates = self._desk, login_gates(account.oid.hex(), origin)
        async with desk.passwords.turn():
            desk.pass_gates(gates)
            if await desk.passwords.verify(self._store.credentials(account.id).password, password):
                return
            entry = desk.entry("password change", origin, result="fail")
            await self._store.record_login(account.id, entry, gates, desk.ctx.now())
        raise AuthFailed("Password verification failed")

    async def delete(self, oid: bytes) -> None:
        """Remove a user with all mail and files; not the engine's own."""
        account = self._desk.need(oid)
        if account.id == HOME:
            raise ChangeNotAllowed("The user of this engine can not be deleted")
        paths, sealed = await self._store.remove_account(account.id, self._desk.ctx.now())
        remove_files(paths)
        for file in sealed:
            self.drop(file)

    async def reset_quota(self, oid: bytes) -> tuple[int, int]:
        """Count a user's bytes anew; returns what was thought and what is."""
        return await self._store.recount(self._desk.need(oid).id)


def _check(faults: Faults, fields: dict[str, object]) -> dict[str, object]:
    """Columns as they are stored, of fields as they were given."""
    checked = dict(fields)
    for name, value in fields.items():
        if name in _NUMBERS and isinstance(value, int):
            faults.number(name, value)
        elif name == "name":
            faults.text(name, str(value))
        elif name == "target_url":
            faults.text("targetUrl", str(value))
        elif name == "language":
            checked[name] = faults.language(str(value))
        elif name == "forward" and value:
            checked[name] = faults.address(name, str(value), plus=True)
        elif name == "meta" and isinstance(value, bytes) and len(value) > _MAX_META:
            faults.add("metaData", f"must be less than or equal to {_MAX_META} bytes")
    return checked
