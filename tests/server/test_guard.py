"""qmail_server/http/guard.py and app.py: who may ask, and what every answer has."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qmail_server import logs
from qmail_server.http.app import build_app
from qmail_server.http.guard import GuardSettings, hosts_for
from qmail_server.http.respond import Call, Route
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route as StarletteRoute

from qmail_core.errors import ConfigError, NotFound
from tests.server.fake_engine import BASE, OPEN, FakeEngine, ask

GUI = "http://localhost:5173"
LIST = "/api/qmail/db/messages/list"
UPLOAD = "/api/qmail/net/messages/upload"
LISTED = GuardSettings(hosts=hosts_for(8080), origins=frozenset((GUI,)), compat_open=True)
TOKEN = GuardSettings(hosts=hosts_for(8080), origins=frozenset((GUI,)), token="s3cret")


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    loggers = [logging.getLogger(name) for name in ("qmail", "uvicorn", "asyncio", "mail", "python_multipart")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield io.StringIO()
    for logger, state in zip(loggers, before, strict=True):
        logger.handlers, logger.level, logger.propagate = state


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080"])
def test_own_hosts_are_answered(engine: FakeEngine, host: str) -> None:
    assert ask(engine, "GET", LIST, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:8081", "localhost:8080.evil.example", ""])
@pytest.mark.parametrize("path", [LIST, "/", "/nowhere"])
def test_foreign_hosts_are_misdirected_before_routing(engine: FakeEngine, host: str, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = ask(engine, method, path, headers={"host": host})
        assert answer.status_code == 421
        assert answer.json()["code"] == 421


def test_port_80_is_left_out_by_clients() -> None:
    assert {"localhost", "localhost:80", "mail.example"} <= hosts_for(80, "Mail.Example")
    assert "localhost" not in hosts_for(8080)


@pytest.mark.parametrize(
    ("site", "mode", "path", "status"),
    [
        (None, None, UPLOAD, 400),
        ("same-origin", "cors", UPLOAD, 400),
        ("none", "cors", UPLOAD, 400),
        ("none", "navigate", UPLOAD, 403),
        ("none", "navigate", LIST, 200),
        ("none", "navigate", "/", 200),
        ("same-site", "cors", LIST, 403),
        ("cross-site", "no-cors", LIST, 403),
        ("cross-site", "navigate", LIST, 403),
        ("cross-site", "navigate", "/", 200),
        ("cross-site", "no-cors", "/", 403),
        ("invented", "cors", LIST, 403),
    ],
)
def test_fetch_metadata(engine: FakeEngine, site: str | None, mode: str | None, path: str, status: int) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    given = {name: value for name, value in headers.items() if value}
    assert ask(engine, "GET", path, headers=given).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [(BASE, 200), (GUI, 403), ("null", 403), ("http://localhost:8080", 403), ("https://127.0.0.1:8080", 403)],
)
def test_unlisted_origins_are_refused_without_cors_headers(engine: FakeEngine, origin: str, status: int) -> None:
    answer = ask(engine, "POST", LIST, headers={"origin": origin})
    assert answer.status_code == status
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_repeated_origin_matches_nothing(engine: FakeEngine) -> None:
    assert ask(engine, "GET", LIST, headers=[("origin", BASE), ("origin", "null")]).status_code == 403


@pytest.mark.parametrize(("path", "status"), [(LIST, 200), (UPLOAD, 400), ("/nowhere", 404)])
def test_listed_origins_get_cors_headers_on_every_answer(engine: FakeEngine, path: str, status: int) -> None:
    headers = {"origin": GUI, "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}
    answer = ask(engine, "POST", path, headers=headers, guard=LISTED)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == GUI
    assert answer.headers["vary"] == "Origin"
    assert "Content-Disposition" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


def test_preflight_is_for_listed_origins_only_and_needs_no_token(engine: FakeEngine) -> None:
    headers = {"origin": GUI, "access-control-request-method": "POST", "sec-fetch-site": "same-site"}
    answer = ask(engine, "OPTIONS", UPLOAD, headers=headers, guard=TOKEN)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == GUI
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert allowed[:3] == ["Content-Type", "Authorization", "Idempotency-Key"]
    assert {"X-Access-Token", "Last-Event-ID", "Range", "Tus-Resumable"} < set(allowed)
    assert ask(engine, "OPTIONS", UPLOAD, headers=headers).status_code == 403
    assert ask(engine, "OPTIONS", UPLOAD).status_code == 405


@pytest.mark.parametrize(
    ("given", "status"),
    [("Bearer s3cret", 200), ("bearer s3cret", 200), ("Bearer wrong", 401), ("Basic s3cret", 401), (None, 401)],
)
def test_the_token(engine: FakeEngine, given: str | None, status: int) -> None:
    answer = ask(engine, "GET", LIST, headers={"authorization": given} if given else {}, guard=TOKEN)
    assert answer.status_code == status
    assert answer.headers.get("www-authenticate") == (None if status == 200 else "Bearer")


def test_a_page_needs_no_token_and_other_routes_do_even_unknown_ones(engine: FakeEngine) -> None:
    assert ask(engine, "GET", "/", guard=TOKEN).status_code == 200
    assert ask(engine, "GET", "/nowhere", guard=TOKEN).status_code == 401
    refused = ask(engine, "GET", LIST, guard=TOKEN, headers={"origin": GUI})
    assert refused.headers["access-control-allow-origin"] == GUI


def test_settings_that_would_open_everything_are_refused() -> None:
    with pytest.raises(ConfigError):
        GuardSettings(hosts=hosts_for(1))
    for origin in ("*", "null"):
        with pytest.raises(ConfigError):
            GuardSettings(hosts=hosts_for(1), origins=frozenset((origin,)), token="t")


def test_the_page_runs_only_its_own_script(engine: FakeEngine) -> None:
    answer = ask(engine, "GET", "/")
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "innerHTML" not in answer.text
    assert " style=" not in answer.text
    assert "//cdn" not in answer.text


def test_every_answer_has_a_request_id_of_its_own(engine: FakeEngine) -> None:
    first, second = ask(engine, "GET", "/nowhere"), ask(engine, "GET", "/nowhere")
    for answer in (first, second):
        assert len(answer.headers["x-request-id"]) == 16
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_unknown_routes_and_methods_in_the_one_body(engine: FakeEngine) -> None:
    answer = ask(engine, "GET", "/api/qmail/nowhere")
    assert answer.status_code == 404
    body = answer.json()
    assert list(body) == ["success", "error", "status", "error_code", "message", "code", "request_id"]
    assert body["success"] is False
    assert body["error"] is True
    assert body["status"] == "fail"
    refused = ask(engine, "PATCH", UPLOAD)
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD, POST, PUT, DELETE"
    assert refused.json()["message"] == "Method not allowed"


def test_head_answers_as_get_without_a_body(engine: FakeEngine) -> None:
    answer = ask(engine, "HEAD", LIST)
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) > 0
    assert ask(engine, "HEAD", "/").content == b""


def test_extra_routes_of_both_kinds(engine: FakeEngine) -> None:
    async def mine(call: Call) -> dict[str, Any]:
        return {"word": call.params.text("word")}

    async def node(request: Request) -> PlainTextResponse:
        if request.path_params["n"] == 7:
            raise NotFound("no such node")
        return PlainTextResponse(str(request.path_params["n"]))

    extra = [Route("/mine", mine), StarletteRoute("/nodes/{n:int}", node, methods=["POST"])]
    assert ask(engine, "GET", "/mine?word=x", extra_routes=extra).json() == {"word": "x"}
    assert ask(engine, "POST", "/nodes/3", extra_routes=extra).text == "3"
    assert ask(engine, "POST", "/nodes/7", extra_routes=extra).json()["message"] == "no such node"
    assert ask(engine, "GET", "/nodes/3", extra_routes=extra).status_code == 405
    assert ask(engine, "GET", "/nodes/x", extra_routes=extra).json()["message"] == "Unknown route"


def test_an_unexpected_error_says_nothing_and_is_logged(engine: FakeEngine, lines: io.StringIO) -> None:
    logs.configure("INFO", stream=lines)

    async def broken(call: Call) -> None:
        raise RuntimeError("secret detail")

    answer = ask(engine, "GET", "/broken", extra_routes=[Route("/broken", broken)])
    assert answer.status_code == 500
    assert answer.json()["message"] == "Internal error"
    assert "secret" not in answer.text
    assert "RuntimeError: secret detail" in lines.getvalue()


def test_an_error_after_the_start_of_an_answer_cuts_the_connection(engine: FakeEngine) -> None:
    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    async def endpoint(call: Call) -> Any:
        return half

    with pytest.raises(RuntimeError, match="too late"):
        ask(engine, "GET", "/half", extra_routes=[Route("/half", endpoint)])


def test_one_access_line_per_request_without_the_query(engine: FakeEngine, lines: io.StringIO) -> None:
    logs.configure("INFO", json=True, stream=lines)
    answer = ask(engine, "GET", LIST + "?token=s3cret&limit=5")
    logs.access.flush()
    (line,) = [json.loads(text) for text in lines.getvalue().splitlines()]
    assert {name: line[name] for name in ("method", "path", "status")} == {"method": "GET", "path": LIST, "status": 200}
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "s3cret" not in lines.getvalue()


def test_what_libraries_complain_about_has_the_form_of_our_lines(lines: io.StringIO) -> None:
    logs.configure("INFO", json=True, stream=lines)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("python_multipart.multipart").warning("Expected boundary character 45, got 120")
    (line,) = [json.loads(text) for text in lines.getvalue().splitlines()]
    assert (line["level"], line["message"]) == ("warning", "Invalid HTTP request received.")


def test_a_path_cannot_forge_a_log_line(engine: FakeEngine, lines: io.StringIO) -> None:
    logs.configure("INFO", stream=lines)
    ask(engine, "GET", "/a%0AINFO%20forged%1B[2J")
    logs.access.flush()
    assert len(lines.getvalue().splitlines()) == 1
    assert "\x1b" not in lines.getvalue()


def test_debug_raises_the_level_for_its_own_request_only(engine: FakeEngine, lines: io.StringIO) -> None:
    logs.configure("WARNING", stream=lines)

    async def chatty(call: Call) -> dict[str, Any]:
        logging.getLogger("qmail.test").debug("detail of %s", call.params.text("name"))
        return {}

    app = build_app(engine, OPEN, extra_routes=[Route("/chatty", chatty)])  # type: ignore[arg-type]

    async def both() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
            await asyncio.gather(client.get("/chatty?name=loud&debug=true"), client.get("/chatty?name=silent"))

    asyncio.run(both())
    assert "detail of loud" in lines.getvalue()
    assert "silent" not in lines.getvalue()


def test_what_a_library_warns_of_cannot_drive_a_terminal(lines: io.StringIO) -> None:
    logs.configure("INFO", stream=lines)
    logging.getLogger("mail.log").warning("%r from %s", b"x", "\x1b[2J\r\nme")
    (line,) = lines.getvalue().splitlines()
    assert line.endswith(r"WARNING mail.log b'x' from \x1b[2J\x0d\x0ame")


def test_lifespan_and_websockets(engine: FakeEngine) -> None:
    app = build_app(engine, OPEN)  # type: ignore[arg-type]
    sent: list[dict[str, Any]] = []

    async def speak(scope: dict[str, Any], *messages: dict[str, Any]) -> None:
        queue = list(messages)

        async def receive() -> dict[str, Any]:
            return queue.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(speak({"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
    asyncio.run(speak({"type": "websocket", "path": "/", "headers": []}))
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]
