"""The documentation is true: its examples run, its names exist, its links lead somewhere.

Executable are all fenced `python` and `console` blocks of README.md and docs/ that no `<!-- illustration -->` stands
before. Lines of a console block that begin with `$` are commands: `curl` and `qmail` run against a demo of this test's
own, whose ports replace the documented ones; a comment behind a command is the status it must answer instead of 200.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from qmail_server.cli import app
from qmail_server.http.guard import GuardSettings
from qmail_server.http.mailbox.routes import RESOURCES as MAILBOX_AND_ALIASES
from qmail_server.http.paths import Resource
from qmail_server.http.qmail.routes import ROUTES
from qmail_server.http.transfer.routes import RESOURCES as TRANSFER

from qmail_core.config import EngineConfig, Timeouts
from qmail_core.raida.node import Policy
from tests.flows.demo import Demo, free_port_base, running

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL_PAGES = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MARK = "<!-- illustration -->"
MAILBOX = [resource for resource in MAILBOX_AND_ALIASES if not re.match("/user(?!s)", resource.template)]

BLOCK = re.compile(r"^(?P<mark>" + re.escape(MARK) + r"\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
PORT = re.compile(r":808([012])\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)


def blocks(page: Path, kind: str) -> list[str]:
    """The executable blocks of one kind."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [block["text"] for block in found if block["kind"] == kind and not block["mark"]]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def run_python(*arguments: str, cwd: Path = ROOT) -> str:
    """What a Python process of this tree prints; it must end well and without warnings."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "server")])
    command = [sys.executable, "-W", "error", *arguments]
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ------------------------------------------------------------------------------------------------------------------
# Python


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example: Path) -> None:
    if example.name.startswith("test_"):
        run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(example))
    else:
        assert run_python(str(example))


PYTHON = [(page, number) for page in PAGES for number in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(("page", "number"), PYTHON, ids=[f"{relative(page)}-{number}" for page, number in PYTHON])
def test_python_block_runs(page: Path, number: int, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(blocks(page, "python")[number], encoding="utf-8")
    run_python(str(script), cwd=tmp_path)


def test_readme_shows_the_example_and_what_it_prints() -> None:
    example = ROOT / "examples" / "send_mail.py"
    assert example.read_text(encoding="utf-8") in blocks(ROOT / "README.md", "python")
    assert run_python(str(example)) in blocks(ROOT / "README.md", "text")


# ------------------------------------------------------------------------------------------------------------------
# Commands


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo without tour."""
    with running(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


class Shell:
    """Runs the commands of one page. From answers: `$TASK`, `$GUID`, `$EMAIL`, `$ATTACHMENT`, `$OPERATION`, `$OBJECT`.

    Of the file-transfer API: `$TOKEN`, `$FILE`, `$PINKEY`, `$DOWNLOAD` and `$URL`. Of the mailbox API: `$USER`,
    `$INBOX`, `$MAILBOX`, `$MESSAGE`, `$ID` and `$ACCESS`.
    """

    def __init__(self, demo: Demo, folder: Path) -> None:
        self._demo = demo
        self._folder = folder
        self._known: dict[str, str] = {}
        (folder / "README.md").symlink_to(ROOT / "README.md")

    def run(self, line: str) -> None:
        for name, value in self._known.items():
            line = line.replace(f"${name}", value)
        assert "$" not in line, f"nothing is known for {line}"
        line = PORT.sub(lambda match: f":{self._demo.base + int(match[1])}", line)
        command, _, comment = line.partition("  # ")
        words = shlex.split(command)
        if words[0] == "curl":
            self._curl(words[1:], int(comment or 200))
        elif words[0] == "qmail":
            self._qmail(words[1:])
        else:
            raise AssertionError(f"unknown command: {line}")

    def _curl(self, words: list[str], status: int) -> None:
        command = ["curl", "-sS", "--noproxy", "*", "-w", "\n%{http_code}", *words]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, timeout=60, check=True)
        body, _, answered = done.stdout.rpartition("\n")
        assert int(answered) == status, f"{words}\n{body}"
        if body.startswith("{"):
            self._learn(json.loads(body))

    def _learn(self, answer: dict[str, Any]) -> None:
        mails = [answer, *answer.get("notifications", ())]
        files = answer.get("attachments") or [{}]
        for name, values in {
            "TASK": [answer.get("task_id")],
            "GUID": [mail["file_guid"] for mail in mails if mail.get("file_guid")],
            "EMAIL": [answer.get("email_id")],
            "OPERATION": [answer.get("operation_id")],
            "OBJECT": [answer.get("object_id")],
            "ATTACHMENT": [files[0].get("attachment_id")],
        }.items():
            if values and values[0] is not None:
                self._known[name] = str(values[0])
        data = answer.get("data")
        if isinstance(data, dict) and "task_id" not in answer:
            self._learn_transfer(data)
        if answer.get("success") and "status" not in answer:
            self._learn_mailbox(answer)
        if "url" in answer:
            assert self._demo.task(answer["task_id"])["status"] == "success"

    def _learn_transfer(self, data: dict[str, Any]) -> None:
        names = {"token": "TOKEN", "url": "URL"} if "files" not in data else {"id": "DOWNLOAD"}
        names |= {"id": "FILE"} if "full_filename" in data else {}
        names |= {"key": "PINKEY"} if "url" not in data else {}
        self._known |= {name: str(data[key]) for key, name in names.items() if key in data}

    def _learn_mailbox(self, answer: dict[str, Any]) -> None:
        names = {"id": "USER", "token": "ACCESS"} if "username" in answer else {"id": "ID"}
        self._known |= {name: str(answer[key]) for key, name in names.items() if key in answer}
        for row in answer.get("results", ()):
            if row.get("path") == "INBOX":
                self._known["INBOX"] = row["id"]
        if isinstance(stored := answer.get("message"), dict):
            self._known |= {"MESSAGE": stored["name"], "MAILBOX": stored["mailbox"]}

    def _qmail(self, words: list[str]) -> None:
        if words[0] != "demo":
            assert run_python("-m", "qmail_server", *words, cwd=self._folder)
            return
        base = free_port_base()
        words[words.index("--port-base") + 1] = str(base)
        printed = run_python("-m", "qmail_server", *words, cwd=self._folder)
        documented = next(block for block in blocks(ROOT / "README.md", "text") if "qmail demo, ready" in block)
        assert plain(printed, base) == plain(documented, 8080)


