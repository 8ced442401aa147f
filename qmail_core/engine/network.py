"""How the servers do: an echo to each, and what a stored mail can still lose."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from msgspec import Struct

from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.codec.packet import Reply
from qmail_core.engine import jobs
from qmail_core.engine.context import Context
from qmail_core.errors import NodeTimeout, NotFound
from qmail_core.model import Striping, Tell

_PATIENCE = 3.0  # seconds an echo may take
_DOWN = 3  # failures in a row after which a server counts as away


class ServerState(Struct, frozen=True):
    """One server as far as it is known without asking."""

    index: int
    host: str
    port: int
    available: bool
    latency: float  # seconds half of its answers take; 0: not known


class Echo(Struct, frozen=True):
    """What an echo of one server came to."""

    index: int
    seconds: float
    error: str = ""  # empty: it answered
    timed_out: bool = False


class Piece(Struct, frozen=True):
    """Where one stripe of a mail lies."""

    stripe: int
    parity: bool
    stored: bool
    server: Echo  # how its server answers just now


class Explained(Struct, frozen=True, kw_only=True):
    """What is known of a stored mail."""

    guid: bytes
    sent: bool  # by this engine
    striping: Striping
    expires_at: int  # 0: not known, only the sender does
    files: int
    pieces: tuple[Piece, ...]

    @property
    def reachable(self) -> int:
        """Stripes whose servers hold them and answer now."""
        return sum(piece.stored and not piece.server.error for piece in self.pieces)

    @property
    def survives(self) -> int:
        """So many more of them may be lost; negative: the mail cannot be read now."""
        return self.reachable - self.striping.k


class Network:
    """The servers of one engine."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    @property
    def revision(self) -> int:
        """While this number stays, so does what `servers` answers."""
        return self._ctx.fanout.health.revision

    def servers(self) -> Sequence[ServerState]:
        """All servers, from what came of the requests so far."""
        return list(map(self._server, range(self._ctx.nodes)))

    def _server(self, node: int) -> ServerState:
        health, (host, port) = self._ctx.fanout.health, self._ctx.transport.location(node)
        return ServerState(node, host, port, health.failures[node] < _DOWN, health.median(node))

    async def echo(self, nodes: Iterable[int] | None = None) -> dict[int, Echo]:
        """Ask servers for a sign of life."""
        asked = sorted(set(range(self._ctx.nodes) if nodes is None else nodes))
        begun = asyncio.get_running_loop().time()

        def judge(reply: Reply) -> float:
            reply.expect()
            return asyncio.get_running_loop().time() - begun

        batch = self._ctx.batch(c.GROUP_STATUS, c.CMD_ECHO, asked, [b""] * len(asked))
        run = self._ctx.fanout.run(batch if asked else None, timeout=_PATIENCE, judge=judge)
        await run.finish()
        found = {node: Echo(node, seconds) for node, seconds in run.good.items() if isinstance(seconds, float)}
        for node, error in run.failed.items():
            found[node] = Echo(node, 0.0, error.message, timed_out=isinstance(error, NodeTimeout))
        return found

    async def explain(self, guid: bytes) -> Explained:
        """Where the stripes of a mail lie, and who of their holders answers; NotFound if nothing is known of it."""
        try:
            return await self._explain_sent(guid)
        except NotFound:
            return await self._explain_received(guid)

    async def _explain_sent(self, guid: bytes) -> Explained:
        receipt = self._ctx.store.sends.receipt(guid)
        job = jobs.decode(self._ctx.store.sends.job(guid)[0])
        rows = receipt.upload.files[0].stripes if receipt.upload.files else []
        places = [(row.stripe_index, row.is_parity, row.server_id, row.status == "ok") for row in rows]
        return Explained(
            guid=guid,
            sent=True,
            striping=job.striping,
            expires_at=max((row.expires_at for row in rows), default=0),
            files=len(receipt.upload.files),
            pieces=await self._pieces(places),
        )

    async def _explain_received(self, guid: bytes) -> Explained:
        try:
            kept = self._ctx.store.mail.tell(guid)
        except NotFound as error:
            raise NotFound("Nothing is known of that file_guid") from error
        tell: Tell = mail.parse_record(memoryview(kept.record))[0]
        places = [(at.stripe, at.parity, at.raida, True) for at in tell.servers if at.raida < self._ctx.nodes]
        return Explained(
            guid=guid,
            sent=False,
            striping=tell.striping,
            expires_at=0,
            files=len(tell.files),
            pieces=await self._pieces(places),
        )

    async def _pieces(self, places: Sequence[tuple[int, bool, int, bool]]) -> tuple[Piece, ...]:
        echoes = await self.echo(server for _, _, server, _ in places)
        return tuple(Piece(stripe, parity, stored, echoes[node]) for stripe, parity, node, stored in sorted(places))
