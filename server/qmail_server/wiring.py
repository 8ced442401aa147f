"""The composition root: settings in, running things out. The one place that knows every layer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import uvicorn

from qmail_core.config import EngineConfig
from qmail_core.engine.engine import Engine
from qmail_core.errors import ConfigError
from qmail_core.model import Address, Coin, nodes_of
from qmail_core.raida.cluster import Cluster
from qmail_core.raida.node import Node, Policy
from qmail_core.store.node import NodeStore
from qmail_core.store.sqlite import SqliteStore
from qmail_core.transport.base import Transport
from qmail_core.transport.smtp import relay_of
from qmail_core.transport.tcp import TcpTransport
from qmail_core.transport.udp import UdpTransport
from qmail_core.transport.web import poster_of
from qmail_server.connections import Connections, Limits, most_connections
from qmail_server.http.app import App
from qmail_server.raida import HostThread, RaidaHost

log = logging.getLogger("qmail.wiring")

_LOOPBACK = "127.0.0.1"
_IDENTITY_WALLET = "Mail"  # holds the identity coin and never pays
_DRAIN = 2  # seconds running requests are given at the end


class Network:
    """Storage nodes of one machine: each with a folder and a port of its own, all in one thread beside the caller.

    folder   node n keeps what it knows in folder/NN; one process at a time may have it open
    ports    by the index of the node; 0 lets the system choose
    host     address to listen on
    hosts    where every node of the network listens, if some of them are elsewhere
    raises   StoreUnavailable for a folder in use or unusable
    """

    def __init__(
        self,
        folder: Path,
        ports: Mapping[int, int],
        policy: Policy | None = None,
        *,
        host: str = _LOOPBACK,
        hosts: Sequence[tuple[str, int]] = (),
    ) -> None:
        with contextlib.ExitStack() as opened:
            self.stores = [opened.enter_context(_node_store(folder / f"{index:02}")) for index in ports]
            self._closing = opened.pop_all()
        nodes = [
            Node(index, store, policy=policy, entropy=os.urandom, timer=time.perf_counter, nodes=len(hosts or ports))
            for index, store in zip(ports, self.stores, strict=True)
        ]
        self.cluster = Cluster(nodes)
        self.host = RaidaHost(nodes, host=host, ports=list(ports.values()), network=hosts)
        self.thread = HostThread(self.host)

    def mint(self, addresses: Sequence[Address]) -> list[Coin]:
        """Create coins every node knows; before `start` only, while the nodes are still the caller's."""
        coins = self.cluster.mint(addresses, os.urandom)
        self.cluster.commit()
        return coins

    def start(self) -> None:
        """Listen; OSError if a port is taken."""
        self.thread.start()

    def stop(self) -> None:
        """Stop listening and close the nodes' folders."""
        self.thread.stop()
        self._closing.close()

    def places(self) -> list[tuple[str, int]]:
        """Where the nodes listen, by position."""
        return [(_LOOPBACK, port) for port in self.thread.ports()]


@contextlib.contextmanager
def _node_store(folder: Path) -> Iterator[NodeStore]:
    with contextlib.closing(NodeStore(folder)) as store:
        yield store


def open_store(data: Path) -> SqliteStore:
    """The store of an engine's folder."""
    return SqliteStore(str(data / "store.sqlite"))


def identity_of(store: SqliteStore) -> Coin | None:
    """The identity coin of a store, if it has one."""
    coins = store.wallet.coins(_IDENTITY_WALLET, limit=1)
    return coins[0] if coins else None


async def adopt_identity(store: SqliteStore, coin: Coin) -> None:
    """Make a coin the identity of a store."""
    await store.wallet.add_coins(_IDENTITY_WALLET, [coin])


def client(config: EngineConfig, places: Sequence[tuple[str, int]]) -> Transport:
    """The transport of an engine to the nodes at these places."""
    nodes = nodes_of(places)
    stream = TcpTransport(nodes)
    return UdpTransport(nodes, stream) if config.udp else stream


def open_engine(config: EngineConfig, store: SqliteStore, places: Sequence[tuple[str, int]]) -> Engine:
    """An engine over its store and the network at these places; ConfigError if it has no identity yet."""
    coin = identity_of(store)
    if coin is None:
        raise ConfigError(f"no identity coin in {config.data}")
    return Engine(config, coin, client(config, places), store, relay=relay_of(config), poster=poster_of(config))


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the program around it, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One application on one or several loopback ports, in the running loop."""

    def __init__(self, app: App, ports: Sequence[int], limits: Limits | None = None) -> None:
        self._app = app
        limits = limits or Limits(connections=most_connections())
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # else whoever is on this machine could pose as any address
            timeout_graceful_shutdown=_DRAIN,
            limit_concurrency=limits.connections + 1,
        )
        config.load()
        self._server = _Server(config)
        self._connections = Connections(self._server.server_state.connections, limits)
        config.http_protocol_class = self._connections.admitting(config.http_protocol_class)  # type: ignore[assignment]
        self._sockets = [bind(port) for port in ports]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when requests are answered."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._server.serve(sockets=self._sockets))
        listening = loop.create_task(self._server.listening.wait())
        await asyncio.wait((self._task, listening), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            listening.cancel()
            await self._task
        self._connections.start()

    async def stop(self) -> None:
        """Answer what is under way, end event streams, then close."""
        self._connections.stop()
        self._app.drain()
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        for sock in self._sockets:
            sock.close()


def bind(port: int) -> socket.socket:
    """A listening-ready loopback socket; ConfigError that names a taken port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((_LOOPBACK, port))
    except OSError as error:
        sock.close()
        raise ConfigError(f"port {port} cannot be used: {error.strerror}; choose another") from error
    return sock
