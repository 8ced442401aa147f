"""What tests of coin bodies share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import strategies as st

from qmail_core.errors import RemoteProtocolError
from qmail_core.model import Address, Coin

NODES = 3
addresses = st.builds(Address, st.integers(-8, 11), st.integers(1, 0xFFFFFFFF))
some_coins = st.lists(
    st.builds(Coin, addresses, st.binary(min_size=16 * NODES, max_size=16 * NODES)), min_size=1, max_size=6
)


def cut_short(body: bytes, parse: Callable[[memoryview], object], step: int) -> None:
    """Every truncation is refused, or is a shorter list of entries of `step` bytes."""
    for size in range(len(body)):
        if (len(body) - size) % step:
            with pytest.raises(RemoteProtocolError):
                parse(memoryview(body)[:size])
        else:
            with suppress(RemoteProtocolError):
                parse(memoryview(body)[:size])
