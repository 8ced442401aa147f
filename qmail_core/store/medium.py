"""What a medium says when it cannot write, in our words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from qmail_core.errors import StoreFull, StoreUnavailable


@contextlib.contextmanager
def translated(what: str = "file") -> Iterator[None]:
    """Raise StoreFull and StoreUnavailable for what the system says of a write."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"There is no room for this {what}.") from error
        raise StoreUnavailable(f"The {what} could not be written: {error.strerror}") from error
