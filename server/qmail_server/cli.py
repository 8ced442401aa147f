"""The command `qmail`: verbs of a client, the demo, and the verbs of an operator (operate.py).

Exit codes: 0 done; 1 the operation failed, with a sentence on standard error; 2 the command line makes no sense.
What a mail says is shown with its control characters made visible: a subject cannot drive the terminal.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from qmail_server import operate
from qmail_server.client import Client, ClientError, TaskStatus
from qmail_server.terminal import failures, visible

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Api = Annotated[str, typer.Option("--api", metavar="URL", envvar="QMAIL_API", help="Base URL of the node API.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_API = "http://127.0.0.1:8080"


def _guid(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{32}", text):
        raise typer.BadParameter("a GUID has 32 hex digits")
    return text.lower()


Guid = Annotated[str, typer.Argument(callback=_guid, help="32 hex digits.", metavar="GUID")]


@app.command()
def send(
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ADDRESS", help="Such as 16.0.0@byte; repeatable.")
    ] = None,
    cc: Annotated[list[str] | None, typer.Option("--cc", metavar="ADDRESS", help="Gets a copy.")] = None,
    bcc: Annotated[list[str] | None, typer.Option("--bcc", metavar="ADDRESS", help="Gets one unseen.")] = None,
    subject: Annotated[str, typer.Option("--subject", metavar="TEXT")] = "",
    body: Annotated[str | None, typer.Option("--body", metavar="TEXT", help="This, or --body-file.")] = None,
    body_file: Annotated[
        Path | None, typer.Option("--body-file", metavar="FILE", help="UTF-8 text; - is standard input.")
    ] = None,
    attach: Annotated[
        list[Path] | None,
        typer.Option("--attach", exists=True, dir_okay=False, readable=True, metavar="FILE", help="Repeatable."),
    ] = None,
    tell: Annotated[bool, typer.Option("--tell/--no-tell", help="Tell the recipients, or only upload.")] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the send is over.")] = True,
    api: Api = _API,
    as_json: Json = False,
) -> None:
    """Send a mail."""
    if tell and not any(text.strip() for text in (*(to or ()), *(cc or ()), *(bcc or ()))):
        raise typer.BadParameter("a mail needs a recipient: --to, --cc or --bcc (or --no-tell)")
    fields: dict[str, Any] = {"to": to or [], "cc": cc or [], "bcc": bcc or []}
    fields |= {"subject": subject, "body": _body(body, body_file)}
    with _client(api) as client:
        started = client.send(fields, attach or [], tell=tell)
        answer: dict[str, Any] = {"file_guid": started.file_guid, "task_id": started.task_id}
        if not wait:
            _out(answer, f"{started.file_guid}  task {started.task_id}", as_json)
            return
        try:
            ended = client.wait(started.task_id, _quiet if as_json else _progress())
        except ClientError as error:  # what it is asked for by, whatever became of it
            raise ClientError(f"Mail {started.file_guid}: {error}", error.status) from error
        answer |= {"message": ended.message, "data": ended.data}
        _out(answer, f"{started.file_guid}  {ended.message}", as_json)


@app.command()
def inbox(api: Api = _API, as_json: Json = False) -> None:
    """Show the mails that wait and the mails that are here."""
    with _client(api) as client:
        waiting, stored = client.waiting(), client.stored()
    lines = [
        *_section("Waiting", [(m.file_guid, m.sender_address, f"{m.total_file_size} bytes") for m in waiting]),
        *_section(
            "Stored", [(m.email_id, m.sender_address, f"{'' if m.is_read else '* '}{m.subject}") for m in stored]
        ),
    ]
    _out({"waiting": waiting, "stored": stored}, "\n".join(lines), as_json)


@app.command()
def read(guid: Guid, api: Api = _API, as_json: Json = False) -> None:
    """Print a mail; fetch it first if it waits."""
    with _client(api) as client:
        mail = client.read(guid)
        attached = client.attachments(mail.email_id) if mail.attachment_count else []
    when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(mail.received_timestamp))
    head = [("From", mail.sender_address), ("To", mail.to), ("Cc", mail.cc), ("Date", when), ("Subject", mail.subject)]
    lines = [f"{name}: {visible(value)}" for name, value in head if value]
    lines += [f"Attachment: {visible(row.name)} ({row.size_bytes} bytes)" for row in attached]
    _out(
        {**msgspec.to_builtins(mail), "attachments": attached},
        "\n".join([*lines, "", visible(mail.body, lines=True)]),
        as_json,
    )


@app.command()
def download(
    guid: Guid,
    out: Annotated[Path, typer.Option("--out", file_okay=False, metavar="DIR", help="Where to.")] = Path("."),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same name.")] = False,
    api: Api = _API,
    as_json: Json = False,
) -> None:
    """Save a mail's body and attachments, and print the SHA-256 of each."""
    with _client(api) as client:
        saved = client.save(guid, out, overwrite=overwrite)
    text = "\n".join(f"{row.sha256}  {visible(row.path)}" for row in saved)
    _out({"file_guid": guid, "files": saved}, text, as_json)


