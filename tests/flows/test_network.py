"""A network of its own: nodes in processes, engines in others, mail through, and `kill -9` of the nodes under load."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qmail_server.hosts import render_hosts
from qmail_server.purse import Purse, load_purse

from qmail_core.codec import cipher, exchange, mail, packet
from qmail_core.codec import consts as c
from tests.flows.processes import Engine, Program, command, environment, free_ports, qmail

NODES = 5
KILLS = int(os.environ.get("QMAIL_NODE_KILLS", "20"))
ALICE, BOB = "16.0.0@byte", "215.37@byte"


class World:
    """A network of five nodes with two purses; nothing runs yet."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "net"
        self.folder = folder
        self.ports = free_ports(NODES + 2)
        self.hosts = folder / "hosts"
        self.hosts.write_text(render_hosts([("127.0.0.1", port) for port in self.ports[:NODES]]))
        for name, address in (("alice", ALICE), ("bob", BOB)):
            out = folder / f"{name}.purse"
            words = ("--nodes", NODES, "--address", address, "--out", out, "--ones", 150, "--tens", 5)
            qmail("mint", "--data", self.data, *words)
        self._programs: list[Program] = []

    def raida(self, *words: object) -> Program:
        program = Program("raida", "--data", self.data, "--hosts", self.hosts, *words)
        self._programs.append(program)
        return program

    def engine(self, name: str, *words: object) -> Engine:
        port = self.ports[NODES + ("alice", "bob").index(name)]
        engine = Engine(self.folder / name, self.hosts, port, "--purse", self.folder / f"{name}.purse", *words)
        self._programs.append(engine)
        return engine

    def close(self) -> None:
        for program in self._programs:
            program.kill()

    def check(self) -> None:
        """Every node's database is sound."""
        for index in range(NODES):
            db = sqlite3.connect(self.data / f"{index:02}" / "node.sqlite")
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            db.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def send(alice: Engine, body: str) -> str:
    """A mail from Alice to Bob, stored and told; its GUID."""
    started = alice.get("/api/qmail/net/messages/upload_and_tell", body=body, subject="hello", to=BOB)
    deadline = time.monotonic() + 30
    while (task := alice.get("/api/system/tasks", id=started["task_id"]))["status"] == "running":
        assert time.monotonic() < deadline, task
        time.sleep(0.01)
    assert task["status"] == "success", task
    return str(started["file_guid"])


def read(bob: Engine, guid: str) -> str:
    """The body of a mail that waits for Bob."""
    waiting = bob.get("/api/qmail/net/beacon/peek")["notifications"]
    assert guid in [row["file_guid"] for row in waiting]
    return str(bob.get("/api/qmail/net/messages/download", file_guid=guid)["body"])


