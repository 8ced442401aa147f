"""Parameters of the mailbox API, checked against rules; every error is reported, in the words its clients know.

Path parameters win over the body, the body over the query string. Names have case here. POST, PUT and DELETE refuse
names nobody asked for, reading does not.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from qmail_server.http.errors import Failed

_HEX = re.compile(r"[0-9a-f]*")
_ALNUM = re.compile(r"[0-9A-Za-z]*")
_EMAIL = re.compile(r"[^\s@<>\"(),:;\[\]\\]+@[^\s@<>\"(),:;\[\]\\]+")
YES = frozenset(("true", "on", "yes", "1", "y"))
NO = frozenset(("false", "off", "no", "0", "n", ""))
_EVERYWHERE = ("sess", "ip", "accessToken")  # understood on every call

Check = Callable[[str, Any], Any]  # (name, given value) -> value; ValueError with the sentence behind the name
CheckT = TypeVar("CheckT", bound=Check)
_END = 253402300799  # the last second of the year 9999


def shaped(**schema: Any) -> Callable[[CheckT], CheckT]:
    """Tells the document of the interface, in JSON Schema, what a check lets through."""

    def keep(check: CheckT) -> CheckT:
        vars(check)["schema"] = schema
        return check

    return keep


def schema_of(check: Check) -> dict[str, Any]:
    """What a check lets through; empty if it does not say."""
    found: dict[str, Any] = vars(check).get("schema", {})
    return found


class Field(Struct, frozen=True):
    """One parameter."""

    name: str
    check: Check
    required: bool = False
    default: Any = None


def invalid(problems: Mapping[str, str]) -> Failed:
    """The answer to wrong parameters: all problems in one sentence each, and by name."""
    sentences = [f'"{name}" {text}' for name, text in problems.items()]
    details = {name: f'"{name}" {text}' for name, text in problems.items()}
    return Failed(400, ". ".join(sentences), code="InputValidationError", details=details)


def read(given: Mapping[str, Any], fields: Sequence[Field], *, strict: bool) -> dict[str, Any]:
    """Check what was given; returns every field's value, its default where nothing was given."""
    problems: dict[str, str] = {}
    found: dict[str, Any] = {}
    for field in fields:
        value = given.get(field.name)
        if value is None or (value == "" and not field.required and field.check is not text_any):
            found[field.name] = field.default
            if field.required:
                problems[field.name] = "is required"
            continue
        try:
            found[field.name] = field.check(field.name, value)
        except ValueError as error:
            problems[field.name] = str(error)
    if strict:
        known = {field.name for field in fields}
        problems |= {name: "is not allowed" for name in given if name not in known and name not in _EVERYWHERE}
    if problems:
        raise invalid(problems)
    return found


# ------------------------------------------------------------------------------------------------------------------
# Checks


