"""What runs until it is told to stop: the storage nodes of a network, and one engine with its node API.

Each prints one JSON line when it serves, and ends with exit code 0 on SIGTERM or SIGINT: what was answered is durable
then, as it is after kill -9.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import secrets
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import uvloop
from msgspec import Struct

from qmail_core.codec.address import render
from qmail_core.config import EngineConfig
from qmail_core.errors import ConfigError
from qmail_core.model import Address
from qmail_core.raida.node import Policy
from qmail_core.store.sqlite import SqliteStore
from qmail_server import wiring
from qmail_server.folder import claimed
from qmail_server.hosts import Host
from qmail_server.http.app import EVENT_PORT, build_app
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.lmtp import LmtpServer
from qmail_server.memory import collect_seldom, keep_freed
from qmail_server.purse import Purse, load_purse, save_purse

log = logging.getLogger("qmail.service")

ONE, TEN = 0, 1  # denomination codes of coins worth 1 and 10 CloudCoins
FIRST_SERIAL = 100_000  # of minted coins; the short addresses below are for people


class RaidaOptions(Struct, frozen=True, kw_only=True):
    """Which nodes of a network run here."""

    data: Path  # node n keeps what it knows in data/NN
    hosts: tuple[Host, ...]  # of the whole network
    nodes: tuple[int, ...]  # those that run in this process
    listen: str | None = None  # address to listen on; None: the one of the nodes' lines
    policy: Policy = Policy()
    ready_fd: int = 1


class ServeOptions(Struct, frozen=True, kw_only=True):
    """One engine and its port."""

    config: EngineConfig
    hosts: tuple[Host, ...]
    purse: Path | None = None  # needed at the first start
    port: int = 8080
    origins: tuple[str, ...] = ()
    compat_open: bool = False
    lmtp: str = ""  # where mail is taken in; empty: nowhere
    ready_fd: int = 1


# ------------------------------------------------------------------------------------------------------------------
# Nodes


def run_raida(options: RaidaOptions) -> None:
    """Run nodes until a signal; ConfigError for a taken port, StoreUnavailable for a folder in use."""
    keep_freed()
    listen = options.listen or _one_address(options)
    ports = {node: options.hosts[node][1] for node in options.nodes}
    new = [node for node in options.nodes if not (options.data / f"{node:02}").exists()]
    network = wiring.Network(options.data, ports, options.policy, host=listen, hosts=options.hosts)
    if new:  # most likely the wrong folder, or more nodes than were minted
        log.warning("%d nodes are new in %s, and know no coins: see `qmail mint`", len(new), options.data)
    try:
        network.start()
        if not listen.startswith("127."):
            log.warning("listening on %s: requests of type 0 and 1 are not secret beyond this machine", listen)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            facts = {"nodes": options.nodes, "host": listen, "ports": network.thread.ports()}
            runner.run(_until_signal(options.ready_fd, facts))
    finally:
        network.stop()
    log.info("stopped")


def _one_address(options: RaidaOptions) -> str:
    addresses = {options.hosts[node][0] for node in options.nodes}
    if len(addresses) > 1:
        raise ConfigError("the nodes have different addresses; choose one with --host, or run them by --node")
    return addresses.pop()


async def _until_signal(ready_fd: int, ready: dict[str, Any]) -> None:
    stop = signals()
    collect_seldom()
    announce(ready_fd, ready)
    await stop.wait()


def signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def announce(descriptor: int, facts: dict[str, Any]) -> None:
    """Write the line that says it serves; a descriptor of the caller's is closed behind it."""
    line = json.dumps({"ready": True, "pid": os.getpid(), **facts}) + "\n"
    try:
        os.write(descriptor, line.encode())
        if descriptor > 2:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"--ready-fd {descriptor}: {error.strerror}") from error


# ------------------------------------------------------------------------------------------------------------------
# Money


def mint(data: Path, nodes: int, address: Address, ones: int, tens: int, out: Path) -> Purse:
    """Create an identity coin and starting coins in the folders of stopped nodes, and write them to a file.

    The file comes first: a coin that nodes know and nobody holds would block its serial number for good. Should it be
    cut short, `record` does the rest.
    """
    with _stopped(data, nodes) as network:
        if network.cluster.knows(address):
            raise ConfigError(f"mailbox {render(address)} exists already in {data}")
        wanted = [address, *_free(network, ONE, ones, address), *_free(network, TEN, tens, address)]
        identity, *coins = network.cluster.draw(wanted, os.urandom)
        purse = Purse(nodes, identity, tuple(coins))
        save_purse(out, purse)
        _record(network, purse)
    return purse


