"""When something waiting in the store is due. Its times are Unix seconds, of a clock that may be set back meanwhile."""

from __future__ import annotations

FOREVER = 1 << 40  # seconds
