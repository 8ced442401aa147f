"""What messages of one conversation have in common: the subject without its prefixes, together with an id."""

from __future__ import annotations

import hashlib
import re

from qmail_core.codec.mime.scan import Parsed

_PREFIX = re.compile(
    r"(?:(?:re|fwd?|aw|wg|sv|vs|antw|antwort|tr|rv|res|enc|odp|ynt|rif|回复|答复|转发)"
    r"(?:\[\d{1,4}\]|\(\d{1,4}\)|\*\d{1,4})?\s?[:：]\s*)+",
    re.I,
)
_FORWARDED = "(fwd)"
THREAD_INDEX = 22  # characters of Thread-Index that replies keep


def normal_subject(subject: str) -> str:
    """A subject without `Re:`, `Fwd:`, `AW:` and `(fwd)`, blanks folded, in its own case."""
    text = " ".join(subject.split())
    if prefix := _PREFIX.match(text):
        text = text[prefix.end() :]
    end = len(text)
    while text[max(end - 5, 0) : end].lower() == _FORWARDED:
        end -= 5 + text.startswith(" ", max(end - 6, 0), max(end - 5, 0))
    return text[:end].strip()


def thread_keys(parsed: Parsed, salt: bytes = b"") -> tuple[bytes, ...]:
    """The keys of which one conversation shares at least one.

    salt     up to 64 bytes, such as a user's id, so that keys of two users never meet
    returns  16 bytes for each of Message-ID, In-Reply-To, References and Thread-Index, own id first, without repeats
    """
    ids = [parsed.message_id, *parsed.in_reply_to, *parsed.references, parsed.thread_index[:THREAD_INDEX]]
    keyed = hashlib.blake2b(normal_subject(parsed.subject).lower().encode() + b"\0", digest_size=16, key=salt[:64])
    keys: dict[bytes, None] = {}
    for name in ids:
        if name:
            one = keyed.copy()
            one.update(name.encode())
            keys[one.digest()] = None
    return tuple(keys)
