"""The demo as a process: memory with a large attachment, a clean end while somebody waits, what its log says."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.demo import Demo

BIG = 256 << 20
ALLOWED = 200 << 20  # resident memory above the start


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    demo.start()
    yield demo
    demo.close()


def resident_peak(pid: int) -> int:
    """Highest resident memory of a process so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def write_big(path: Path) -> str:
    """A file of BIG random bytes; returns its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for _ in range(BIG >> 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


@pytest.mark.timeout(240)
def test_a_large_attachment_passes_in_flat_memory(demo: Demo) -> None:
    expected = write_big(demo.data / "alice" / "Wallets" / "Mail" / "Outgoing" / "big.bin")
    start = resident_peak(demo.pid)
    started = demo.send(body="large", to="@chariot.harbor.byte", attachment_file_path="big.bin")
    task = demo.task(started["task_id"], seconds=120)
    assert task["status"] == "success", task
    demo.get(f"{demo.bob}/api/qmail/net/beacon/peek")
    mail = demo.get(f"{demo.bob}/api/qmail/net/messages/download", file_guid=started["file_guid"])
    digest = hashlib.sha256()
    query: dict[str, Any] = {"email_id": mail["email_id"], "attachment_id": mail["attachments"][0]["attachment_id"]}
    with demo.http.stream("GET", f"{demo.bob}/api/qmail/db/attachments/get", params=query, timeout=120) as answer:
        assert answer.status_code == 200
        for part in answer.iter_bytes():
            digest.update(part)
    assert digest.hexdigest() == expected
    assert resident_peak(demo.pid) - start < ALLOWED


def test_ctrl_c_answers_who_waits_and_ends_at_once(demo: Demo) -> None:
    answers: list[dict[str, Any]] = []

    def wait() -> None:
        answers.append(demo.get(f"{demo.bob}/api/qmail/net/beacon/ping", timeout=30))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    begun = time.monotonic()
    assert "stopped" in demo.stop()
    assert time.monotonic() - begun < 5
    waiting.join(5)
    assert answers[0]["success"] is True
    assert answers[0]["new_mail_count"] == 0


def test_a_long_poll_ends_when_mail_arrives(demo: Demo) -> None:
    answers: list[dict[str, Any]] = []
    waiting = threading.Thread(
        target=lambda: answers.append(demo.get(f"{demo.bob}/api/qmail/net/beacon/ping", timeout=30))
    )
    waiting.start()
    time.sleep(0.3)
    started = demo.send(body="wake up", to="@chariot.harbor.byte")
    waiting.join(15)
    assert [row["file_guid"] for row in answers[0]["notifications"]] == [started["file_guid"]]


def test_the_log_names_no_secret(demo: Demo) -> None:
    started = demo.send(body="hush", to="@chariot.harbor.byte", debug="true")
    assert demo.task(started["task_id"])["status"] == "success"
    receipt = demo.get(f"{demo.alice}/api/qmail/receipts", guid=started["file_guid"])
    demo.stop()
    log = (demo.data / "main.log").read_text()
    assert (demo.data / "main.log").stat().st_mode & 0o777 == 0o600
    assert "Traceback" not in log
    codes = [row["locker_code"] for row in receipt["upload"]["files"][0]["stripes"]]
    codes.append(receipt["upload"]["inbox_fee_locker"])
    assert all(len(code) == 16 for code in codes)
    assert not [code for code in codes if code in log]
    assert "hush" not in log


def test_a_second_start_on_taken_ports_says_so(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Demo(tmp_path_factory.mktemp("other"))
    other.base = demo.base
    with pytest.raises(AssertionError, match="port"):
        other.start()
    other.close()


def test_state_survives_a_clean_restart(demo: Demo) -> None:
    started = demo.send(body="keep me", to="@chariot.harbor.byte")
    assert demo.task(started["task_id"])["status"] == "success"
    demo.stop()
    demo.start()
    demo.get(f"{demo.bob}/api/qmail/net/beacon/peek")
    mail = demo.get(f"{demo.bob}/api/qmail/net/messages/download", file_guid=started["file_guid"])
    assert mail["body"] == "keep me"
