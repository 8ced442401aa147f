"""How an object is cut and where its stripes lie."""

from __future__ import annotations

import enum

from msgspec import Struct


class Profile(enum.IntEnum):
    """How an object is cut into stripes (docs/erasure.md)."""

    INTEROP = 0
    RS = 1
    SEALED = 2


class Striping(Struct, frozen=True):
    """One striping: profile and how many data and parity stripes."""

    profile: Profile
    k: int
    m: int

    @property
    def n(self) -> int:
        """Stripes, and so nodes, in all."""
        return self.k + self.m


class Durability(enum.Enum):
    """When an upload answers: at how many nodes every file is stored by then.

    With too few nodes alive, a mail that can be read at all (k nodes) is not refused: it is sent a second after it
    became readable, its receipt says what it survives, and the missing stripes are stored when nodes return.
    """

    FAST = "fast"
    SAFE = "safe"
    FULL = "full"

    def level(self, striping: Striping) -> int:
        """Nodes needed for this level: k + 1, k + half the parity (rounded up), or all."""
        extra = {Durability.FAST: 1, Durability.SAFE: (striping.m + 1) // 2, Durability.FULL: striping.m}[self]
        return min(striping.k + extra, striping.n)


class StripeLocation(Struct, frozen=True):
    """Which node holds which stripe."""

    stripe: int
    parity: bool
    raida: int
    host: str = "127.0.0.1"
    port: int = 0


class Transfer(Struct, frozen=True, kw_only=True):
    """One transfer of an object to a node as it was begun, and how far it came (QMail wire C.9)."""

    id: bytes
    owner: bytes  # selector of the coin
    object_id: bytes
    file_type: int
    fingerprint: bytes  # digest of the request that began it: the same id with other fields is another transfer
    operation: int
    chunk: int  # accepted
    total_size: int
    expected_generation: int
    target_generation: int
    object_hash: bytes
    retention: int  # accepted, seconds
    storage_class: int
    expires_at: int
    state: int  # codec/objects.py: OPEN, COMMITTED, ABORTED, EXPIRED
    held: bool  # its bytes count: it is open, or it is what a live object is read from
    due: float  # when it is to be looked at again


class StoredObject(Struct, frozen=True, kw_only=True):
    """The current generation of an object, or the tombstone of its last one."""

    id: bytes
    file_type: int
    owner: bytes
    state: int  # codec/objects.py: LIVE, DELETED
    generation: int
    transfer: bytes  # whose bytes these are
    total_size: int
    object_hash: bytes
    storage_class: int
    expires_at: int


class StripeObject(Struct, frozen=True):
    """One stripe of an object, stored at a node as an object of its own."""

    stripe: int
    node: int
    sha256: bytes


class ObjectManifest(Struct, frozen=True, kw_only=True):
    """All that is needed to get a striped object back."""

    object_id: bytes
    file_type: int
    generation: int
    size: int
    sha256: bytes
    striping: Striping
    stripe_size: int
    root: bytes  # digest root of `rs` and `sealed` stripes; empty for `interop`
    stripes: tuple[StripeObject, ...]  # those that were stored
    failed: tuple[int, ...] = ()  # nodes that hold nothing