def record(data: Path, out: Path) -> Purse:
    """Make stopped nodes know the coins of a file: the end of a `mint` that was cut short. Harmless to repeat.

    raises   ConfigError if a node knows a coin of the file with another secret
    """
    purse = load_purse(out)
    with _stopped(data, purse.nodes) as network:
        if not all(map(network.cluster.agrees, (purse.identity, *purse.coins))):
            raise ConfigError(f"the nodes know coins of {out} with other secrets: they are in use")
        _record(network, purse)
    return purse


@contextlib.contextmanager
def _stopped(data: Path, nodes: int) -> Iterator[wiring.Network]:
    found = {int(folder.name) for folder in data.glob("[0-9]*[0-9]") if folder.name.isdecimal()}
    if found and found != set(range(nodes)):
        # a node made now would not know the coins there are, and one left out not the new ones
        raise ConfigError(f"{data} holds {len(found)} nodes, not those of a network of {nodes}; nodes cannot be added")
    network = wiring.Network(data, dict.fromkeys(range(nodes), 0))
    try:
        yield network
    finally:
        network.stop()


def _free(network: wiring.Network, denomination: int, count: int, besides: Address) -> Iterator[Address]:
    addresses = (Address(denomination, serial) for serial in itertools.count(FIRST_SERIAL))
    free = (address for address in addresses if address != besides and not network.cluster.knows(address))
    return itertools.islice(free, count)


def _record(network: wiring.Network, purse: Purse) -> None:
    network.cluster.record([purse.identity, *purse.coins])
    network.cluster.commit()


# ------------------------------------------------------------------------------------------------------------------
# Engine


def run_engine(options: ServeOptions) -> None:
    """Run an engine and its node API until a signal."""
    keep_freed()
    data = Path(options.config.data)
    options.config.check(len(options.hosts))
    with claimed(data), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, data))
    log.info("stopped")


async def _serve(options: ServeOptions, data: Path) -> None:
    stop = signals()
    first = not (data / "token").exists()
    token = "" if options.compat_open else load_token(data / "token")
    ports = (options.port, options.port + EVENT_PORT)
    guard = GuardSettings(
        hosts=frozenset().union(*map(hosts_for, ports)),
        origins=frozenset(options.origins),
        token=token,
        compat_open=options.compat_open,
    )
    store = wiring.open_store(data)
    try:
        await _adopt(store, options)
        engine = wiring.open_engine(options.config, store, options.hosts)
    except BaseException:
        await store.close()
        raise
    async with engine:
        server = wiring.HttpServer(build_app(engine, guard), ports)
        intake = LmtpServer(engine, options.lmtp) if options.lmtp else None
        try:
            await server.start()
            if intake is not None:
                await intake.start()
            api, events = (f"http://127.0.0.1:{port}" for port in ports)
            facts = {"api": api, "events": f"{events}/events", "address": engine.address_text}
            collect_seldom()
            announce(options.ready_fd, facts if options.compat_open else facts | {"token_file": str(data / "token")})
            if first and token:
                invite(api, data / "token", sys.stderr)
            await stop.wait()
        finally:
            engine.drain()
            if intake is not None:
                await intake.stop()
            await server.stop()


async def _adopt(store: SqliteStore, options: ServeOptions) -> None:
    """Take over a purse once. Money first: an engine without identity does not start, so the rest is repeated."""
    known = wiring.identity_of(store)
    if options.purse is None:
        if known is None:
            raise ConfigError(f"{options.config.data} has no identity yet; give it a file of `qmail mint` by --purse")
        return
    purse = load_purse(options.purse)
    if purse.nodes != len(options.hosts):
        raise ConfigError(
            f"the purse is of a network of {purse.nodes} nodes, the hosts file lists {len(options.hosts)}"
        )
    if known is None:
        await store.wallet.add_coins("Default", purse.coins)
        await wiring.adopt_identity(store, purse.identity)
    elif known != purse.identity:
        # taking its coins too would be a way to lose track of who they belong to
        raise ConfigError(f"{options.config.data} belongs to another identity than the purse")


def invite(api: str, token: Path, stream: TextIO) -> None:
    """Say once how to begin, on a terminal: elsewhere the token would stay, in a log."""
    if not stream.isatty():
        return
    header = f"""printf 'header = "Authorization: Bearer %s"' "$(cat {shlex.quote(str(token))})\""""
    stream.write(f"{api}/#token={token.read_text('ascii').strip()}\n{header} | curl -K - {api}/api/wallets/list\n")
    stream.flush()


def load_token(path: Path) -> str:
    """The API token of a folder, made at the first start."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} may be read by others; its mode must be 0600") from None
        token = path.read_bytes().decode(errors="replace").strip()
        if len(token) < 32 or not token.isascii() or not token.isprintable():
            raise ConfigError(f"{path} holds no token; remove it to get a new one") from None
        return token
    token = secrets.token_urlsafe(32)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token
