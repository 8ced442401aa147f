"""The embedded MailStore: SQLite through `database.Database`. Each part implements one protocol of `base`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from qmail_core.errors import Conflict, NotFound
from qmail_core.folders import make_private
from qmail_core.model import Address, Coin, Contact, OutgoingTell, PaymentStatus, Receipt, RequestKey
from qmail_core.store.base import Claim, Locker, LockerKind, LockerState, SendRow, Work, WorkKind
from qmail_core.store.database import Database
from qmail_core.store.mail import SqliteMail, folder_beside
from qmail_core.store.mail.accounts import SqliteAccounts
from qmail_core.store.mail.node import set_payment
from qmail_core.store.mail.post import SqlitePost
from qmail_core.store.sqlite_files import SqliteFiles
from qmail_core.store.sqlite_operations import SqliteOperations
from qmail_core.store.when import FOREVER

Row = tuple[Any, ...]


def _bitmap(nodes: Iterable[int]) -> bytes:
    bits = sum(1 << node for node in set(nodes))
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _nodes(bitmap: bytes) -> frozenset[int]:
    bits = int.from_bytes(bitmap, "little")
    return frozenset(node for node in range(bits.bit_length()) if bits >> node & 1)


def _coin(row: Row) -> Coin:
    return Coin(Address(row[0], row[1]), row[2])


_LOCKER = "code, kind, value, state, wallet, funded_at, guid, unit, node, created_at, consumed_at"


def _locker(row: Row) -> Locker:
    return Locker(
        code=row[0],
        kind=LockerKind(row[1]),
        value=row[2],
        state=LockerState(row[3]),
        wallet=row[4],
        funded=_nodes(row[5]),
        guid=row[6],
        unit=row[7],
        node=row[8],
        created_at=row[9],
        consumed_at=row[10],
    )


class SqliteWallet:
    """WalletStore."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._counted: tuple[int, dict[tuple[str, int, int], int]] = (-1, {})  # free lockers, at a revision

    def coins(self, wallet: str, limit: int = 100_000) -> list[Coin]:
        with self._db.read() as db:
            rows = db.execute(
                "SELECT denomination, serial, ans FROM coin WHERE wallet=? ORDER BY denomination, serial LIMIT ?",
                (wallet, limit),
            )
            return list(map(_coin, rows))

    def balance(self, wallet: str) -> int:
        with self._db.read() as db:
            rows = db.execute("SELECT denomination, count(*) FROM coin WHERE wallet=? GROUP BY denomination", (wallet,))
            return sum(int(10**denomination) * count for denomination, count in rows)

    def wallets(self) -> list[str]:
        with self._db.read() as db:
            return [name for (name,) in db.execute("SELECT DISTINCT wallet FROM coin ORDER BY wallet")]

    async def add_coins(self, wallet: str, coins: Iterable[Coin]) -> None:
        listed = list(coins)
        await self._db.write(lambda db: _add_coins(db, wallet, listed))

    async def renew(self, changes: Iterable[tuple[Coin, Coin]]) -> None:
        rows = [(new.ans, old.address.denomination, old.address.serial, old.ans) for old, new in changes]
        sql = "UPDATE coin SET ans=? WHERE denomination=? AND serial=? AND ans=?"
        await self._db.write(lambda db: db.executemany(sql, rows))

    async def begin_work(self, works: Iterable[Work], now: int) -> None:
        begun = list(works)

        def change(db: sqlite3.Connection) -> None:
            for work in begun:
                _leave(db, work)
                row = (work.id, work.kind, work.wallet, work.session, now, work.payment)
                db.execute("INSERT INTO work VALUES (?,?,?,?,?,?)", row)
                for side, coins in enumerate((work.given, work.taken)):
                    rows = [(work.id, side, *_key(coin), coin.ans) for coin in coins]
                    db.executemany("INSERT INTO work_coin VALUES (?,?,?,?,?)", rows)

        await self._db.write(change)

    async def end_work(
        self, ends: Mapping[bytes, tuple[str, Sequence[Coin]]], payments: Mapping[bytes, PaymentStatus] | None = None
    ) -> None:
        def change(db: sqlite3.Connection) -> None:
            for work, (wallet, coins) in ends.items():
                db.execute("DELETE FROM work_coin WHERE work=?", (work,))
                if db.execute("DELETE FROM work WHERE id=?", (work,)).rowcount:
                    _add_coins(db, wallet, coins)
            for guid, status in (payments or {}).items():
                set_payment(db, guid, status)

        await self._db.write(change)

    def works(self) -> list[Work]:
        with self._db.read() as db:
            sql = "SELECT id, kind, wallet, session, created_at, payment FROM work ORDER BY created_at, id"
            return [_work(db, row) for row in db.execute(sql).fetchall()]

    async def begin_funding(self, lockers: Mapping[str, tuple[Locker, Sequence[Coin]]], now: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            db.execute(_FORGET_SPENT)
            for code, (locker, coins) in lockers.items():
                db.execute(
                    "INSERT INTO locker (code, kind, value, state, wallet, created_at) VALUES (?,?,?,?,?,?)",
                    (code, locker.kind, locker.value, LockerState.FUNDING, locker.wallet, now),
                )
                for coin in coins:
                    key = (coin.address.denomination, coin.address.serial)
                    gone = db.execute("DELETE FROM coin WHERE denomination=? AND serial=?", key).rowcount
                    if gone != 1:
                        raise Conflict("a coin has left the wallet meanwhile")
                    db.execute("INSERT INTO locker_coin VALUES (?,?,?,?)", (code, *key, coin.ans))

        await self._db.write(change)

    async def end_funding(
        self, funded: Mapping[str, frozenset[int]], returned: Iterable[str], state: LockerState
    ) -> None:
        rows = [(_bitmap(nodes), state, code) for code, nodes in funded.items()]
        back = [(code,) for code in returned]

        def change(db: sqlite3.Connection) -> None:
            db.executemany(f"UPDATE locker SET funded_at=?, state=? WHERE code=? AND {_UNFILLED}", rows)
            db.executemany(
                "INSERT OR REPLACE INTO coin SELECT c.denomination, c.serial, wallet, c.ans"
                f" FROM locker_coin c JOIN locker USING (code) WHERE code=? AND {_UNFILLED}",
                back,
            )
            for (code,) in back:
                _forget(db, code)

        await self._db.write(change)

    async def dissolve(self, code: str, wallets: Mapping[str, Sequence[Coin]]) -> None:
        def change(db: sqlite3.Connection) -> None:
            if _forget(db, code):
                for wallet, coins in wallets.items():
                    _add_coins(db, wallet, coins)

        await self._db.write(change)

    def locker_coins(self, code: str) -> list[Coin]:
        with self._db.read() as db:
            rows = db.execute("SELECT denomination, serial, ans FROM locker_coin WHERE code=?", (code,))
            return list(map(_coin, rows))

    def lockers(self, *, state: LockerState | None = None, guid: bytes | None = None) -> list[Locker]:
        given = {"state=?": state, "guid=?": guid}  # only what is asked for, so that its index is used
        where = " AND ".join(term for term, value in given.items() if value is not None) or "1"
        values = [value for value in given.values() if value is not None]
        with self._db.read() as db:
            rows = db.execute(f"SELECT {_LOCKER} FROM locker WHERE {where} ORDER BY created_at, code", values)
            return list(map(_locker, rows))

    def paid(self, wallet: str, limit: int, offset: int) -> list[bytes]:
        with self._db.read() as db:
            rows = db.execute(
                "SELECT guid FROM locker WHERE wallet=? AND state=? AND guid IS NOT NULL"
                " GROUP BY guid ORDER BY max(consumed_at) DESC, guid LIMIT ? OFFSET ?",
                (wallet, LockerState.CONSUMED, limit, offset),
            )
            return [bytes(row[0]) for row in rows]

    def available(self, wallet: str, kind: LockerKind, value: int) -> int:
        # each mail asks, and a commit serves many
        revision, counts = self._counted
        if revision != self._db.revision:
            revision, counts = self._counted = self._db.revision, {}
        count = counts.get((wallet, kind, value))
        if count is None:
            with self._db.read() as db:
                row = db.execute(
                    "SELECT count(*) FROM locker WHERE state=? AND kind=? AND wallet=? AND value=?",
                    (LockerState.AVAILABLE, kind, wallet, value),
                ).fetchone()
            count = counts[wallet, kind, value] = int(row[0])
        return count

    async def reserve(self, guid: bytes, wallet: str, claims: Sequence[tuple[LockerKind, Claim, int]]) -> list[Locker]:
        return await self._db.write(lambda db: _reserve(db, guid, wallet, claims))

    async def settle(self, changes: Mapping[str, LockerState], now: int, *, expected: LockerState) -> None:
        free = [(code, expected) for code, state in changes.items() if state == LockerState.AVAILABLE]
        rows = [(state, now if state == LockerState.CONSUMED else 0, code, expected) for code, state in changes.items()]

        def change(db: sqlite3.Connection) -> None:
            db.executemany("UPDATE locker SET guid=NULL, unit=NULL, node=NULL WHERE code=? AND state=?", free)
            db.executemany("UPDATE locker SET state=?, consumed_at=? WHERE code=? AND state=?", rows)

        await self._db.write(change)

    async def add_funded(self, code: str, node: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            (old,) = db.execute("SELECT funded_at FROM locker WHERE code=?", (code,)).fetchone()
            db.execute("UPDATE locker SET funded_at=? WHERE code=?", (_bitmap(_nodes(old) | {node}), code))

        await self._db.write(change)


# a locker nobody was ever shown, so that its coins may leave it again
_UNFILLED = f"(state={LockerState.FUNDING:d} OR state={LockerState.LIMBO:d} AND guid IS NULL)"


def _forget(db: sqlite3.Connection, code: str) -> bool:
    """Remove an unfilled locker; whether there was one."""
    db.execute(f"DELETE FROM locker_coin WHERE code=(SELECT code FROM locker WHERE code=? AND {_UNFILLED})", (code,))
    return db.execute(f"DELETE FROM locker WHERE code=? AND {_UNFILLED}", (code,)).rowcount == 1


def _key(coin: Coin) -> tuple[int, int]:
    return coin.address.denomination, coin.address.serial


_ELSEWHERE = (
    "SELECT 1 FROM work_coin WHERE denomination=?1 AND serial=?2 UNION ALL"
    f" SELECT 1 FROM locker_coin JOIN locker USING (code)"
    f" WHERE denomination=?1 AND serial=?2 AND state<>{LockerState.CONSUMED:d}"
)
# in this order, because few lockers have coins, however many were ever spent
_FORGET_SPENT = (
    "DELETE FROM locker_coin WHERE rowid IN"
    f" (SELECT c.rowid FROM locker_coin c CROSS JOIN locker l USING (code) WHERE l.state={LockerState.CONSUMED:d})"
)


def _add_coins(db: sqlite3.Connection, wallet: str, coins: Iterable[Coin]) -> None:
    for coin in coins:
        if not db.execute(_ELSEWHERE, _key(coin)).fetchone():
            db.execute("INSERT OR REPLACE INTO coin VALUES (?,?,?,?)", (*_key(coin), wallet, coin.ans))


def _leave(db: sqlite3.Connection, work: Work) -> None:
    """Take what a work gives from where it is."""
    for coin in work.given:
        if work.kind == WorkKind.POWN:
            known = f"SELECT 1 FROM coin WHERE denomination=?1 AND serial=?2 UNION ALL {_ELSEWHERE}"
            if db.execute(known, _key(coin)).fetchone():
                raise Conflict(f"coin {coin.address.denomination}:{coin.address.serial} is in this store already")
            continue
        sql = "DELETE FROM coin WHERE denomination=? AND serial=? AND wallet=? AND ans=?"
        if db.execute(sql, (*_key(coin), work.wallet, coin.ans)).rowcount != 1:
            raise Conflict("a coin has left the wallet meanwhile")


def _work(db: sqlite3.Connection, row: Row) -> Work:
    sql = "SELECT denomination, serial, ans FROM work_coin WHERE work=? AND side=? ORDER BY denomination, serial"
    given, taken = (tuple(map(_coin, db.execute(sql, (row[0], side)))) for side in (0, 1))
    return Work(
        id=row[0],
        kind=WorkKind(row[1]),
        wallet=row[2],
        session=row[3],
        created_at=row[4],
        payment=row[5],
        given=given,
        taken=taken,
    )


def _reserve(
    db: sqlite3.Connection, guid: bytes, wallet: str, claims: Sequence[tuple[LockerKind, Claim, int]]
) -> list[Locker]:
    held = {
        (locker.kind, locker.unit, locker.node): locker
        for locker in map(_locker, db.execute(f"SELECT {_LOCKER} FROM locker WHERE guid=?", (guid,)))
    }
    free = {
        kind: list(
            map(
                _locker,
                db.execute(
                    f"SELECT {_LOCKER} FROM locker WHERE state=? AND kind=? AND wallet=? ORDER BY created_at, code",
                    (LockerState.AVAILABLE, kind, wallet),
                ),
            )
        )
        for kind in LockerKind
    }
    chosen = []
    for kind, claim, value in claims:
        locker = held.get((kind, claim.unit, claim.node)) or _take(free[kind], claim.node, value)
        if locker is None:
            raise NotFound("too few funded lockers are available")
        if locker.state in (LockerState.AVAILABLE, LockerState.LIMBO):
            db.execute(
                "UPDATE locker SET state=?, guid=?, unit=?, node=? WHERE code=?",
                (LockerState.RESERVED, guid, claim.unit, claim.node, locker.code),
            )
            locker = msgspec.structs.replace(
                locker, state=LockerState.RESERVED, guid=guid, unit=claim.unit, node=claim.node
            )
        chosen.append(locker)
    return chosen


def _take(free: list[Locker], node: int | None, value: int) -> Locker | None:
    fitting = [position for position, locker in enumerate(free) if locker.value == value]
    for position in fitting:
        if node is None or node in free[position].funded:
            return free.pop(position)
    # a node that was away while the pool was filled: any locker will do, it is funded there when the node is back
    return free.pop(fitting[0]) if fitting else None


_KEY_LIFE = 86_400  # seconds
_STATUS = "(?1 IS NULL OR CASE upload_status WHEN 'success' THEN tell_status ELSE upload_status END=?1)"


def _keep_key(db: sqlite3.Connection, key: RequestKey, guid: bytes, now: int) -> None:
    db.execute("DELETE FROM request_key WHERE created_at<=?", (now - _KEY_LIFE,))
    row = (key.key, key.digest, guid, now)
    if not db.execute("INSERT OR IGNORE INTO request_key VALUES (?,?,?,?)", row).rowcount:
        raise Conflict("This idempotency key is in use")


_OUTGOING = ", ".join(OutgoingTell.__struct_fields__)


def _outgoing(row: Row) -> OutgoingTell:
    return OutgoingTell(**dict(zip(OutgoingTell.__struct_fields__, row, strict=True)))


def _change(db: sqlite3.Connection, guid: bytes, edit: Callable[[SendRow], None]) -> SendRow:
    sql = "SELECT body, job, stage FROM receipt JOIN send USING (guid) WHERE guid=?"
    found = db.execute(sql, (guid,)).fetchone()
    if found is None:
        raise NotFound("Receipt not found for that file_guid")
    body, job, stage = found
    row = SendRow(msgspec.json.decode(body, type=Receipt), job, stage)
    edit(row)
    kept = row.receipt
    db.execute(
        "UPDATE receipt SET body=?, upload_status=?, tell_status=?, updated_at=? WHERE guid=?",
        (msgspec.json.encode(kept), kept.upload.status, kept.tell.status, kept.updated_at, guid),
    )
    if (row.job, row.stage) != (job, stage):
        db.execute("UPDATE send SET job=?, stage=? WHERE guid=?", (row.job, row.stage, guid))
    return row


class SqliteSends:
    """SendStore."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def accept(
        self, receipt: Receipt, job: bytes, objects: Mapping[int, bytes], stage: str, key: RequestKey | None = None
    ) -> None:
        guid = bytes.fromhex(receipt.file_guid)
        body = msgspec.json.encode(receipt)

        def change(db: sqlite3.Connection) -> None:
            row = (guid, body, receipt.upload.status, receipt.tell.status, receipt.updated_at)
            if not db.execute("INSERT OR IGNORE INTO receipt VALUES (?,?,?,?,?)", row).rowcount:
                raise Conflict("A receipt already exists for that file_guid")
            db.execute("INSERT INTO send VALUES (?,?,?,?)", (guid, job, stage, receipt.created_at))
            db.executemany("INSERT INTO send_object VALUES (?,?,?)", [(guid, t, data) for t, data in objects.items()])
            if key is not None:
                _keep_key(db, key, guid, receipt.created_at)

        await self._db.write(change)

    async def change(self, guid: bytes, edit: Callable[[SendRow], None]) -> SendRow:
        return await self._db.write(lambda db: _change(db, guid, edit))

    def receipt(self, guid: bytes) -> Receipt:
        with self._db.read() as db:
            row = db.execute("SELECT body FROM receipt WHERE guid=?", (guid,)).fetchone()
        if row is None:
            raise NotFound("Receipt not found for that file_guid")
        return msgspec.json.decode(row[0], type=Receipt)

    def send_of(self, key: RequestKey, now: int) -> bytes | None:
        with self._db.read() as db:
            row = db.execute(
                "SELECT digest, guid FROM request_key WHERE key=? AND created_at>?", (key.key, now - _KEY_LIFE)
            ).fetchone()
        if row is None:
            return None
        if row[0] != key.digest:
            raise Conflict("Idempotency key was used with other parameters")
        return bytes(row[1])

    def receipts(self, status: str | None, limit: int, offset: int) -> list[Receipt]:
        with self._db.read() as db:
            rows = db.execute(
                f"SELECT body FROM send CROSS JOIN receipt USING (guid) WHERE {_STATUS}"
                " ORDER BY send.created_at DESC, guid LIMIT ?2 OFFSET ?3",
                (status, limit, offset),
            )
            return [msgspec.json.decode(body, type=Receipt) for (body,) in rows]

    def count_receipts(self, status: str | None) -> int:
        with self._db.read() as db:
            return int(db.execute(f"SELECT count(*) FROM receipt WHERE {_STATUS}", (status,)).fetchone()[0])

    def has_receipt(self, guid: bytes) -> bool:
        with self._db.read() as db:
            return db.execute("SELECT 1 FROM receipt WHERE guid=?", (guid,)).fetchone() is not None

    def job(self, guid: bytes) -> tuple[bytes, str]:
        with self._db.read() as db:
            row = db.execute("SELECT job, stage FROM send WHERE guid=?", (guid,)).fetchone()
        if row is None:
            raise NotFound("no send with that file_guid")
        return row[0], row[1]

    def object(self, guid: bytes, file_type: int) -> bytes:
        with self._db.read() as db:
            row = db.execute("SELECT data FROM send_object WHERE guid=? AND file_type=?", (guid, file_type)).fetchone()
        if row is None:
            raise NotFound(f"object {file_type} of that send is not kept")
        return bytes(row[0])

    def open_sends(self) -> list[bytes]:
        with self._db.read() as db:
            rows = db.execute("SELECT guid FROM send WHERE stage IN ('upload', 'tell') ORDER BY created_at")
            return [guid for (guid,) in rows]

    async def queue_tell(self, guid: bytes, position: int, beacon: int, error: str, now: int, due: int) -> None:
        await self._db.write(
            lambda db: db.execute(
                "INSERT INTO outgoing_tell (guid, position, beacon, status, last_error, created_at, last_attempt,"
                " next_attempt) VALUES (?1,?2,?3,'pending',?4,?5,?5,?6) ON CONFLICT (guid, position) DO UPDATE SET"
                " beacon=?3, status='pending', last_error=?4, last_attempt=?5, next_attempt=?6,"
                " retry_count=retry_count+1",
                (guid, position, beacon, error, now, due),
            )
        )

    async def finish_tell(self, guid: bytes, position: int, status: str, error: str, now: int) -> None:
        await self._db.write(
            lambda db: db.execute(
                "UPDATE outgoing_tell SET status=?, last_error=?, last_attempt=? WHERE guid=? AND position=?",
                (status, error, now, guid, position),
            )
        )

    def due_tells(self, now: int, longest: int = FOREVER) -> list[OutgoingTell]:
        with self._db.read() as db:
            rows = db.execute(
                f"SELECT {_OUTGOING} FROM outgoing_tell WHERE status='pending' AND (next_attempt<=? OR next_attempt>?)"
                " ORDER BY next_attempt LIMIT 100",
                (now, now + longest),
            ).fetchall()
        return list(map(_outgoing, rows))

    def outgoing_tells(self, status: str | None, limit: int) -> list[OutgoingTell]:
        with self._db.read() as db:
            rows = db.execute(
                f"SELECT {_OUTGOING} FROM outgoing_tell WHERE ?1 IS NULL OR status=?1 ORDER BY id DESC LIMIT ?2",
                (status, limit),
            )
            return list(map(_outgoing, rows))

    async def retry_tell(self, tell_id: int, now: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            reset = "UPDATE outgoing_tell SET status='pending', retry_count=0, next_attempt=?"
            if not db.execute(f"{reset} WHERE id=? AND status='failed'", (now, tell_id)).rowcount:
                raise NotFound("Tell not found or not in 'failed' status")

        await self._db.write(change)

    async def clear_sent_tells(self) -> int:
        return await self._db.write(lambda db: db.execute("DELETE FROM outgoing_tell WHERE status='sent'").rowcount)

    async def schedule_repair(self, guid: bytes, due: int) -> None:
        await self._db.write(
            lambda db: db.execute(
                "INSERT INTO repair (guid, due) VALUES (?1,?2) ON CONFLICT (guid) DO UPDATE SET due=?2, tries=tries+1",
                (guid, due),
            )
        )

    async def drop_repair(self, guid: bytes) -> None:
        await self._db.write(lambda db: db.execute("DELETE FROM repair WHERE guid=?", (guid,)))

    def due_repairs(self, now: int, longest: int = FOREVER) -> list[tuple[bytes, int]]:
        sql = "SELECT guid, tries FROM repair WHERE due<=? OR due>? ORDER BY due LIMIT 20"
        with self._db.read() as db:
            return db.execute(sql, (now, now + longest)).fetchall()


_CONTACT = (
    "denomination, serial, address, beacon, second, inbox_fee, custom_sn, first_name, middle_name, last_name,"
    " description, class_name, favorite, trust_level, user_notes, send_count, last_sent_at, created_at"
)
_EDITED = (
    "address, beacon, second, inbox_fee, custom_sn, first_name, middle_name, last_name, description, class_name,"
    " favorite, trust_level, user_notes"
)


def _contact(row: Row) -> Contact:
    fields = dict(zip(Contact.__struct_fields__, (Address(row[0], row[1]), *row[2:]), strict=True))
    fields["favorite"] = bool(fields["favorite"])
    return Contact(**fields)


class SqliteContacts:
    """ContactStore."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def _rows(self, rest: str, *args: Any) -> list[Contact]:
        with self._db.read() as db:
            return list(map(_contact, db.execute(f"SELECT {_CONTACT} FROM contact {rest}", args)))

    def _one(self, where: str, *args: Any) -> Contact | None:
        found = self._rows(f"WHERE {where} ORDER BY send_count DESC LIMIT 1", *args)
        return found[0] if found else None

    def find(self, text: str) -> Contact | None:
        return self._one("lower(address)=lower(?)", text)

    def by_serial(self, serial: int) -> Contact | None:
        return self._one("serial=?", serial)

    def by_address(self, address: Address) -> Contact | None:
        return self._one("denomination=? AND serial=?", address.denomination, address.serial)

    def listed(self, limit: int, offset: int = 0, words: str = "") -> list[Contact]:
        pattern = "%" + words.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        return self._rows(
            "WHERE lower(address || ' ' || first_name || ' ' || last_name || ' ' || description) LIKE ? ESCAPE '\\'"
            " ORDER BY lower(address) LIMIT ? OFFSET ?",
            pattern,
            limit,
            offset,
        )

    def popular(self, limit: int) -> list[Contact]:
        return self._rows("ORDER BY favorite DESC, send_count DESC, last_sent_at DESC LIMIT ?", limit)

    def count(self) -> int:
        with self._db.read() as db:
            return int(db.execute("SELECT count(*) FROM contact").fetchone()[0])

    async def add(self, contact: Contact, now: int) -> None:
        key = (contact.address.denomination, contact.address.serial)
        edited = [getattr(contact, "text" if name == "address" else name) for name in _EDITED.split(", ")]

        def change(db: sqlite3.Connection) -> None:
            taken = "SELECT 1 FROM contact WHERE lower(address)=lower(?3) AND (denomination, serial)<>(?1, ?2)"
            if db.execute(taken, (*key, contact.text)).fetchone():
                raise Conflict("that text already means another contact")
            updates = ", ".join(f"{name}=excluded.{name}" for name in _EDITED.split(", "))
            db.execute(
                f"INSERT INTO contact (denomination, serial, {_EDITED}, created_at, updated_at)"
                f" VALUES ({','.join('?' * (len(edited) + 4))}) ON CONFLICT (denomination, serial)"
                f" DO UPDATE SET {updates}, updated_at=excluded.updated_at",
                (*key, *edited, now, now),
            )

        await self._db.write(change)

    async def favor(self, serial: int, favorite: bool, now: int) -> Contact:
        def change(db: sqlite3.Connection) -> Contact:
            db.execute("UPDATE contact SET favorite=?, updated_at=? WHERE serial=?", (favorite, now, serial))
            row = db.execute(f"SELECT {_CONTACT} FROM contact WHERE serial=?", (serial,)).fetchone()
            if row is None:
                raise NotFound("Contact not found")
            return _contact(row)

        return await self._db.write(change)

    async def remove(self, serial: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM contact WHERE serial=?", (serial,)).rowcount:
                raise NotFound("Contact not found")

        await self._db.write(change)

    async def bump(self, addresses: Sequence[tuple[Address, str]], now: int) -> None:
        rows = [(address.denomination, address.serial, text, now) for address, text in addresses]

        def change(db: sqlite3.Connection) -> None:
            for row in rows:
                db.execute(
                    "INSERT INTO contact (denomination, serial, address, send_count, last_sent_at, created_at)"
                    " VALUES (?1,?2,?3,1,?4,?4) ON CONFLICT (denomination, serial) DO UPDATE SET"
                    " send_count=send_count+1, last_sent_at=?4 ON CONFLICT DO NOTHING",
                    row,
                )

        await self._db.write(change)


class SqliteStore:
    """MailStore in one file, or in memory when `path` is None."""

    def __init__(self, path: str | None = None) -> None:
        if path is not None:
            make_private(os.path.dirname(path) or ".")
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = Database(path)
        self.wallet = SqliteWallet(self._database)
        self.sends = SqliteSends(self._database)
        self.mail = self.mailboxes = SqliteMail(self._database, folder_beside(path))
        self.accounts = SqliteAccounts(self._database, self.mailboxes)
        self.post = SqlitePost(self._database)
        self.contacts = SqliteContacts(self._database)
        self.files = SqliteFiles(self._database)
        self.operations = SqliteOperations(self._database)

    @property
    def revision(self) -> int:
        return self._database.revision

    async def close(self) -> None:
        await self._database.close()