def plain(tour: str, base: int) -> str:
    """A tour without what differs from run to run."""
    for offset in (0, 1, 2, 1000, 1024):
        tour = re.sub(rf"\b{base + offset}\b", f"port+{offset}", tour)
    tour = re.sub(r" +[0-9.]+ ms ", " T ms ", tour)
    return re.sub(r"in [0-9.]+ s\b|/\S+  \(temporary\)", "X", tour).strip()


def commands(page: Path) -> list[str]:
    """The command lines of a page, in order."""
    lines = "".join(blocks(page, "console")).splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=relative)
def test_commands_do_what_is_documented(page: Path, demo: Demo, tmp_path: Path) -> None:
    shell = Shell(demo, tmp_path)
    begun = time.monotonic()
    for line in commands(page):
        shell.run(line)
    assert time.monotonic() - begun < 60


# ------------------------------------------------------------------------------------------------------------------
# Completeness


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
def test_route_is_documented_and_has_an_example(path: str) -> None:
    page = ROOT / "docs" / "api" / "qmail.md"
    assert f"`{path}`" in text_of("docs/api/qmail.md") or f"### {path}\n" in text_of("docs/api/qmail.md")
    assert any(re.search(rf"{re.escape(path)}(?![\w/])", line) for line in commands(page))


@pytest.mark.parametrize("resource", TRANSFER, ids=lambda resource: resource.template)
def test_transfer_call_is_documented(resource: Resource) -> None:
    page = text_of("docs/api/transfer.md")
    if resource.template.startswith("/api/files/tus"):
        assert f"`{resource.template}`" in page
        return
    for verb in resource.verbs:
        assert f"`{verb} {resource.template}`" in page


@pytest.mark.parametrize("resource", MAILBOX, ids=lambda resource: resource.template)
def test_mailbox_call_is_documented(resource: Resource) -> None:
    page = text_of("docs/api/mailbox.md")
    for verb in resource.verbs:
        assert f"`{verb} {resource.template}`" in page


def test_verbs_and_their_options_are_documented() -> None:
    page = text_of("docs/cli.md") + text_of("docs/configuration.md")
    group: Any = typer.main.get_command(app)
    assert group.commands
    for verb, command in group.commands.items():
        assert re.search(rf"^## {verb}\b", text_of("docs/cli.md"), re.M), verb
        for option in (word for param in command.params for word in (*param.opts, *param.secondary_opts)):
            assert not option.startswith("-") or f"`{option}" in page, f"{verb} {option}"


@pytest.mark.parametrize("settings", [EngineConfig, Timeouts, Policy, GuardSettings], ids=lambda kind: kind.__name__)
def test_every_setting_is_documented(settings: type[msgspec.Struct]) -> None:
    section = text_of("docs/configuration.md").partition(settings.__name__)[2]
    for field in msgspec.structs.fields(settings):
        assert f"| `{field.name}` |" in section, field.name


def test_every_environment_variable_is_documented() -> None:
    sources = [ROOT / "setup.py", *(ROOT / "ext").glob("*.pyx"), *(ROOT / "server").rglob("*.py")]
    used = {name for source in sources for name in re.findall(r"\bQMAIL_[A-Z]+\b", source.read_text(encoding="utf-8"))}
    assert used >= {"QMAIL_ISA", "QMAIL_AES", "QMAIL_API"}
    for name in sorted(used):
        assert f"| `{name}` |" in text_of("docs/configuration.md"), name


# ------------------------------------------------------------------------------------------------------------------
# Links and words


def slug(heading: str) -> str:
    """The anchor of a heading, as the usual renderers make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ALL_PAGES, ids=relative)
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in map(slug, HEADING.findall(target.read_text(encoding="utf-8"))), link


def texts() -> Iterator[tuple[str, str]]:
    """Every text file of the repository, as far as it is not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git work tree")
    for name in done.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and b"\0" not in (raw := path.read_bytes()):
            yield name, raw.decode()


def test_nothing_of_a_workplace_is_in_the_tree() -> None:
    marks = "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"))
    homes = "|".join(("/ho" + "me/", "/Us" + "ers/", "/wo" + "rk/", "/ro" + "ot/"))
    hosts = "|".join(("index" + "-url", "python" + "hosted", "arti" + "factory"))
    pattern = re.compile(rf"\b(?:{marks})\b|(?<![\w.\-}}])(?:{homes})|{hosts}")
    found = [f"{name}: {match[0]}" for name, text in texts() for match in pattern.finditer(text)]
    assert not found


def test_no_address_of_a_real_server_is_in_the_tree() -> None:
    found = []
    for name, text in texts():
        for match in re.finditer(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])", text):
            try:
                address = ipaddress.ip_address(match[0])
            except ValueError:
                continue
            if address.is_global and match[0] != "1.2.3.4":  # the shape of an address, nobody's in particular
                found.append(f"{name}: {address}")
    assert not found
