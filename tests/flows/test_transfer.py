"""Files over real sockets: a server that is killed in the middle of an upload, a client that leaves a download."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.flows.demo import Demo

MIB = 1 << 20


class Upload:
    """A body that stops half-way until it is told to go on."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.half = threading.Event()
        self.go = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.bin"\r\n\r\n'
        for number in range(self.size // MIB):
            if number == self.size // MIB // 2:
                self.half.set()
                self.go.wait(60)
            yield bytes(MIB)
        yield b"\r\n--b--\r\n"


def token(demo: Demo) -> dict[str, str]:
    made = demo.http.post(f"{demo.alice}/api/tokens", json={"name": "test"}).json()["data"]
    return {"Authorization": f"Bearer {made['token']}"}


def test_a_server_that_is_killed_leaves_no_half_file(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    try:
        demo.start()
        headers = token(demo)
        kept = demo.http.post(f"{demo.alice}/api/files", files={"file": ("a", b"kept")}, headers=headers).json()
        upload = Upload(32 * MIB)

        def push() -> None:
            form = {**headers, "Content-Type": "multipart/form-data; boundary=b"}
            try:
                httpx.post(f"{demo.alice}/api/files", content=upload, headers=form, timeout=60, trust_env=False)
            except httpx.HTTPError:
                return
            raise AssertionError("the upload was answered")

        pusher = threading.Thread(target=push)
        pusher.start()
        assert upload.half.wait(60)
        files = tmp_path / "alice" / "Files"
        assert len(os.listdir(files)) == 2
        demo.kill()
        upload.go.set()
        pusher.join()
        demo.start()
        assert len(os.listdir(files)) == 1
        listed = demo.http.get(f"{demo.alice}/api/files", headers=headers).json()["data"]
        assert [row["id"] for row in listed] == [kept["data"]["id"]]
        demo.stop()
    finally:
        demo.close()


def test_a_client_that_leaves_can_come_back(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    try:
        demo.start()
        headers, data = token(demo), os.urandom(48 * MIB)

        def post(path: str, **body: object) -> dict[str, str]:
            answer = demo.http.post(f"{demo.alice}{path}", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            found: dict[str, str] = answer.json()["data"]
            return found

        file = demo.http.post(f"{demo.alice}/api/files", files={"file": ("a", data)}, headers=headers).json()["data"]
        download = post("/api/downloads", files=[file["id"]])["id"]
        key = post("/api/keys", pin="1234")["key"]
        url = post(f"/api/downloads/{download}/keys", pinKey=key)["url"]
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port)) as leaver:
            leaver.sendall(f"GET {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            assert leaver.recv(65536).startswith(b"HTTP/1.1 200")
        whole = demo.http.get(url)
        while whole.status_code == 409:  # until the server has heard of it
            whole = demo.http.get(url)
        assert whole.content == data
        assert demo.http.get(url).status_code == 410
        demo.stop()
    finally:
        demo.close()