def _string(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a string")
    return str(value)


def text(most: int, least: int = 0, *, trim: bool = True, lower: bool = False) -> Check:
    """A text of so many characters."""

    @shaped(type="string", minLength=least, maxLength=most)
    def check(name: str, value: Any) -> str:
        found = _string(value)
        found = found.strip() if trim else found
        if not found and least:
            raise ValueError("is not allowed to be empty")
        if len(found) < least:
            raise ValueError(f"length must be at least {least} characters long")
        if len(found) > most:
            raise ValueError(f"length must be less than or equal to {most} characters long")
        return found.lower() if lower else found

    return check


@shaped(type="string")
def text_any(name: str, value: Any) -> str:
    """Any text, the empty one too."""
    return _string(value)


@shaped(type="string", pattern="^[0-9a-fA-F]{24}$")
def hex_id(name: str, value: Any) -> bytes:
    """An object id."""
    found = _string(value).strip().lower()
    if not _HEX.fullmatch(found):
        raise ValueError("must only contain hexadecimal characters")
    if len(found) != 24:
        raise ValueError("length must be 24 characters long")
    return bytes.fromhex(found)


def alnum(least: int, most: int) -> Check:
    """Letters and digits, lower-cased."""
    limited = text(most, least, lower=True)

    @shaped(type="string", minLength=least, maxLength=most, pattern="^[0-9A-Za-z]*$")
    def check(name: str, value: Any) -> str:
        found: str = limited(name, value)
        if not _ALNUM.fullmatch(found):
            raise ValueError("must only contain alpha-numeric characters")
        return found

    return check


def number(least: int = 0, most: int = (1 << 53) - 1) -> Check:
    """A whole number in a range."""

    @shaped(type="integer", minimum=least, maximum=most)
    def check(name: str, value: Any) -> int:
        try:
            found = float(_string(value))
        except ValueError:
            raise ValueError("must be a number") from None
        if found != found or found in (float("inf"), float("-inf")) or found != int(found):
            raise ValueError("must be an integer")
        if found < least:
            raise ValueError(f"must be greater than or equal to {least}")
        if found > most:
            raise ValueError(f"must be less than or equal to {most}")
        return int(found)

    return check


@shaped(type="boolean")
def flag(name: str, value: Any) -> bool:
    """Yes or no, in any of the words clients use."""
    if isinstance(value, bool):
        return value
    word = _string(value).strip().lower()
    if word in YES:
        return True
    if word in NO:
        return False
    raise ValueError("must be a boolean")


def one_of(*words: str) -> Check:
    """One of these words."""

    @shaped(type="string", enum=list(words))
    def check(name: str, value: Any) -> str:
        found = _string(value)
        if found not in words:
            raise ValueError(f"must be one of [{', '.join(words)}]")
        return found

    return check


@shaped(type="string", format="email", maxLength=320)
def email(name: str, value: Any) -> str:
    """An e-mail address; letters of any script are welcome."""
    found = _string(value).strip()
    if not _EMAIL.fullmatch(found) or len(found) > 320:
        raise ValueError("must be a valid email")
    return found


@shaped(type="string")
def ip(name: str, value: Any) -> str:
    """An IP address, without a network."""
    try:
        return str(ipaddress.ip_address(_string(value).strip()))
    except ValueError:
        raise ValueError("must be a valid ip address of one of the following versions [ipv4, ipv6]") from None


def words(*allowed: str) -> Check:
    """A list of words, as an array or separated by commas; each once."""

    @shaped(type="array", items={"enum": list(allowed)}, uniqueItems=True)
    def check(name: str, value: Any) -> list[str]:
        found = value if isinstance(value, list) else [part.strip() for part in _string(value).split(",")]
        for at, word in enumerate(found):
            if word not in allowed:
                raise ValueError(f"[{at}] must be one of [{', '.join(allowed)}]")
        if len(set(found)) != len(found):
            raise ValueError("contains a duplicate value")
        return list(found)

    return check


@shaped(type="string", description="A date, milliseconds since 1970, or `false`")
def when(name: str, value: Any) -> int | bool:
    """A date, a time in milliseconds, or false; seconds since 1970."""
    if value is False or (isinstance(value, str) and value.strip().lower() in ("false", "no", "off")):
        return False
    if isinstance(value, int | float) or (isinstance(value, str) and value.strip().lstrip("-").isdigit()):
        return int(number(most=_END * 1000 + 999)(name, value)) // 1000
    try:
        found = datetime.datetime.fromisoformat(_string(value).strip().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError("must be a valid date") from None
    # 0 would be no date at all
    return min(max(int(found.replace(tzinfo=found.tzinfo or datetime.UTC).timestamp()), 1), _END)


def structured(kind: type) -> Check:
    """An object or a list, as JSON has it."""

    @shaped(type="object" if kind is dict else "array")
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError("must be an object" if kind is dict else "must be an array")
        return value

    return check


USER = Field("user", hex_id, required=True)
MAILBOX = Field("mailbox", hex_id, required=True)
IP = Field("ip", ip)
LIMIT = Field("limit", number(1, 250), default=20)
PAGE = Field("page", number(1, 1 << 31), default=1)
CURSORS = (Field("next", text(1024)), Field("prev", text(1024)), Field("previous", text(1024)))
