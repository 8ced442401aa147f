"""The second factor. Its seed is sealed before it comes here; codes are checked by steps that only grow."""

from __future__ import annotations

import sqlite3

from qmail_core.errors import RateLimited
from qmail_core.store.accounts import Entry, TotpAttempt
from qmail_core.store.database import Database
from qmail_core.store.mail.accounts.authlog import closed_for, count_failure, write_entry

_AHEAD = 20  # steps, ten minutes


class TotpPart:
    """The methods of the store for the second factor."""

    _db: Database

    async def seed_totp(self, user: int, sealed: bytes, entry: Entry) -> bool:
        statement = "UPDATE user SET totp_seed=?2, totp_step=0 WHERE id=?1 AND NOT totp_enabled"
        return await self._logged(user, statement, entry, sealed)

    async def drop_totp(self, user: int, entry: Entry) -> bool:
        statement = "UPDATE user SET totp_seed=NULL, totp_enabled=0, totp_step=0 WHERE id=?1 AND totp_enabled"
        return await self._logged(user, statement, entry)

    async def _logged(self, user: int, statement: str, entry: Entry, *args: object) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            changed = db.execute(statement, (user, *args)).rowcount > 0
            if changed:
                write_entry(db, user, entry)
            return changed

        return await self._db.write(change)

    async def use_totp(self, user: int, attempt: TotpAttempt, now: int) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            seconds = closed_for(db, attempt.gates, now)
            if seconds:
                raise RateLimited(seconds)
            accepted = attempt.step is not None and _advance(db, user, attempt)
            if not accepted:
                count_failure(db, attempt.gates, now)
            write_entry(db, user, attempt.passed if accepted else attempt.failed)
            return accepted

        return await self._db.write(change)


def _advance(db: sqlite3.Connection, user: int, attempt: TotpAttempt) -> bool:
    """Accept a step and make it the last one, in one statement: whoever comes second with it is refused.

    A last step that is far ahead is one of a clock that has been put right; codes of now were not used yet.
    """
    statement = (
        "UPDATE user SET totp_step=?3, totp_enabled=1 WHERE id=?1 AND totp_seed=?2 AND totp_enabled=?4"
        " AND (totp_step<?3 OR totp_step>?3+?5)"
    )
    return db.execute(statement, (user, attempt.sealed, attempt.step, not attempt.enable, _AHEAD)).rowcount > 0
