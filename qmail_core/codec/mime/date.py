"""Date header -> Unix seconds, for the forms that occur: RFC 5322 with its obsolete ones, asctime, ISO 8601.

The values are read by hand because the standard library's reader raises on some of them; no clock and no time zone of
the machine takes part.
"""

from __future__ import annotations

import re
from datetime import date

_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name.lower(): index for index, name in enumerate(_NAMES, 1)}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_ZONES = {"ut": 0, "utc": 0, "gmt": 0, "z": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6}
_ZONES |= {"pst": -8, "pdt": -7, "bst": 1, "cet": 1, "cest": 2, "eet": 2, "eest": 3, "msk": 3, "jst": 9}

_TIME = r"(\d{1,2})[:.](\d{1,2})(?:[:.](\d{1,2})(?:[.,]\d{1,9})?)?"
_ZONE = r"\s*(?:GMT|UTC)?([+-]\d{2}:?\d{2}|[A-Za-z]{1,5})?"
_RFC = re.compile(
    r"(?:[A-Za-z]{2,9}\.?,?\s*)?(\d{1,2})[\s.-]+([A-Za-z]{3})[a-z.]*[\s,-]+(\d{2,4})[\s,]+" + _TIME + _ZONE, re.A
)
_ASCTIME = re.compile(
    r"(?:[A-Za-z]{2,9},?\s+)?([A-Za-z]{3})[a-z]*\s+(\d{1,2}),?\s+"
    + (_TIME + r"(?:\s+([A-Za-z]{2,5}))?\s+(\d{4})" + _ZONE),
    re.A,
)
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})[T\s]+" + _TIME + _ZONE, re.A)

EPOCH = date(1970, 1, 1).toordinal()
END = 253402300800  # year 10000


def parse_date(text: str) -> int | None:
    """Unix seconds of a date, None when the text is none or is outside the years 1970 to 9999."""
    text = text[:200].strip()
    if found := _RFC.match(text):
        day, month, year, *clock, zone = found.groups()
        return _seconds(year, _MONTHS.get(month.lower(), 0), day, clock, zone)
    if found := _ASCTIME.match(text):
        month, day, *clock, named, year, zone = found.groups()
        return _seconds(year, _MONTHS.get(month.lower(), 0), day, clock, zone or named)
    if found := _ISO.match(text):
        year, month, day, *clock, zone = found.groups()
        return _seconds(year, int(month), day, clock, zone)
    return None


def _seconds(year: str, month: int, day: str, clock: list[str], zone: str | None) -> int | None:
    full = int(year)
    if len(year) < 4:  # RFC 5322 4.3
        full += 2000 if len(year) == 2 and full < 50 else 1900
    hour, minute, second = (int(part or 0) for part in clock)
    if hour > 24 or minute > 59 or second > 60:
        return None
    try:
        days = date(full, month, int(day)).toordinal() - EPOCH
    except ValueError:
        return None
    when = days * 86400 + hour * 3600 + minute * 60 + second - _offset(zone or "")
    return when if 0 <= when < END else None


def _offset(zone: str) -> int:
    """Seconds east of Greenwich; unknown names are zero, as RFC 5322 4.3 wants."""
    if zone[:1] not in ("+", "-"):
        return _ZONES.get(zone.lower(), 0) * 3600
    seconds = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
    return -seconds if zone[0] == "-" else seconds


def format_date(when: int) -> str:
    """The RFC 5322 form of Unix seconds, in UTC and in English whatever the machine speaks."""
    days, second = divmod(when, 86400)
    day = date.fromordinal(EPOCH + days)
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{_DAYS[day.weekday()]}, {day.day:02} {_NAMES[day.month - 1]} {day.year:04} {clock} +0000"
