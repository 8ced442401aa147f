"""Who is reading which bytes of a single-use download, and when all of them have been read.

Pure bookkeeping in memory: a restart ends every request anyway. The rules:

- bytes that one request is reading now, no other may read: of two that race for a file, one wins;
- a download belongs to the client that asked first, until it is over; others are refused;
- bytes count when the connection took them. A request that was cut off leaves what it has taken, so that the rest can
  be asked for; what was read may be read again while something is missing;
- when a request ends well and every byte has been read, the download is over.
"""

from __future__ import annotations

import asyncio

from qmail_core.errors import Conflict


class Lease:
    """One request that reads [start, stop) of a download."""

    def __init__(self, usage: Usage, start: int, stop: int) -> None:
        self._usage = usage
        self.start, self.stop = start, stop
        self.at = start  # bytes before this were taken

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether another request wants some of the same bytes; an empty file counts as one."""
        return start < max(self.stop, self.start + 1) and self.start < max(stop, start + 1)

    def take(self, count: int) -> None:
        """The connection took bytes."""
        self.at += count


class Usage:
    """The requests for one download."""

    def __init__(self, size: int, client: str) -> None:
        self.size = size
        self.client = client
        self.running: list[Lease] = []
        self.taken: list[tuple[int, int]] = []  # sorted, apart
        self.ending = asyncio.Event()  # set when no request is about to end the download
        self.ending.set()

    def complete(self) -> bool:
        """Whether every byte has been read."""
        return self.taken == [(0, self.size)] if self.size else bool(self.taken)

    def note(self, start: int, stop: int) -> None:
        """Bytes have been read."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted([*self.taken, (start, stop)]):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            elif high > low or self.size == 0:
                merged.append((low, high))
        self.taken = merged


class Leases:
    """The single-use downloads that are being read."""

    def __init__(self) -> None:
        self._usage: dict[bytes, Usage] = {}

    async def settled(self, download: bytes) -> None:
        """Wait while a request is about to end this download: what comes then is for the store to say."""
        while (usage := self._usage.get(download)) is not None and not usage.ending.is_set():
            await usage.ending.wait()

    def begin(self, download: bytes, size: int, start: int, stop: int, client: str) -> Lease:
        """Read some bytes; Conflict while somebody else does, or for anybody but the first client."""
        usage = self._usage.get(download)
        if usage is None:
            usage = self._usage[download] = Usage(size, client)
        if client != usage.client:
            raise Conflict("Another client has begun this download.")
        if any(lease.overlaps(start, stop) for lease in usage.running):
            raise Conflict("This download is under way.")
        lease = Lease(usage, start, stop)
        usage.running.append(lease)
        return lease

    def finish(self, lease: Lease) -> bool:
        """A request ended well; whether the download is over now. Then `end` or `drop` must follow."""
        usage = lease._usage
        usage.note(lease.start, lease.at)
        over = lease.at == lease.stop and usage.complete()
        if over:
            usage.ending.clear()
        return over

    def drop(self, lease: Lease) -> None:
        """A request is over, in whatever way."""
        usage = lease._usage
        if lease in usage.running:
            usage.running.remove(lease)
            if lease.at > lease.start:
                usage.note(lease.start, lease.at)
        usage.ending.set()

    def end(self, download: bytes) -> None:
        """Forget a download that is over."""
        usage = self._usage.pop(download, None)
        if usage is not None:
            usage.ending.set()

    def known(self) -> list[bytes]:
        """Downloads somebody has begun and nobody is reading now."""
        return [download for download, usage in self._usage.items() if not usage.running]
