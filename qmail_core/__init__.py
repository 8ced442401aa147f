"""A mail engine with a native core: Reed-Solomon striped mail over independent RAIDA nodes.

Start with `Engine`, or with `Cluster`, which puts a whole network into the calling process.
"""

from qmail_core._gf256 import ReedSolomon
from qmail_core.config import EngineConfig, Timeouts
from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.errors import (
    AddressError,
    Conflict,
    ErasureError,
    NodeError,
    NotFound,
    PathRefused,
    PaymentError,
    QMailError,
    QuorumError,
    TellError,
    TransportError,
    UsageError,
)
from qmail_core.model import (
    Address,
    Draft,
    Durability,
    Folder,
    Kind,
    ListKind,
    Message,
    Profile,
    Recipient,
    Source,
    Striping,
)

__version__ = "0.1.0"

__all__ = [
    "Address",
    "AddressError",
    "Cluster",
    "Conflict",
    "Draft",
    "Durability",
    "Engine",
    "EngineConfig",
    "ErasureError",
    "Folder",
    "Kind",
    "ListKind",
    "Message",
    "NodeError",
    "NotFound",
    "PathRefused",
    "PaymentError",
    "Profile",
    "QMailError",
    "QuorumError",
    "Recipient",
    "ReedSolomon",
    "Source",
    "Striping",
    "TellError",
    "Timeouts",
    "TransportError",
    "UsageError",
    "__version__",
]
