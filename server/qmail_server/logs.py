"""Log lines: one format for people, one for machines, and the detail of a single request on demand.

Rules: a line never carries a query string, a header or a body, so no secret can enter by way of a request. Every line
written while a request is served carries its id. `debug=true` on one request lets that request's debug records
through, also those of the task it starts; all others keep the configured level.
"""

from __future__ import annotations

import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, TextIO

import msgspec

request_id: ContextVar[str] = ContextVar("request_id", default="")
verbose: ContextVar[bool] = ContextVar("verbose", default=False)

FIELDS = ("method", "path", "status", "ms", "node", "message_id")  # `extra` fields that may reach a line
_NAME = "qmail"
_HARMLESS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class Threshold(logging.Filter):
    """Lets through what reaches the configured level, and everything of a request that asked for it."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level or verbose.get()


class Plain(logging.Formatter):
    """`time level logger [request] message`; control characters in the message cannot forge a second line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        asked = request_id.get()
        line = f"{moment}.{int(record.msecs):03d}Z {record.levelname:<7} {record.name}{f' [{asked}]' if asked else ''} "
        line += record.getMessage().translate(_HARMLESS)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if asked := request_id.get():
            line["request_id"] = asked
        line.update((name, getattr(record, name)) for name in FIELDS if hasattr(record, name))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure(level: str = "INFO", *, json: bool = False, stream: TextIO | None = None) -> None:
    """Send the records of this project to a stream (standard error by default); calling it again replaces that."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(Threshold(threshold))
    handler.setFormatter(JsonLines() if json else Plain())
    logger = logging.getLogger(_NAME)
    # the logger must let debug records through for the one request that wants them; the filter holds back the rest
    logger.setLevel(logging.DEBUG)
    logger.handlers = [handler]
    logger.propagate = False
