"""What one node remembers, on disk: an SQLite database and, for large pages, files beside it. One folder per node.

The rules are those of the protocol this satisfies (`raida.state.NodeState`, by structure only). Small pages are blobs;
larger ones are files written under a name no row has ever pointed to, and a file that no committed row names does not
exist: it is swept at the next open. So a page changes at the database commit and at no other moment.
"""

from __future__ import annotations

from qmail_core.store.node.claims import ClaimTables
from qmail_core.store.node.coins import CoinTables
from qmail_core.store.node.directory import DirectoryTables
from qmail_core.store.node.keys import KeyTables
from qmail_core.store.node.medium import Medium
from qmail_core.store.node.objects import ObjectTables
from qmail_core.store.node.stripes import BLOB_LIMIT, StripeTables
from qmail_core.store.node.tells import TellTables

__all__ = ["BLOB_LIMIT", "NodeStore"]

_TOPICS: tuple[type[Medium], ...] = (
    CoinTables,
    ClaimTables,
    StripeTables,
    TellTables,
    DirectoryTables,
    KeyTables,
    ObjectTables,
)


class NodeStore(CoinTables, ClaimTables, StripeTables, TellTables, DirectoryTables, KeyTables, ObjectTables):
    """The memory of one node in a folder of its own.

    folder  created if missing; one process at a time may have it open
    raises  StoreUnavailable if the folder cannot be used, is in use, or was written by a newer version

    May be opened in one thread and used in another, but by one thread at a time.
    """

    schema = "".join(topic.schema for topic in _TOPICS)
    upgrades = tuple(step for topic in _TOPICS for step in topic.upgrades)