def test_mail_passes_between_processes_and_survives_a_restart_of_all(world: World) -> None:
    raida = world.raida().start()
    assert raida.facts["ports"] == world.ports[:NODES]
    alice, bob = world.engine("alice").start(), world.engine("bob").start()
    assert alice.facts["address"] == ALICE
    assert read(bob, send(alice, "over five nodes")) == "over five nodes"
    left = alice.get("/api/qmail/net/messages/upload_and_tell", body="kept", subject="s", to=BOB)["file_guid"]
    for program in (alice, bob, raida):
        assert "stopped" in program.stop()
    for program in (raida, alice, bob):
        program.start()
    deadline = time.monotonic() + 30
    while alice.get("/api/qmail/receipts", guid=left)["tell"]["status"] in ("not_started", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert read(bob, left) == "kept"


def test_a_network_of_three_processes_works_without_one_of_them(world: World) -> None:
    three, fourth, fifth = (
        world.raida("--node", 0, "--node", 1, "--node", 2).start(),
        world.raida("--node", 3).start(),
        world.raida("--node", 4).start(),
    )
    assert [program.facts["nodes"] for program in (three, fourth, fifth)] == [[0, 1, 2], [3], [4]]
    alice, bob = world.engine("alice").start(), world.engine("bob").start()
    guid = send(alice, "one node a process")
    fourth.kill()
    assert read(bob, guid) == "one node a process"
    alice.stop()
    bob.stop()
    for program in (three, fifth):
        program.stop()


def test_files_of_secrets_are_private(world: World) -> None:
    world.raida().start()
    alice = world.engine("alice").start()
    for path in (world.folder / "alice.purse", world.folder / "alice" / "token"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    upload = alice.post("/api/qmail/net/messages/upload", files={"attachment": ("a.txt", b"a")}, data={"body": "b"})
    assert upload["success"]
    folders = [path for path in (world.folder / "alice").rglob("*") if path.is_dir()]
    assert {"Wallets", "Mail", "Default", "Receipts"} <= {path.name for path in folders}
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in folders} == {"0o700"}


def test_one_process_at_a_time_has_a_folder_open(world: World) -> None:
    world.raida().start()
    alice = world.engine("alice").start()
    words = ("serve", "--data", world.folder / "alice", "--hosts", world.hosts, "--port", world.ports[NODES + 1])
    assert "alice: another process has it open" in qmail(*words, expect=1)
    alice.kill()
    alice.start()  # a kill leaves nothing behind that would keep the next one out


def test_new_mail_is_told_a_hundred_ports_above(world: World) -> None:
    world.raida().start()
    alice = world.engine("alice").start()
    port = world.ports[NODES] + 100
    assert alice.facts["events"] == f"http://127.0.0.1:{port}/events"
    with httpx.stream("GET", alice.facts["events"], headers=alice.headers(), timeout=20) as stream:
        assert stream.status_code == 200
        assert next(stream.iter_raw()) == b": listening\n\n"


def test_silent_connections_do_not_use_up_the_files_of_an_engine(world: World) -> None:
    world.raida().start()
    alice = world.engine("alice")
    alice.files = 256
    alice.start()
    with contextlib.ExitStack() as closing:
        for _ in range(400):
            closing.enter_context(socket.create_connection(("127.0.0.1", world.ports[NODES])))
        assert alice.get("/api/wallets/list")["success"]
        assert alice.post("/api/qmail/db/drafts/create", 201, data={"subject": "kept"})["success"]


def test_errors_name_what_is_wrong(world: World, tmp_path: Path) -> None:
    serve: tuple[Any, ...] = ("serve", "--data", tmp_path / "x", "--hosts", world.hosts, "--port", world.ports[5])
    world.raida().start()
    assert "net/00: another process has it open" in qmail(
        "raida", "--data", world.data, "--hosts", world.hosts, expect=1
    )
    taken = qmail("raida", "--data", tmp_path / "other", "--hosts", world.hosts, "--node", 3, expect=1)
    assert f"node 3 cannot listen on 127.0.0.1:{world.ports[3]}: Address already in use" in taken
    assert "has no identity yet" in qmail(*serve, expect=1)
    (tmp_path / "alice.purse").chmod(0o644)
    assert "may be read by others" in qmail(*serve, "--purse", tmp_path / "alice.purse", expect=1)
    assert "node 7 does not exist" in qmail("raida", "--data", tmp_path, "--hosts", world.hosts, "--node", 7, expect=2)


def test_ready_line_goes_to_a_descriptor_of_the_caller(world: World) -> None:
    source, sink = os.pipe()
    words = ("raida", "--data", world.data, "--hosts", world.hosts, "--ready-fd", sink)
    process = subprocess.Popen(command(words), env=environment(), pass_fds=[sink], stderr=subprocess.DEVNULL)
    os.close(sink)
    with os.fdopen(source) as pipe:
        assert '"ready": true' in pipe.read()  # to its end: the program closed it
    process.terminate()
    assert process.wait(20) == 0


# ------------------------------------------------------------------------------------------------------------------
# kill -9


class Load(threading.Thread):
    """Stores pages at one node, one after another on one connection, and remembers those it was told are kept."""

    def __init__(self, purse: Purse, node: int, port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.kept: dict[tuple[bytes, int], bytes] = {}
        self._client = Client(purse, node, port, random.Random(seed))

    def run(self) -> None:
        try:
            with self._client.connect():
                while True:
                    where, data = self._client.draw()
                    self._client.store(where, data)
                    self.kept[where] = data
        except OSError:
            return


class Client:
    """Blocking requests of one coin to one node."""

    def __init__(self, purse: Purse, node: int, port: int, rng: random.Random) -> None:
        self._node = node
        self._port = port
        self._rng = rng
        self._key = cipher.coin_key(c.ENC_COIN256, purse.identity, node)
        self._identity = mail.build_identity(purse.identity, node)
        self._socket: socket.socket

    def connect(self) -> socket.socket:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        return self._socket

    def draw(self) -> tuple[tuple[bytes, int], bytes]:
        """A page to store: small ones are rows of the node's database, large ones files."""
        size = self._rng.choice((100, 5_000, 60_000, 120_000, c.PAGE_SIZE))
        return (self._rng.randbytes(16), self._rng.randrange(3)), self._rng.randbytes(size)

    def store(self, where: tuple[bytes, int], data: bytes) -> None:
        guid, page = where
        rest = mail.build_upload_page(guid, bytes(16), 10, 2, page, len(data))
        reply = self._ask(c.CMD_UPLOAD_PAGE, self._identity + rest + data, page)
        assert reply.status == c.STATUS_SUCCESS

    def fetch(self, where: tuple[bytes, int]) -> bytes:
        guid, page = where
        reply = self._ask(c.CMD_DOWNLOAD, self._identity + mail.build_download(guid, bytes(16), 10, page))
        assert reply.status == c.STATUS_SUCCESS
        return bytes(mail.parse_page(reply.payload))

    def _ask(self, command: int, body: bytes, page: int = 0) -> packet.Reply:
        batch = packet.Batch(c.GROUP_MAIL, command, [self._node], [self._key], [body], [b""], page)
        (sent,) = packet.pack(batch, self._rng.randbytes(batch.entropy_size()))
        self._socket.sendall(sent.frame)
        answer = bytearray()
        while (size := exchange.reply_size(memoryview(answer), c.ENC_COIN256)) is None or len(answer) < size:
            part = self._socket.recv(1 << 16)
            if not part:
                raise ConnectionError
            answer += part
        return packet.open_reply(sent, memoryview(answer))


@pytest.mark.timeout(60 + 6 * KILLS)
def test_a_page_that_was_answered_is_there_after_kill_9(world: World) -> None:
    rng = random.Random(KILLS)
    purse = load_purse(world.folder / "alice.purse")
    kept: list[dict[tuple[bytes, int], bytes]] = [{} for _ in range(NODES)]
    raida = world.raida("--storage-fee", 0)
    for number in range(KILLS):
        raida.start()
        loads = [Load(purse, node, world.ports[node], number * NODES + node) for node in range(NODES)]
        for load in loads:
            load.start()
        time.sleep(rng.uniform(0.0, 0.25))  # the random point; nothing waits for it
        raida.kill()
        for node, load in enumerate(loads):
            load.join(20)
            assert not load.is_alive()
            kept[node] |= load.kept
    world.check()
    raida.start()
    for node, pages in enumerate(kept):
        client = Client(purse, node, world.ports[node], random.Random(node))
        with client.connect():
            assert all(client.fetch(where) == data for where, data in pages.items())
        assert pages, "the rounds were too short for a single page to be stored"
    raida.stop()
    world.check()
