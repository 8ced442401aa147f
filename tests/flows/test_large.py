"""A large file all the way: by form to Alice's engine, in stripes over 25 nodes, from there to Bob, out by a download.

Runs where QMAIL_TEST_LARGE says of how many MiB (scripts/soak-large); needs five times as much room on the disk. What
each process had in memory at most is printed.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qmail_server.hosts import render_hosts

from tests.flows.processes import Engine, Program, free_ports, qmail

MIB = 1 << 20
SIZE = int(os.environ.get("QMAIL_TEST_LARGE", "0")) * MIB
NODES = 25
MOST = 200  # MiB an engine may have in memory
ALICE, BOB = "16.0.0@byte", "215.37@byte"
PIN = "2468"


def peak(program: Program) -> float:
    """MiB of the largest resident size so far."""
    assert program._process is not None
    text = Path(f"/proc/{program._process.pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


class Person:
    """One engine and its file-transfer API."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine.start()
        port_token = {"Authorization": f"Bearer {(folder / 'token').read_text().strip()}"}
        self.http = httpx.Client(base_url=engine.url, timeout=3600, trust_env=False)
        made = self.http.post("/api/tokens", json={"name": "large"}, headers=port_token).json()["data"]
        self.http.headers["Authorization"] = f"Bearer {made['token']}"
        assert self.http.put("/api/pin", json={"pin": PIN}).status_code == 204

    def ask(self, verb: str, path: str, **options: Any) -> Any:
        answer = self.http.request(verb, path, **options)
        assert answer.status_code == 200, answer.text
        self.headers = answer.headers
        return answer.json()["data"]

    def pin_key(self) -> str:
        key: str = self.ask("POST", "/api/keys", json={"pin": PIN})["key"]
        return key


class Body:
    """A form with one file that nobody can compress, made as it goes, and its digest."""

    _HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'
    _TAIL = b"\r\n--b--\r\n"

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.headers = {"Content-Type": "multipart/form-data; boundary=b"}
        self.headers["Content-Length"] = str(len(self._HEAD) + SIZE + len(self._TAIL))

    def __iter__(self) -> Iterator[bytes]:
        yield self._HEAD
        for _ in range(SIZE // MIB):
            block = os.urandom(MIB)
            self.digest.update(block)
            yield block
        yield self._TAIL


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Person, Person, Program]]:
    ports = free_ports(NODES + 2)
    hosts = tmp_path / "hosts"
    hosts.write_text(render_hosts([("127.0.0.1", port) for port in ports[:NODES]]))
    for name, address in (("alice", ALICE), ("bob", BOB)):
        out = tmp_path / f"{name}.purse"
        qmail("mint", "--data", tmp_path / "net", "--nodes", NODES, "--address", address, "--out", out)
    programs: list[Program] = [Program("raida", "--data", tmp_path / "net", "--hosts", hosts).start()]
    found: list[Person] = []
    try:
        for name, port in zip(("alice", "bob"), ports[NODES:], strict=True):
            folder = tmp_path / name
            engine = Engine(folder, hosts, port, "--purse", tmp_path / f"{name}.purse")
            programs.append(engine)
            found.append(Person(engine, folder))
        yield found[0], found[1], programs[0]
    finally:
        for person in found:
            person.http.close()
        for program in reversed(programs):
            program.kill()


def sent(alice: Person, file: str) -> list[int]:
    """Send a file to Bob; the steps of progress that were seen."""
    body = {"subject": "large", "recipient_email": BOB, "files": [file], "pinKey": alice.pin_key()}
    alice.ask("POST", "/api/mails", json=body)
    task, steps = alice.headers["x-qmail-operation-id"], [0]
    while (state := alice.engine.get("/api/system/tasks", id=task))["status"] == "running":
        if state["progress"] != steps[-1]:
            steps.append(state["progress"])
        time.sleep(0.05)
    assert state["status"] == "success", state
    return steps


@pytest.mark.skipif(not SIZE, reason="QMAIL_TEST_LARGE says how many MiB")
@pytest.mark.timeout(3600)
def test_a_large_file_goes_out_and_comes_back(people: tuple[Person, Person, Program]) -> None:
    alice, bob, raida = people
    spent: dict[str, float] = {}

    def timed(name: str, since: float) -> None:
        spent[name] = round(time.monotonic() - since, 1)

    begun = time.monotonic()
    body = Body()
    file = alice.ask("POST", "/api/files", content=body, headers=body.headers)
    timed("upload", begun)
    assert (file["size"], file["checksum"]) == (SIZE, body.digest.hexdigest())
    begun = time.monotonic()
    steps = sent(alice, file["id"])
    timed("send", begun)
    assert len(steps) > 5
    assert steps == sorted(steps)
    begun = time.monotonic()
    (mail,) = bob.ask("GET", "/api/inbox?include=download.files")
    assert mail["download"]["files"][0]["size"] == SIZE
    url = bob.ask("POST", f"/api/downloads/{mail['id']}/keys", json={"pinKey": bob.pin_key()})["url"]
    digest = hashlib.sha256()
    with bob.http.stream("GET", url) as answer:
        assert answer.status_code == 200
        for part in answer.iter_bytes():
            digest.update(part)
    timed("receive", begun)
    assert digest.hexdigest() == body.digest.hexdigest()
    peaks = {"alice": peak(alice.engine), "bob": peak(bob.engine), "all nodes": peak(raida)}
    print(f"{SIZE // MIB} MiB: seconds {spent}, MiB of memory { {who: round(size) for who, size in peaks.items()} }")
    assert max(peaks["alice"], peaks["bob"]) <= MOST