tokens = typer.Typer(help="Tokens of the file-transfer API.", no_args_is_help=True)
app.add_typer(tokens, name="token")


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What it is for.")],
    api: Api = _API,
    as_json: Json = False,
) -> None:
    """Make a token and print it; nobody can ask for it again."""
    if not name.strip():
        raise typer.BadParameter("--name is empty")
    with _client(api) as client:
        made = client.create_token(name)
    _out(msgspec.to_builtins(made), made.token, as_json)


@tokens.command("list")
def list_tokens(api: Api = _API, as_json: Json = False) -> None:
    """Show the tokens there are, without their texts."""
    with _client(api) as client:
        found = client.tokens()
    rows = [{"id": row.id, "name": row.name, "created_at": row.created_at} for row in found]
    lines = [f"{row.id}  {row.created_at}  {visible(row.name)}" for row in found]
    _out({"tokens": rows}, "\n".join(lines) or "none", as_json)


@tokens.command("revoke")
def revoke_token(
    token: Annotated[int, typer.Argument(help="Its number, as the list shows it.", metavar="ID", min=1)],
    api: Api = _API,
    as_json: Json = False,
) -> None:
    """End a token, at once."""
    with _client(api) as client:
        client.revoke_token(token)
    _out({"id": token}, f"revoked {token}", as_json)


@app.command()
def demo(
    port_base: Annotated[
        int,
        # the last node listens 1024 above
        typer.Option(
            "--port-base", min=1, max=65535 - 1024, metavar="N", help="Alice is on N and N + 1, Bob on N + 2."
        ),
    ] = 8080,
    data: Annotated[
        Path | None,
        typer.Option("--data", file_okay=False, metavar="DIR", help="Where everything is kept; default: temporary."),
    ] = None,
    tour: Annotated[bool, typer.Option("--tour/--no-tour", help="Walk through a mail that loses servers.")] = True,
    once: Annotated[bool, typer.Option("--once", help="End after the tour.")] = False,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the live page.")] = True,
    as_json: Json = False,
) -> None:
    """Run 25 servers and two mailboxes, Alice's and Bob's, on this machine until Ctrl-C."""
    from qmail_server.demo.run import Options, run  # heavy, and no other verb needs it

    options = Options(port_base=port_base, data=data, tour=tour, once=once, open_page=open_page, json=as_json)
    with failures():
        status = run(options)
    raise typer.Exit(status)


@app.command()
def version() -> None:
    """Print the version."""
    try:
        print(importlib.metadata.version("qmail-core"))
    except importlib.metadata.PackageNotFoundError:
        print("unknown (not installed)")


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version, and end.")
    ] = False,
) -> None:
    """Mail in erasure-coded stripes over independent servers."""


app.command()(operate.serve)
app.command()(operate.raida)
app.command()(operate.mint)


def main() -> None:
    """Entry point of the script."""
    app()


def _body(body: str | None, body_file: Path | None) -> str:
    if (body is None) == (body_file is None):
        raise typer.BadParameter("give exactly one of --body and --body-file")
    text = _read(body_file) if body is None and body_file is not None else body
    if not text:
        raise typer.BadParameter(f"{'--body-file' if body is None else '--body'} is empty")
    return text


def _read(body_file: Path) -> str:
    try:
        return (sys.stdin.buffer.read() if str(body_file) == "-" else body_file.read_bytes()).decode()
    except OSError as error:
        raise typer.BadParameter(f"--body-file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter("--body-file is not UTF-8 text; send it with --attach") from None


@contextmanager
def _client(api: str) -> Iterator[Client]:
    # the token comes by environment only: arguments are visible to every process of the machine
    with failures(), Client(api, token=os.environ.get("QMAIL_TOKEN", "")) as client:
        yield client


def _quiet(state: TaskStatus) -> None:
    return


def _progress() -> Any:
    last = ""

    def show(state: TaskStatus) -> None:
        nonlocal last
        line = f"{state.progress:3d}%  {visible(state.message)}"
        if state.status == "running" and line != last:
            typer.echo(line, err=True)
            last = line

    return show


def _section(title: str, rows: list[tuple[str, str, str]]) -> list[str]:
    return [f"{title} ({len(rows)})", *("  " + "  ".join(visible(cell) for cell in row) for row in rows)]


def _out(value: dict[str, Any], text: str, as_json: bool) -> None:
    # escaped to ASCII, so that this form cannot drive a terminal either
    print(json.dumps(msgspec.to_builtins(value)) if as_json else text)
