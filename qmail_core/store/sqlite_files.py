"""FileStore in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from qmail_core.errors import Conflict, NotFound, QuotaError
from qmail_core.model import Address, DownloadRow, Listing, MessageState, SentRow, StoredFile, Token
from qmail_core.store.database import Database
from qmail_core.store.files import OpenedRow, UploadRow, VaultRow
from qmail_core.store.mail.rows import MESSAGE, message_of, uploaded
from qmail_core.store.when import FOREVER, latest

Row = tuple[Any, ...]
_DAY = 86_400

_TOKEN = ", ".join(Token.__struct_fields__)
_VAULT = ", ".join(VaultRow.__struct_fields__)
_FILE = ", ".join(StoredFile.__struct_fields__)
_UPLOAD = ", ".join(UploadRow.__struct_fields__)
_OPENED = ", ".join(OpenedRow.__struct_fields__)
_SENT = ", ".join(SentRow.__struct_fields__)
_FILE_SORTS = {"filename": "lower(filename), lower(extension)", "size": "size", "encrypted_size": "stored",
               "created_at": "created_at"}  # fmt: skip
_RECEIVED_SORTS = {"subject": "lower(subject)", "created_by_email": "lower(from_address)", "received_at": "received_at"}
_SENT_SORTS = {"subject": "lower(subject)", "recipient_email": "lower(recipient)", "created_at": "created_at",
               "sent_at": "sent_at"}  # fmt: skip
_RECEIVED = (
    "user=? AND NOT outgoing AND mailbox IN (SELECT id FROM mailbox WHERE user=? AND"
    " coalesce(special_use, '') NOT IN ('\\Trash', '\\Junk', '\\Drafts'))"
)


# of the person behind a row, as far as contacts know
_NAME = (
    "coalesce((SELECT c.address || ' ' || c.first_name || ' ' || c.last_name FROM contact c"
    " WHERE c.denomination={0}.denomination AND c.serial={0}.serial), '')"
)


def _has(keyword: str, *columns: str) -> tuple[str, tuple[str, ...]]:
    """The condition that one of the columns contains a text, without regard to case."""
    if not keyword:
        return "1", ()
    # a line end between them: no keyword reaches from one into the next
    return f"instr(lower({' || char(10) || '.join(columns)}), lower(?)) > 0", (keyword.replace("\n", " "),)


def _order(sorts: dict[str, str], listing: Listing, last: str) -> str:
    key = sorts.get(listing.sort)
    if key is None:
        return f"ORDER BY {last} DESC"
    way = "DESC" if listing.descending else "ASC"
    return f"ORDER BY {', '.join(f'{part} {way}' for part in key.split(', '))}, {last} {way}"


def _file(row: Row) -> StoredFile:
    fields = dict(zip(StoredFile.__struct_fields__, row, strict=True))
    fields["trashed"] = bool(fields["trashed"])
    return StoredFile(**fields)


def _find_file(db: sqlite3.Connection, user: int, file: bytes) -> StoredFile:
    row = db.execute(f"SELECT {_FILE} FROM transfer_file WHERE user=? AND id=?", (user, file)).fetchone()
    if row is None:
        raise NotFound("File not found.")
    return _file(row)


def _put(db: sqlite3.Connection, table: str, row: msgspec.Struct, verb: str = "INSERT") -> None:
    names = row.__struct_fields__
    values = tuple(getattr(row, name) for name in names)
    db.execute(f"{verb} INTO {table} ({', '.join(names)}) VALUES ({','.join('?' * len(names))})", values)


def _room(db: sqlite3.Connection, user: int, quota: int) -> int | None:
    own, messages = db.execute("SELECT quota, max(used, 0) FROM user WHERE id=?", (user,)).fetchone() or (0, 0)
    if not (own or quota):
        return None
    used = uploaded(db, user)
    return int(own - messages - used if own else quota - used)


def _check_room(db: sqlite3.Connection, user: int, quota: int) -> None:
    """The end of a change: QuotaError, which takes it back, if a user has more than is allowed."""
    room = _room(db, user, quota)
    if room is not None and room < 0:
        raise QuotaError(f"This does not fit: {-room} bytes more than may be kept.")


class SqliteFiles:
    """FileStore."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def _rows(self, sql: str, *args: object) -> list[Row]:
        with self._db.read() as db:
            return db.execute(sql, args).fetchall()

    def _row(self, sql: str, *args: object) -> Row | None:
        found = self._rows(sql, *args)
        return found[0] if found else None

    def _page(
        self, columns: str, table: str, where: str, order: str, listing: Listing, args: Sequence[object]
    ) -> tuple[list[Row], int]:
        with self._db.read() as db:
            (total,) = db.execute(f"SELECT count(*) FROM {table} WHERE {where}", tuple(args)).fetchone()
            sql = f"SELECT {columns} FROM {table} WHERE {where} {order} LIMIT ? OFFSET ?"
            return db.execute(sql, (*args, listing.limit, listing.offset)).fetchall(), total

    # ------------------------------------------------------------------ tokens
    async def add_token(self, user: int, name: str, digest: bytes, now: int) -> Token:
        def change(db: sqlite3.Connection) -> Token:
            sql = "INSERT INTO transfer_token (user, name, hash, created_at) VALUES (?,?,?,?)"
            number = db.execute(sql, (user, name, digest, now)).lastrowid
            return Token(id=number or 0, user=user, name=name, created_at=now)

        return await self._db.write(change)

    def token(self, digest: bytes) -> Token | None:
        row = self._row(f"SELECT {_TOKEN} FROM transfer_token WHERE hash=?", digest)
        return None if row is None else Token(**dict(zip(Token.__struct_fields__, row, strict=True)))

    def tokens(self) -> list[Token]:
        rows = self._rows(f"SELECT {_TOKEN} FROM transfer_token ORDER BY id")
        return [Token(**dict(zip(Token.__struct_fields__, row, strict=True))) for row in rows]

    async def drop_token(self, token: int) -> list[bytes]:
        def change(db: sqlite3.Connection) -> list[bytes]:
            if not db.execute("DELETE FROM transfer_token WHERE id=?", (token,)).rowcount:
                raise NotFound("Token not found.")
            return [row[0] for row in db.execute("DELETE FROM transfer_upload WHERE token=? RETURNING id", (token,))]

        return await self._db.write(change)

    def person(self, user: int) -> tuple[str, str]:
        row = self._row("SELECT username, name FROM user WHERE id=?", user)
        if row is None:
            raise NotFound("This user does not exist")
        return row[0], row[1]

    def room(self, user: int, quota: int) -> int | None:
        with self._db.read() as db:
            return _room(db, user, quota)

    # ------------------------------------------------------------------ PIN
    def vault(self, user: int) -> VaultRow | None:
        row = self._row(f"SELECT {_VAULT} FROM transfer_vault WHERE user=?", user)
        return None if row is None else VaultRow(**dict(zip(VaultRow.__struct_fields__, row, strict=True)))

    async def set_vault(self, row: VaultRow, *, new: bool) -> None:
        def change(db: sqlite3.Connection) -> None:
            if new and db.execute("SELECT 1 FROM transfer_vault WHERE user=?", (row.user,)).fetchone():
                raise Conflict("There is a PIN already.")
            _put(db, "transfer_vault", row, "INSERT OR REPLACE")
            db.execute("DELETE FROM transfer_pin_key WHERE user=?", (row.user,))

        await self._db.write(change)

    async def begin_guess(self, user: int, now: int, window: int, most: int) -> int:
        def change(db: sqlite3.Connection) -> int:
            over = (user, now - window, latest(now, window) - window)
            db.execute("DELETE FROM transfer_guess WHERE user=? AND (at<=? OR at>?)", over)
            tried = "SELECT at FROM transfer_guess WHERE user=? ORDER BY at DESC LIMIT ?"
            times = [at for (at,) in db.execute(tried, (user, most))]
            if len(times) >= most:
                return max(1, int(times[-1]) + window - now)
            db.execute("INSERT INTO transfer_guess VALUES (?,?)", (user, now))
            return 0

        return await self._db.write(change)

    async def forget_guesses(self, user: int) -> None:
        await self._db.write(lambda db: db.execute("DELETE FROM transfer_guess WHERE user=?", (user,)))

    async def add_pin_key(self, user: int, digest: bytes, wrapped: bytes, now: int, expires_at: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM transfer_pin_key WHERE expires_at<=?", (now,))
            db.execute("INSERT INTO transfer_pin_key VALUES (?,?,?,?)", (digest, user, wrapped, expires_at))

        await self._db.write(change)

    def pin_key(self, user: int, digest: bytes, now: int) -> bytes | None:
        sql = "SELECT wrapped FROM transfer_pin_key WHERE user=? AND hash=? AND expires_at>?"
        row = self._row(sql, user, digest, now)
        return None if row is None else bytes(row[0])

    async def drop_pin_key(self, user: int, digest: bytes) -> None:
        def change(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM transfer_pin_key WHERE user=? AND hash=?", (user, digest)).rowcount:
                raise NotFound("Pin key does not exists")

        await self._db.write(change)

    # ------------------------------------------------------------------ files
    async def add_files(self, files: Iterable[StoredFile], quota: int) -> None:
        rows = list(files)

        def change(db: sqlite3.Connection) -> None:
            for row in rows:
                _put(db, "transfer_file", row)
            _check_room(db, rows[0].user, quota)

        await self._db.write(change)

    def file(self, user: int, file: bytes) -> StoredFile:
        with self._db.read() as db:
            return _find_file(db, user, file)

    def files(self, user: int, listing: Listing) -> tuple[list[StoredFile], int]:
        name = "filename || CASE extension WHEN '' THEN '' ELSE '.' || extension END"
        where, words = _has(listing.keyword, name)
        order = _order(_FILE_SORTS, listing, "number")
        args = (user, listing.trashed, *words)
        rows, total = self._page(_FILE, "transfer_file", f"user=? AND trashed=? AND {where}", order, listing, args)
        return list(map(_file, rows)), total

    async def change_file(
        self, user: int, file: bytes, *, name: tuple[str, str] | None = None, trashed: bool | None = None
    ) -> StoredFile:
        def change(db: sqlite3.Connection) -> StoredFile:
            _find_file(db, user, file)
            if name is not None:
                db.execute("UPDATE transfer_file SET filename=?, extension=? WHERE id=?", (*name, file))
            if trashed is not None:
                db.execute("UPDATE transfer_file SET trashed=? WHERE id=?", (trashed, file))
            return _find_file(db, user, file)

        return await self._db.write(change)

    async def drop_file(self, user: int, file: bytes) -> None:
        def change(db: sqlite3.Connection) -> None:
            _find_file(db, user, file)
            db.execute("DELETE FROM transfer_file WHERE id=?", (file,))

        await self._db.write(change)

    def known_files(self) -> set[bytes]:
        return {row[0] for row in self._rows("SELECT id FROM transfer_file UNION ALL SELECT id FROM transfer_upload")}

    # ------------------------------------------------------------------ uploads
    async def add_upload(self, row: UploadRow, quota: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            _put(db, "transfer_upload", row)
            _check_room(db, row.user, quota)

        await self._db.write(change)

    def upload(self, token: int, upload: bytes) -> UploadRow:
        row = self._row(f"SELECT {_UPLOAD} FROM transfer_upload WHERE token=? AND id=?", token, upload)
        if row is None:
            raise NotFound("Upload not found.")
        return UploadRow(**dict(zip(UploadRow.__struct_fields__, row, strict=True)))

    async def save_upload(self, row: UploadRow, quota: int | None = None) -> None:
        sql = "UPDATE transfer_upload SET length=?, size=?, segments=?, tail=?, expires_at=? WHERE id=?"
        values = (row.length, row.size, row.segments, row.tail, row.expires_at, row.id)

        def change(db: sqlite3.Connection) -> None:
            if not db.execute(sql, values).rowcount:
                raise NotFound("Upload not found.")
            if quota is not None:
                _check_room(db, row.user, quota)

        await self._db.write(change)

    async def finish_upload(self, file: StoredFile, quota: int | None = None) -> None:
        def change(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM transfer_upload WHERE id=?", (file.id,)).rowcount:
                raise NotFound("Upload not found.")
            _put(db, "transfer_file", file)
            if quota is not None:
                _check_room(db, file.user, quota)

        await self._db.write(change)

    async def drop_upload(self, upload: bytes) -> None:
        await self._db.write(lambda db: db.execute("DELETE FROM transfer_upload WHERE id=?", (upload,)))

    async def expire_uploads(self, now: int, busy: Collection[bytes] = ()) -> list[bytes]:
        spared = ",".join("?" * len(busy))
        sql = f"DELETE FROM transfer_upload WHERE expires_at<=? AND id NOT IN ({spared}) RETURNING id"
        return await self._db.write(lambda db: [row[0] for row in db.execute(sql, (now, *busy))])

    # ------------------------------------------------------------------ downloads
    async def add_download(self, row: DownloadRow) -> None:
        def change(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM transfer_download WHERE expires_at<=?", (row.created_at - _DAY,))
            db.execute("DELETE FROM transfer_download_key WHERE expires_at<=?", (row.created_at - _DAY,))
            values = (row.id, row.user, b"".join(row.files), row.created_at, row.expires_at, row.ended)
            db.execute("INSERT INTO transfer_download VALUES (?,?,?,?,?,?)", values)

        await self._db.write(change)

    def download(self, download: bytes) -> DownloadRow | None:
        sql = "SELECT id, user, files, created_at, expires_at, ended FROM transfer_download WHERE id=?"
        row = self._row(sql, download)
        if row is None:
            return None
        files = tuple(row[2][at : at + 16] for at in range(0, len(row[2]), 16))
        return DownloadRow(id=row[0], user=row[1], files=files, created_at=row[3], expires_at=row[4], ended=row[5])

    async def end_download(self, download: bytes, why: str) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            db.execute("DELETE FROM transfer_download_key WHERE download=?", (download,))
            sql = "UPDATE transfer_download SET ended=?, files=x'' WHERE id=? AND ended=''"
            return db.execute(sql, (why, download)).rowcount == 1

        return await self._db.write(change)

    async def add_download_key(self, digest: bytes, download: bytes, wrapped: bytes, expires_at: int) -> None:
        row = (digest, download, wrapped, expires_at)
        await self._db.write(lambda db: db.execute("INSERT INTO transfer_download_key VALUES (?,?,?,?)", row))

    def download_key(self, digest: bytes, download: bytes, now: int) -> bytes | None:
        sql = "SELECT wrapped FROM transfer_download_key WHERE hash=? AND download=? AND expires_at>?"
        row = self._row(sql, digest, download, now)
        return None if row is None else bytes(row[0])

    # ------------------------------------------------------------------ mail
    def received(self, user: int, listing: Listing) -> tuple[list[MessageState], int]:
        identifier = "substr(hex(email_id), 1, 4)"
        where, words = _has(
            listing.keyword, identifier, "subject", "from_address", "from_name", _NAME.format("message")
        )
        order = _order(_RECEIVED_SORTS, listing, "id")
        rows, total = self._page(MESSAGE, "message", f"{_RECEIVED} AND {where}", order, listing, (user, user, *words))
        return list(map(message_of, rows)), total

    def sent(self, listing: Listing) -> tuple[list[SentRow], int]:
        where, words = _has(
            listing.keyword, "substr(hex(id), 1, 4)", "subject", "recipient", _NAME.format("transfer_mail")
        )
        order = _order(_SENT_SORTS, listing, "rowid")
        rows, total = self._page(_SENT, "transfer_mail", where, order, listing, words)
        return list(map(_sent, rows)), total

    def sent_row(self, mail: bytes) -> SentRow:
        row = self._row(f"SELECT {_SENT} FROM transfer_mail WHERE id=?", mail)
        if row is None:
            raise NotFound("Mail not found.")
        return _sent(row)

    def sent_rows(self, guid: bytes) -> list[SentRow]:
        sql = f"SELECT {_SENT} FROM transfer_mail WHERE guid=? ORDER BY position"
        return list(map(_sent, self._rows(sql, guid)))

    async def mark_opened(self, guid: bytes, recipient: Address, at: int) -> bool:
        sql = "UPDATE transfer_mail SET opened_at=? WHERE guid=? AND denomination=? AND serial=? AND opened_at=0"
        row = (at, guid, recipient.denomination, recipient.serial)
        return await self._db.write(lambda db: db.execute(sql, row).rowcount > 0)

    def due_opened(self, now: int, limit: int, longest: int = FOREVER) -> list[OpenedRow]:
        due = "due IS NOT NULL AND (due<=? OR due>?)"  # spelled out for the index
        sql = f"SELECT {_OPENED} FROM transfer_opened WHERE {due} ORDER BY due LIMIT ?"
        rows = self._rows(sql, now, now + longest, limit)
        return [OpenedRow(**dict(zip(OpenedRow.__struct_fields__, row, strict=True))) for row in rows]

    async def put_off_opened(self, guid: bytes, at: int, due: int | None) -> None:
        sql = "UPDATE transfer_opened SET opened_at=?, due=?, tries=tries+1 WHERE guid=?"
        await self._db.write(lambda db: db.execute(sql, (at, due, guid)))


def _sent(row: Row) -> SentRow:
    return SentRow(**dict(zip(SentRow.__struct_fields__, row, strict=True)))
