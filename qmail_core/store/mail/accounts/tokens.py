"""Access tokens: found by their id part; the secret part is kept as its hash."""

from __future__ import annotations

import sqlite3

import msgspec

from qmail_core.errors import UserNotFound
from qmail_core.store.accounts import Token
from qmail_core.store.database import Database
from qmail_core.store.mail.rows import Row

_TOKEN = (
    "SELECT t.oid, u.oid, t.description, t.scopes, t.created_at, t.expires_at, t.hash"
    " FROM token t LEFT JOIN user u ON u.id=t.user"
)
_SCOPES = msgspec.json.Decoder(tuple[str, ...])


class TokenPart:
    """The token methods of the store."""

    _db: Database

    async def add_token(self, token: Token, hashed: bytes) -> None:
        def change(db: sqlite3.Connection) -> None:
            user = None
            if token.user is not None:
                row = db.execute("SELECT id FROM user WHERE oid=?", (token.user,)).fetchone()
                if row is None:
                    raise UserNotFound("This user does not exist")
                user = row[0]
            scopes = msgspec.json.encode(token.scopes)
            db.execute(
                "INSERT INTO token (oid, user, hash, description, scopes, created_at, expires_at)"
                " VALUES (?,?,?,?,?,?,?)",
                (token.oid, user, hashed, token.description, scopes, token.created_at, token.expires_at),
            )

        await self._db.write(change)

    def token(self, oid: bytes) -> tuple[Token, bytes] | None:
        with self._db.read() as db:
            row = db.execute(f"{_TOKEN} WHERE t.oid=?", (oid,)).fetchone()
        return None if row is None else (_token(row), row[6])

    def tokens(self, user: int | None) -> list[Token]:
        with self._db.read() as db:
            return list(map(_token, db.execute(f"{_TOKEN} WHERE t.user IS ? ORDER BY t.oid", (user,))))

    async def remove_token(self, user: int | None, oid: bytes) -> bool:
        statement = "DELETE FROM token WHERE user IS ? AND oid=?"
        return await self._db.write(lambda db: db.execute(statement, (user, oid)).rowcount > 0)


def _token(row: Row) -> Token:
    return Token(
        oid=row[0],
        user=row[1],
        description=row[2],
        scopes=_SCOPES.decode(row[3]),
        created_at=row[4],
        expires_at=row[5],
    )
