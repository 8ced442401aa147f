"""A Query as conditions over message rows.

A query is cut into words as the index cuts text, and each is quoted, so nothing a user types is syntax of the index
(which keeps no positions, hence no phrases); the last one may be the beginning of a word. A message matches when it has
them all. A query of words alone never leaves the index, which is what keeps a search in a large mailbox fast.
"""

from __future__ import annotations

import re
import unicodedata

from qmail_core.model import Query

# the index follows Unicode 6.1, where the vowel signs U+19B0 to U+19C9 and the Vedic signs U+1CF2 and U+1CF3 were
# marks: they cut words there
_WORD = re.compile(r"[^\W_\u19b0-\u19c9\u1cf2\u1cf3]+")
_INDEXED = "FROM search WHERE search MATCH ?"
_HIDDEN = "mailbox NOT IN (SELECT id FROM mailbox WHERE special_use IN ('\\Trash', '\\Junk'))"


def conditions(user: int, query: Query) -> tuple[str, list[object]]:
    """An SQL condition over `message` and its arguments."""
    match = expression(user, query)
    # with words the index of words leads: it knows the user too, and finds less than all the user's mail
    found: list[tuple[str, object]] = [("+user=?" if match else "user=?", user)]
    if match:
        found.append((f"id IN (SELECT rowid {_INDEXED})", match))
    found += [(clause, value) for clause, value in _filters(query) if value is not None]
    clauses = [clause for clause, _ in found]
    if not match and not _everywhere(query):
        clauses.append(_HIDDEN)
    return " AND ".join(clauses), [value for _, value in found]


def count(user: int, query: Query) -> tuple[str, list[object]]:
    """A statement that counts the matches, and its arguments."""
    match = words_alone(user, query)
    if match:
        return f"SELECT count(*) {_INDEXED}", [match]
    where, args = conditions(user, query)
    return f"SELECT count(*) FROM message WHERE {where}", args


def words_alone(user: int, query: Query) -> str:
    """The index expression if it alone decides which messages match; else empty."""
    return expression(user, query) if all(value is None for _, value in _filters(query)) else ""


def _filters(query: Query) -> tuple[tuple[str, object], ...]:
    return (
        ("mailbox=?", query.mailbox),
        ("thread=?", query.thread),
        ("received_at>=?", query.since),
        ("received_at<?", query.before),
        ("size>=?", query.least_size),
        ("size<=?", query.most_size),
        ("flagged=?", query.flagged),
        ("seen=?", query.seen),
        ("(attachments>0)=?", query.attachments),
    )


def _everywhere(query: Query) -> bool:
    return query.everywhere or query.mailbox is not None


def expression(user: int, query: Query) -> str:
    """The full-text expression of a query; empty if it has no words."""
    groups = [
        _group("{subject sender recipients text}", query.words),
        _group("sender", query.sender),
        _group("recipients", query.recipients),
        _group("subject", query.subject),
    ]
    wanted = [group for group in groups if group]
    scope = f"scope : (u{user} OR h{user})" if _everywhere(query) else f"scope : u{user}"
    return " AND ".join([scope, *wanted]) if wanted else ""


def _group(columns: str, text: str) -> str:
    words = _WORD.findall(unicodedata.normalize("NFC", text))
    if not words:
        return ""
    quoted = [f'"{word}"' for word in words]
    return f"{columns} : ({' AND '.join(quoted)}*)"
