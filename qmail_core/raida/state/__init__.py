"""What one node remembers, behind one protocol, and that protocol in dictionaries.

Rule: a change is visible at once to the node that made it and durable only after `commit()`. All changes since the last
commit become durable together or, after a crash, not at all. A selector is DN SN, 5 bytes; a mailbox is the selector
of its identity coin; an authenticity number (AN) or locker key is 16 bytes. Times are Unix seconds.
"""

from __future__ import annotations

from typing import Protocol

from qmail_core.raida.state.claims import Claim, ClaimState, MemoryClaim, MemoryClaims
from qmail_core.raida.state.coins import LOCKER_TAIL, CoinState, MemoryCoins
from qmail_core.raida.state.directory import DirectoryState, MemoryDirectory
from qmail_core.raida.state.keys import KeyState, MemoryKeys
from qmail_core.raida.state.medium import Transactions
from qmail_core.raida.state.objects import MemoryObjects, ObjectState
from qmail_core.raida.state.stripes import MemoryStripes, StripeState
from qmail_core.raida.state.tells import MemoryTells, TellState

__all__ = ["LOCKER_TAIL", "Claim", "MemoryClaim", "MemoryState", "NodeState"]


class NodeState(
    CoinState, ClaimState, StripeState, TellState, DirectoryState, KeyState, ObjectState, Transactions, Protocol
):
    """The memory of one node. Used from one thread at a time."""


class MemoryState(MemoryCoins, MemoryClaims, MemoryStripes, MemoryTells, MemoryDirectory, MemoryKeys, MemoryObjects):
    """NodeState in dictionaries: nothing survives the process. For tests and examples."""
