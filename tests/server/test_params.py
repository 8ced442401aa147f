"""qmail_server/http/params.py: one table from query, form, JSON and multipart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qmail_server.http import params as module
from qmail_server.http.params import ClientGone, Params, Sink, file_name, pairs_of, read

from qmail_core.errors import UsageError
from qmail_core.model import Source

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=XX"


def parse(
    query: str = "", body: bytes | list[bytes] = b"", kind: str = FORM, method: str = "POST", sink: Sink | None = None
) -> Params:
    chunks = body if isinstance(body, list) else [body]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    scope = {"query_string": query.encode(), "method": method, "headers": [(b"content-type", kind.encode())]}
    params = Params()
    asyncio.run(read(params, scope, receive, sink))
    return params


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    file = b"" if filename is None else b'; filename="%b"' % filename.encode()
    return b'--XX\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name.encode(), file, data)


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[BinaryIO] = []

    def __call__(self, name: str) -> tuple[BinaryIO, Source]:
        path = self.path / f"spool{len(self.files)}"
        self.files.append(path.open("wb"))
        return self.files[-1], Source(name=name, path=str(path), spooled=True)


def test_query_and_form_are_merged_and_the_body_wins_for_single_values() -> None:
    params = parse("subject=old&to=a", b"SUBJECT=new+text&To=b&to=c")
    assert params.text("subject") == "new text"
    assert params.many("to") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("To", "to"),
        ("bc", "bcc"),
        ("attachment", "attachments"),
        ("attachement", "attachments"),
        ("wallet", "wallet_path"),
        ("sender_id", "sender"),
        ("storage_weeks", "duration"),
    ],
)
def test_older_names_mean_the_same(alias: str, name: str) -> None:
    assert parse(f"{alias}=x").text(name) == "x"


def test_repeated_parameters_stay_whole() -> None:
    params = parse("to=a,b;%20c&to=&to=d&attachment_file_path=/x/a,b&attachment_file_path=/x/c")
    assert params.many("to") == ["a,b; c", "d"]
    assert params.many("attachment_file_path") == ["/x/a,b", "/x/c"]


def test_percent_encoding_and_broken_utf8() -> None:
    assert parse("body=%E2%82%AC%20%zz").text("body") == "€ %zz"
    assert parse("body=%FF").text("body") == "\ufffd"


def test_a_get_request_has_no_body() -> None:
    assert not parse("a=1", b"b=2", method="GET").has("b")


def test_json_is_accepted_and_flat() -> None:
    params = parse("", b'{"to":["a","b"],"duration":4,"peek":true,"cc":null}', "application/json; charset=utf-8")
    assert params.many("to") == ["a", "b"]
    assert params.integer("duration", 1, 1, 9) == 4
    assert params.flag("peek")
    assert not params.has("cc")
    for bad in (b"[1]", b'{"a":{}}', b'{"a":[[1]]}', b"{", b"[" * 100_000, b'{"a":"\xff"}', b'{"\xc3":1}'):
        with pytest.raises(UsageError, match="Invalid JSON body"):
            parse("", bad, "application/json")


def test_an_empty_list_is_given_and_empty() -> None:
    params = parse("", b'{"to":[],"Subject":[],"cc":null}', "application/json")
    assert (params.given("to"), params.many("to"), params.text("to", default="x")) == (True, [], "x")
    assert (params.given("subject"), params.last("subject")) == (True, "")
    assert not params.given("cc")
    with pytest.raises(UsageError, match="Too many request parameters"):
        parse("", b"{" + b",".join(b'"%d":[]' % number for number in range(301)) + b"}", "application/json")


def test_an_empty_value_counts_as_not_given() -> None:
    params = parse("limit=5&peek=1&starred=&flag=no&sort=old&offset=%20", b"limit=&peek=&starred=&flag=&sort=new&sort=")
    assert params.integer("limit", 50, 1, 200) == 5
    assert params.integer("offset", 7, 0, 9) == 7
    assert params.text("sort") == "new"
    assert (params.flag("peek"), params.flag("starred", True), params.flag("starred")) == (True, True, False)
    assert params.flag("flag", True) is False
    assert params.last("limit") == ""  # for fields that an empty value clears


def test_other_content_types_are_refused_unless_empty() -> None:
    assert parse("", b"", "text/plain").text("a") == ""
    with pytest.raises(UsageError, match="Unsupported content type") as caught:
        parse("", b"a=1", "text/plain")
    assert caught.value.hint == 415


@pytest.mark.parametrize("count", [300, 301])
def test_the_number_of_parameters_is_limited_over_all_sources(count: int) -> None:
    half = "&".join("a=1" for _ in range(150))
    rest = "&".join("a=1" for _ in range(count - 150)).encode()
    if count == 300:
        assert len(parse(half, rest).many("a")) == 300
        return
    with pytest.raises(UsageError, match="Too many request parameters") as caught:
        parse(half, rest)
    assert caught.value.hint == 413


def test_too_many_json_members_and_too_long_names() -> None:
    with pytest.raises(UsageError, match="Too many request parameters"):
        parse("", b'{"a":[' + b",".join([b"1"] * 301) + b"]}", "application/json")
    with pytest.raises(UsageError, match="Parameter name is longer"):
        parse("x" * 65 + "=1")


def test_the_size_of_a_form_is_limited() -> None:
    with pytest.raises(UsageError, match="Request body is too large") as caught:
        parse("", [b"a" * (1 << 20)] * 5)
    assert caught.value.hint == 413


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("FALSE", False), ("0", False), ("", False)])
def test_flags(text: str, value: bool) -> None:
    assert parse(f"peek={text}").flag("peek") is value


def test_flags_and_numbers_complain_clearly() -> None:
    params = parse("peek=maybe&limit=ten&timeout=1e3&offset=-5&since=99999999999")
    with pytest.raises(UsageError, match=r"Invalid peek \(must be true or false\)"):
        params.flag("peek")
    with pytest.raises(UsageError, match=r"Invalid limit \(must be an integer\)"):
        params.integer("limit", 1, 1, 2)
    with pytest.raises(UsageError, match=r"Invalid timeout \(must be a number\)"):
        params.number("timeout", 1, 1, 2)
    assert params.integer("offset", 0, 0, 9) == 0
    assert params.integer("since", 0, 0, 9) == 9
    assert params.integer("absent", 7, 0, 9) == 7
    assert params.number("absent", 7.5, 0, 9) == 7.5
    assert params.flag("absent", True) is True


def test_multipart_streams_files_to_the_sink_whatever_the_chunks(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40 + b"\r\n--X\r\n"
    body = part("to", b"a") + part("attachment", data, "a.bin") + part("Attachment", b"", "b.txt") + b"--XX--\r\n"
    for size in (1, 7, 4096, len(body)):
        sink = Folder(tmp_path)
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        params = parse("subject=s", chunks, MULTIPART, sink=sink)
        assert params.text("to") == "a"
        assert [source.name for source in params.files] == ["a.bin", "b.txt"]
        assert Path(params.files[0].path).read_bytes() == data
        assert Path(params.files[1].path).read_bytes() == b""
        assert all(file.closed for file in sink.files)


def test_an_empty_file_field_of_a_form_is_no_file(tmp_path: Path) -> None:
    params = parse("", part("attachment", b"", "") + part("to", b"a") + b"--XX--\r\n", MULTIPART, sink=Folder(tmp_path))
    assert params.files == []
    assert params.text("to") == "a"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (part("other", b"x", "a") + b"--XX--\r\n", 'Unexpected file part "other"'),
        (part("attachment", b"x", "a"), "it ends early"),
        (b"--XX\r\nContent-Type: text/plain\r\n\r\nx\r\n--XX--\r\n", "a part without a name"),
        (b"--YY\r\n", "Invalid multipart body"),
        (b"--XX\r\nContent-Disposition: " + b"x" * 8192 + b"\r\n\r\nx\r\n--XX--\r\n", "Invalid multipart body"),
        (part("attachment", b"x", "a") * 245 + b"--XX--\r\n", "Too many attachments: maximum is 244"),
        (part("body", b"x" * (4 << 20)) + part("body", b"x") + b"--XX--\r\n", "Request body is too large"),
    ],
)
def test_a_bad_multipart_body_leaves_no_open_files(tmp_path: Path, body: bytes, message: str) -> None:
    sink = Folder(tmp_path)
    with pytest.raises(UsageError, match=message):
        parse("", body, MULTIPART, sink=sink)
    assert all(file.closed for file in sink.files)


def test_files_are_refused_where_nobody_wants_them() -> None:
    with pytest.raises(UsageError, match="Unexpected file part"):
        parse("", part("attachment", b"x", "a") + b"--XX--\r\n", MULTIPART)
    with pytest.raises(UsageError, match="no boundary"):
        parse("", b"x", "multipart/form-data")


def test_a_file_that_is_too_large_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE", 10)
    with pytest.raises(UsageError, match="larger than 10 bytes") as caught:
        parse("", part("attachment", b"x" * 11, "a") + b"--XX--\r\n", MULTIPART, sink=Folder(tmp_path))
    assert caught.value.hint == 413


def test_a_client_that_leaves_in_the_middle_leaves_no_open_files(tmp_path: Path) -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part("attachment", b"x", "a") * 2, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    sink = Folder(tmp_path)
    scope = {"query_string": b"", "method": "POST", "headers": [(b"content-type", MULTIPART.encode())]}
    with pytest.raises(ClientGone):
        asyncio.run(read(Params(), scope, receive, sink))
    assert all(file.closed for file in sink.files)


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\a\\plan.pdf", "plan.pdf"),
        ("..", "attachment"),
        (".", "attachment"),
        ("", "attachment"),
        ("a/", "attachment"),
        (".bashrc", "bashrc"),
        ("a\0b\n\x1b[2J.txt", "ab[2J.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("Übung €.txt", "Übung €.txt"),
        ("x" * 300 + ".pdf", "x" * 180 + ".pdf"),
        ("€" * 300, "€" * 66),
    ],
)
def test_file_names_become_harmless(given: str, safe: str) -> None:
    assert file_name(given) == safe


@given(st.binary(max_size=200) | st.text("ab=&+%41fe2;", max_size=60).map(str.encode))
def test_forms_are_read_as_the_standard_library_reads_them(raw: bytes) -> None:
    expected = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True)
    assert pairs_of(raw) == expected
