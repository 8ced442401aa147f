"""The command line against a live port: exit codes, what is printed, what is written."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from qmail_server import client as module
from qmail_server.cli import app
from qmail_server.client import Client, ClientError, TaskStatus
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.terminal import visible
from typer.testing import CliRunner, Result

from qmail_core.errors import NotFound, QuorumError
from qmail_core.model import TaskState, Token
from tests.server.fake_engine import GUID, FakeEngine, mail

DATA = bytes(range(256)) * 1000


class Live:
    """A fake engine behind a real port."""

    def __init__(self, folder: Path) -> None:
        self.engine = FakeEngine(folder)
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        guard = GuardSettings(hosts=hosts_for(port), token="s3cret")
        config = uvicorn.Config(
            build_app(self.engine, guard),  # type: ignore[arg-type]
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.socket])))

    def run(self, *words: str, stdin: str | None = None) -> Result:
        arguments = [*words, "--api", self.url]
        return CliRunner().invoke(app, arguments, input=stdin, env={"QMAIL_TOKEN": "s3cret", "COLUMNS": "200"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    found = Live(tmp_path_factory.mktemp("engine"))
    found.thread.start()
    yield found
    found.server.should_exit = True
    found.thread.join()
    found.socket.close()


@pytest.fixture
def live(server: Live) -> Live:
    folder = server.engine.folder
    server.engine.__init__(folder)  # type: ignore[misc]
    return server


def test_send_with_attachments_waits_for_the_task(live: Live, tmp_path: Path) -> None:
    (tmp_path / "plan.bin").write_bytes(DATA)
    result = live.run(
        *("send", "--to", "a#b", "--to", "c#d", "--cc", "e#f", "--bcc", "g#h", "--subject", "Hi", "--body", "Text"),
        *("--attach", str(tmp_path / "plan.bin")),
    )
    assert result.exit_code == 0, result.output
    assert GUID.hex() in result.stdout
    assert "Upload + Tell complete" in result.stdout
    (draft,) = live.engine.drafts
    assert [(r.kind.value, r.text) for r in draft.recipients] == [
        ("to", "a#b"),
        ("to", "c#d"),
        ("cc", "e#f"),
        ("bcc", "g#h"),
    ]
    assert (draft.subject, draft.body) == ("Hi", "Text")
    assert Path(draft.attachments[0].path).read_bytes() == DATA


def test_send_in_json_and_without_waiting(live: Live) -> None:
    body = json.loads(live.run("send", "--no-tell", "--body-file", "-", "--json", stdin="from stdin").stdout)
    assert body["file_guid"] == GUID.hex()
    assert body["message"] == "Upload completed; Tell pending"
    assert live.engine.drafts[0].body == "from stdin"
    live.engine.tasks.clear()
    live.engine.receipts.clear()
    assert "task_5a91c802" in live.run("send", "--to", "a#b", "--body", "x", "--no-wait").stdout


def test_the_progress_of_a_send(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [
        TaskState(id="t", progress=5, message="File 1/1", started_at=1.0),
        TaskState(id="t", status="failed", progress=5, message="Upload failed: too few servers", started_at=1.0),
    ]
    monkeypatch.setattr(live.engine, "task", lambda _: states.pop(0))
    result = live.run("send", "--to", "a#b", "--body", "x")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["  5%  File 1/1", f"qmail: Mail {GUID.hex()}: Upload failed: too few servers"]


def test_a_send_whose_end_nobody_knows_names_its_mail(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(self: Client, task_id: str) -> TaskStatus:
        raise ClientError("No answer from there")

    monkeypatch.setattr(Client, "task", unknown)
    result = live.run("send", "--to", "a#b", "--body", "x", "--json")
    assert (result.exit_code, result.stderr) == (1, f"qmail: Mail {GUID.hex()}: No answer from there\n")


@pytest.mark.parametrize(
    "words",
    [
        ["send", "--body", "x"],
        ["send", "--to", "a#b"],
        ["send", "--to", "a#b", "--body", "x", "--body-file", "-"],
        ["send", "--to", "a#b", "--body", "x", "--attach", "/nowhere/at/all"],
        ["send", "--to", "a#b", "--body-file", "/nowhere/at/all"],
        ["send", "--to", "a#b", "--body-file", sys.executable],
        ["read", "123"],
        ["download", "g" * 32],
    ],
)
def test_a_senseless_command_line_ends_with_2(live: Live, words: list[str]) -> None:
    assert live.run(*words).exit_code == 2
    assert live.engine.drafts == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("send", "--to", "a#b", "--body", ""), "--body is empty"),
        (("send", "--to", "a#b", "--body-file", "-"), "--body-file is empty"),
        (("send", "--to", "", "--body", "x"), "a mail needs a recipient: --to, --cc or --bcc"),
        (("token", "create", "--name", " "), "--name is empty"),
    ],
)
def test_errors_name_options_and_not_parameters(live: Live, words: tuple[str, ...], reason: str) -> None:
    result = live.run(*words, stdin="")
    assert result.exit_code == 2
    assert reason in result.stderr
    assert live.engine.drafts == []


def test_failures_end_with_1_and_a_sentence(live: Live) -> None:
    refused = live.run("send", "--to", "nobody", "--body", "x")
    assert refused.exit_code == 1
    assert refused.stderr == "qmail: Invalid To address \"nobody\": Missing domain separator '#'.\n"
    missing = live.run("read", "0" * 32)
    assert missing.exit_code == 1
    assert missing.stderr == f"qmail: There is no mail {'0' * 32}, neither in the store nor announced\n"
    live.engine.fail["download"] = QuorumError("only 3 of 20 stripes came", {})
    assert live.run("read", "0" * 32).stderr == "qmail: Download failed: only 3 of 20 stripes came\n"
    live.engine.fail["peek"] = RuntimeError("surprise")
    assert live.run("inbox").stderr == "qmail: Internal error\n"
    without = CliRunner().invoke(app, ["inbox", "--api", live.url], env={"QMAIL_TOKEN": ""})
    assert without.exit_code == 1
    assert without.stderr.startswith("qmail: A valid bearer token is required; QMAIL_TOKEN must hold")
    for url in ("http://127.0.0.1:1", "http://[", "nonsense", "ftp://127.0.0.1"):
        dead = CliRunner().invoke(app, ["inbox", "--api", url])
        assert dead.exit_code == 1
        assert url in dead.stderr
        assert "Traceback" not in dead.output


@pytest.mark.parametrize("token", ["s3cr\u00e9t", "s3cret\n", "s3cret s3cret", "s3cret\udc80"])
def test_a_token_that_is_none_is_refused_and_not_shown(live: Live, token: str) -> None:
    result = CliRunner().invoke(app, ["inbox", "--api", live.url], env={"QMAIL_TOKEN": token})
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "qmail: QMAIL_TOKEN holds no token: one is ASCII, on one line, without spaces\n"


def test_inbox(live: Live) -> None:
    other = bytes(16)
    live.engine.waiting[other] = mail(other)
    live.engine.stored[GUID] = mail(subject="Hello\x1b[2J\nForged")
    text = live.run("inbox").stdout
    assert f"{other.hex()}  16.0.0@byte  412 bytes" in text
    assert f"{GUID.hex()}  16.0.0@byte  * Hello\\x1b[2J\\nForged" in text
    body = json.loads(live.run("inbox", "--json").stdout)
    assert [row["file_guid"] for row in body["waiting"]] == [other.hex()]
    assert [row["email_id"] for row in body["stored"]] == [GUID.hex()]


def test_read_downloads_when_needed(live: Live) -> None:
    live.engine.waiting[GUID] = mail(body="Dear all\r\n\x1b]0;owned\x07\u202eend")
    live.engine.add_file(GUID, "plan.pdf", b"PDF")
    text = live.run("read", GUID.hex().upper()).stdout
    assert text.splitlines() == [
        "From: 16.0.0@byte",
        "To: 17.0.0@byte",
        "Cc: Ada#9",
        "Date: 2025-12-29 09:20:55Z",
        "Subject: Q4 Budget Report",
        "Attachment: plan.pdf (3 bytes)",
        "",
        "Dear all",
        "\\x1b]0;owned\\x07\\u202eend",
    ]
    assert json.loads(live.run("read", GUID.hex(), "--json").stdout)["body"].startswith("Dear all\r\n")
    assert [entry for entry in live.engine.asked if entry[0] == "download"] == [("download", GUID, None)]


def test_download_saves_everything_byte_for_byte(live: Live, tmp_path: Path) -> None:
    live.engine.waiting[GUID] = mail(body="Grüße\r\n")
    names = ["plan.bin", "../../plan.bin", "/etc/passwd", "..", "body.txt", "\x1bx"]
    for name in names:
        live.engine.add_file(GUID, name, DATA)
    out = tmp_path / "out"
    body = json.loads(live.run("download", GUID.hex(), "--out", str(out), "--json").stdout)
    expected = ["body.txt", "plan.bin", "plan (2).bin", "passwd", "attachment", "body (2).txt", "x"]
    assert [Path(row["path"]) for row in body["files"]] == [out / name for name in expected]
    assert sorted(path.name for path in out.iterdir()) == sorted(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "body.txt").read_bytes() == "Grüße\r\n".encode()
    for row, data in zip(body["files"], ["Grüße\r\n".encode(), *[DATA] * len(names)], strict=True):
        assert Path(row["path"]).read_bytes() == data
        assert (row["size"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_download_does_not_overwrite_unless_asked(live: Live, tmp_path: Path) -> None:
    live.engine.stored[GUID] = mail()
    live.engine.add_file(GUID, "plan.bin", DATA)
    (tmp_path / "plan.bin").write_bytes(b"mine")
    command = ["download", GUID.hex(), "--out", str(tmp_path)]
    refused = live.run(*command)
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr
    assert (tmp_path / "plan.bin").read_bytes() == b"mine"
    refused = live.run(*command)
    assert "body.txt exists already" in refused.stderr
    done = live.run(*command, "--overwrite")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1] == f"{hashlib.sha256(DATA).hexdigest()}  {tmp_path / 'plan.bin'}"
    assert not list(tmp_path.glob("*.part"))


def test_a_short_download_leaves_nothing(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("messages/get"):
            fields = {"email_id": GUID.hex(), "subject": "", "sender_address": "", "received_timestamp": 1}
            return httpx.Response(200, json={**fields, "to": "", "cc": "", "body": "b", "attachment_count": 1})
        if path.endswith("attachments/list"):
            return httpx.Response(200, json={"attachments": [{"attachment_id": 1, "name": "a", "size_bytes": 9}]})
        return httpx.Response(200, content=b"short")

    with Client("http://x", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(ClientError, match="5 bytes came instead of 9"):
            client.save(GUID.hex(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["body.txt"]
        with pytest.raises(ClientError, match="makes no sense"):
            client.task("t")


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    saved = module._write(tmp_path / "a", iter([b"x"]), 1, overwrite=False)
    assert Path(saved.path).read_bytes() == b"x"
    with pytest.raises(ClientError, match="exists already"):
        module._write(tmp_path / "a", iter([b"y"]), 1, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 漢字 👩\u200d👩\u200d👧", "plain äöü 漢字 👩\u200d👩\u200d👧"),
        ("a\x9b31mb", "a\\x9b31mb"),
        ("\u2066\u2028", "\\u2066\\u2028"),
        ("no\u00a0break", "no\u00a0break"),
        ("\x7f\r", "\\x7f\\r"),
    ],
)
def test_what_steers_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_demo_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[Any] = []

    def run(options: Any) -> int:
        given.append(options)
        return 3

    monkeypatch.setattr("qmail_server.demo.run.run", run)
    words = ["demo", "--port-base", "9000", "--data", str(tmp_path), "--no-tour", "--once", "--no-open", "--json"]
    assert CliRunner().invoke(app, words).exit_code == 3
    (options,) = given
    assert (options.port_base, options.data) == (9000, tmp_path)
    assert (options.tour, options.once, options.open_page, options.json) == (False, True, False, True)
    # the last node would be on a port that does not exist
    assert CliRunner().invoke(app, ["demo", "--port-base", "64512"]).exit_code == 2


def test_version() -> None:
    result, option = (CliRunner().invoke(app, [word]) for word in ("version", "--version"))
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert (option.exit_code, option.stdout) == (0, result.stdout)
    assert CliRunner().invoke(app, ["--version", "send"]).stdout == result.stdout


class FakeTokens:
    """Tokens of the file-transfer API in a list."""

    def __init__(self) -> None:
        self.rows: list[Token] = []

    async def create(self, name: str) -> tuple[Token, str]:
        self.rows.append(Token(id=len(self.rows) + 1, user=1, name=name, created_at=1767000040))
        return self.rows[-1], "T" * 60

    def listed(self) -> list[Token]:
        return self.rows

    async def revoke(self, token: int) -> None:
        if token != 1:
            raise NotFound("Token not found.")
        self.rows.clear()


def test_tokens_are_made_shown_once_and_revoked(live: Live) -> None:
    live.engine.transfer = SimpleNamespace(tokens=FakeTokens())  # type: ignore[attr-defined]
    made = live.run("token", "create", "--name", "Back\x1bup")
    assert (made.exit_code, made.stdout) == (0, "T" * 60 + "\n")
    shown = live.run("token", "list")
    assert (shown.exit_code, shown.stdout) == (0, "1  2025-12-29 09:20:40  Back\\x1bup\n")
    assert "TTT" not in live.run("token", "list", "--json").stdout
    assert json.loads(live.run("token", "create", "--name", "n", "--json").stdout)["token"] == "T" * 60
    refused = live.run("token", "revoke", "7")
    assert (refused.exit_code, refused.stderr) == (1, "qmail: Token not found.\n")
    assert json.loads(live.run("token", "revoke", "1", "--json").stdout) == {"id": 1}
    assert live.run("token", "list").stdout == "none\n"
    assert live.run("token", "revoke", "0").exit_code == 2
