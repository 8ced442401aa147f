"""Real files through all of it, as a user sends them: HTTP in, 25 servers over TCP, HTTP out, SHA-256 compared."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.demo import Demo, running

DEAD = (3, 7, 11, 19, 24)
SUBJECT = "Отчёт 報告 ✓ — Größe"
BODY = "Grüße,\n\tdrei Anhänge & mehr: 日本語 🎉\n" * 20


def package(name: str) -> Path:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def wheel(folder: Path) -> Path:
    """A wheel of more than 50 MiB: the one the test script fetched, else one packed from the same package here."""
    found = sorted(Path(os.environ.get("QMAIL_REAL_INPUT", "/nonexistent")).glob("llvmlite-*.whl"))
    if found:
        return found[0]
    path = folder / "llvmlite-0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(package("llvmlite").rglob("*.so")):
            archive.write(file, file.name)
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A running demo, with the real files where Alice may send them from."""
    with running(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


@pytest.fixture(scope="module")
def files(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A PDF, a photograph, a wheel, an empty file, a one-byte file; Unicode names among them."""
    outgoing = demo.data / "alice" / "Wallets" / "Mail" / "Outgoing"
    pictures = package("matplotlib") / "mpl-data"
    sources = {
        "Bericht – März.pdf": (pictures / "images" / "matplotlib.pdf").read_bytes(),
        "写真.jpg": (pictures / "sample_data" / "grace_hopper.jpg").read_bytes(),
        "big.whl": wheel(tmp_path_factory.mktemp("wheel")).read_bytes(),
        "empty.txt": b"",
        "one.bin": b"\x1c",
    }
    assert len(sources["big.whl"]) >= 50 << 20
    for name, data in sources.items():
        (outgoing / name).write_bytes(data)
    return [outgoing / name for name in sources]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def send(demo: Demo, files: list[Path]) -> str:
    """Alice sends Bob everything; returns the guid."""
    started = demo.send(
        body=BODY, subject=SUBJECT, to="@chariot.harbor.byte", attachment_file_path=[str(path) for path in files]
    )
    task = demo.task(started["task_id"])
    assert task["status"] == "success", task
    assert task["data"]["all_accepted"] is True
    guid: str = started["file_guid"]
    return guid


def spread(demo: Demo, guid: str) -> None:
    """Wait for the stripes a send does not wait for, those beyond its durability level."""
    demo.until(lambda: demo.get(f"{demo.alice}/api/qmail/receipts", guid=guid)["upload"]["survives_loss_of"] == 5)


def read(demo: Demo, guid: str, files: list[Path]) -> dict[str, Any]:
    """Bob fetches the mail and compares every byte; returns the download's answer."""
    peeked = demo.get(f"{demo.bob}/api/qmail/net/beacon/peek")
    assert guid in [row["file_guid"] for row in peeked["notifications"]]
    answer = demo.get(f"{demo.bob}/api/qmail/net/messages/download", file_guid=guid)
    assert answer["subject"] == SUBJECT
    assert answer["body"] == BODY
    assert answer["sender_sn"] == 1048576
    mail = demo.get(f"{demo.bob}/api/qmail/db/messages/get", email_id=answer["email_id"])
    assert mail["body"] == BODY
    listed = demo.get(f"{demo.bob}/api/qmail/db/attachments/list", email_id=answer["email_id"])
    assert [row["name"] for row in listed["attachments"]] == [path.name for path in files]
    for row, path in zip(listed["attachments"], files, strict=True):
        got = demo.http.get(
            f"{demo.bob}/api/qmail/db/attachments/get",
            params={"email_id": answer["email_id"], "attachment_id": row["attachment_id"]},
        )
        assert got.status_code == 200, got.text
        assert sha(got.content) == sha(path.read_bytes()), path.name
    return answer


def test_real_files_arrive_byte_for_byte(demo: Demo, files: list[Path]) -> None:
    guid = send(demo, files)
    spread(demo, guid)
    answer = read(demo, guid, files)
    # on a busy machine others stand in for a server that is late
    assert answer["stripes_downloaded"] + answer["stripes_recovered"] == 25
    assert answer["stripes_downloaded"] >= 20


def test_five_servers_may_die_between_tell_and_download(demo: Demo, files: list[Path]) -> None:
    guid = send(demo, files)
    spread(demo, guid)
    for node in DEAD:
        demo.node(node, "down")
    try:
        answer = read(demo, guid, files)
    finally:
        for node in DEAD:
            demo.node(node, "up")
    assert (answer["stripes_downloaded"], answer["stripes_recovered"]) == (20, 5)


def test_five_dead_servers_do_not_stop_a_mail_and_are_repaired_later(demo: Demo, files: list[Path]) -> None:
    for node in DEAD:
        demo.node(node, "down")
    try:
        guid = send(demo, files)
        receipt = demo.get(f"{demo.alice}/api/qmail/receipts", guid=guid)
        assert receipt["upload"]["survives_loss_of"] == 0
        assert receipt["upload"]["servers"] == {"total": 25, "ok": 20, "fail": 5}
        assert {row["beacon_raida"] for row in receipt["tell"]["recipients"]} == {14}
        answer = read(demo, guid, files)
        assert (answer["stripes_downloaded"], answer["stripes_recovered"]) == (20, 5)
    finally:
        for node in DEAD:
            demo.node(node, "up")
    repaired = demo.get(f"{demo.alice}/api/qmail/raida/repair", file_guid=guid)
    assert repaired["survives_loss_of"] == 5, repaired
    receipt = demo.get(f"{demo.alice}/api/qmail/receipts", guid=guid)
    assert receipt["upload"]["survives_loss_of"] == 5


def test_lying_servers_are_named_and_outvoted(demo: Demo, files: list[Path]) -> None:
    small = [path for path in files if path.stat().st_size < 1 << 20]
    guid = send(demo, small)
    spread(demo, guid)
    for node in DEAD:
        demo.node(node, "corrupt")
    try:
        answer = read(demo, guid, small)
    finally:
        for node in DEAD:
            demo.node(node, "up")
    assert answer["liars"] == list(DEAD)
    assert (answer["stripes_downloaded"], answer["stripes_recovered"]) == (20, 5)


def test_a_slow_server_delays_nobody(demo: Demo) -> None:
    for node in DEAD:
        demo.node(node, "slow")
    try:
        started = demo.send(body="hurry", to="@chariot.harbor.byte")
        task = demo.task(started["task_id"], seconds=5.0)
        assert task["status"] == "success", task
        assert task["payload"]["elapsed_ms"] < 3500
    finally:
        for node in DEAD:
            demo.node(node, "up")
