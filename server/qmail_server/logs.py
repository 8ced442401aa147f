"""Log lines: one format for people, one for machines, and the detail of a single request on demand.

Rules: a line never carries a query string, a header or a body, so no secret can enter by way of a request. Every line
written while a request is served carries its id. `debug=true` on one request lets that request's debug records
through, also those of the task it starts; all others keep the configured level.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, TextIO

import msgspec

request_id: ContextVar[str] = ContextVar("request_id", default="")
verbose: ContextVar[bool] = ContextVar("verbose", default=False)

_ACCESS = "qmail.http.access"
log = logging.getLogger(_ACCESS)

FIELDS = ("method", "path", "status", "ms", "node", "message_id")  # `extra` fields that may reach a line
_NAME = "qmail"
_LIBRARIES = ("uvicorn.error", "asyncio", "mail")  # `mail` is aiosmtpd's; their warnings have the form of ours
_QUIET = "python_multipart"  # its warnings quote what came, and the request is answered anyway
_GATHER = 0.05  # seconds an access line may wait for others
_MOST_LINES = 200
_MOST_TENTHS = 20  # ms up to which they are kept as text
_TENTHS = [f"{tenth / 10:.1f}" for tenth in range(_MOST_TENTHS * 10 + 1)]
_THOUSANDTHS = [f".{part:03d}" for part in range(1000)]
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


class AccessLog:
    """The line of every request, without a log record: building one costs more than the rest of a small request.

    Lines are kept for a moment and written together. Until `configure` was called they go to the ordinary logger.
    """

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self._json = False
        self._level = logging.INFO
        self._lines: list[str] = []
        self._waits: asyncio.AbstractEventLoop | None = None  # the loop that will write what is kept
        self._second = (0, "")  # the newest second, and how it is written

    def configure(self, stream: TextIO, level: int, *, json: bool) -> None:
        """Write to this stream from now on."""
        self.flush()
        self._stream, self._level, self._json = stream, level, json

    def line(self, asked: str, method: str, path: str, status: int, ms: float) -> None:
        """One answered request."""
        if self._stream is None:
            fields = {"method": method, "path": path, "status": status, "ms": round(ms, 1)}
            log.info("%s %s %d %.1f ms", method, path, status, ms, extra=fields)
            return
        if self._level > logging.INFO and not verbose.get():
            return
        self._lines.append(self._format(asked, method, path, status, ms))
        loop = asyncio.get_running_loop()
        if len(self._lines) >= _MOST_LINES:
            self.flush()
        elif self._waits is not loop:  # the loop that was to write them may have ended before it did
            self._waits = loop
            loop.call_later(_GATHER, self.flush)

    def _format(self, asked: str, method: str, path: str, status: int, ms: float) -> str:
        now = time.time()
        if self._json:
            message = f"{method} {path} {status} {ms:.1f} ms"
            line = {"time": round(now, 3), "level": "info", "logger": log.name, "message": message, "request_id": asked}
            line |= {"method": method, "path": path, "status": status, "ms": round(ms, 1)}
            return msgspec.json.encode(line).decode() + "\n"
        second = int(now)
        if second != self._second[0]:
            self._second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
        what = f"{method} {path}"
        if not what.isprintable():
            what = what.translate(_HARMLESS)
        # looked up, as formatting these two numbers costs as much as the rest of the line
        taken = _TENTHS[int(ms * 10 + 0.5)] if ms < _MOST_TENTHS else f"{ms:.1f}"
        moment = f"{self._second[1]}{_THOUSANDTHS[int((now - second) * 1000)]}"
        return f"{moment}Z INFO    {_ACCESS} [{asked}] {what} {status} {taken} ms\n"

    def flush(self) -> None:
        """Write what is kept."""
        lines, self._lines, self._waits = self._lines, [], None
        if lines and self._stream is not None:
            with contextlib.suppress(ValueError, OSError):  # a stream that is closed or full stops no request
                self._stream.write("".join(lines))
                self._stream.flush()


access = AccessLog()
atexit.register(access.flush)


def configure(level: str = "INFO", *, json: bool = False, stream: TextIO | None = None) -> None:
    """Send the records of this project to a stream (standard error by default); calling it again replaces that."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    access.configure(stream or sys.stderr, threshold, json=json)
    handler.addFilter(Threshold(threshold))
    handler.setFormatter(JsonLines() if json else Plain())
    logger = logging.getLogger(_NAME)
    # the logger must let debug records through for the one request that wants them; the filter holds back the rest
    logger.setLevel(logging.DEBUG)
    logger.handlers = [handler]
    logger.propagate = False
    plain = logging.StreamHandler(stream or sys.stderr)
    plain.setLevel(max(threshold, logging.WARNING))
    plain.setFormatter(handler.formatter)
    logging.getLogger(_QUIET).setLevel(logging.CRITICAL)
    for library in map(logging.getLogger, _LIBRARIES):
        library.handlers = [plain]
        library.propagate = False
        library.setLevel(plain.level)  # whatever anybody has set before
