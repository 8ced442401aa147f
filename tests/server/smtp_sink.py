"""A tiny SMTP server on loopback that keeps what it is given, and refuses what it is told to."""

from __future__ import annotations

import asyncio

from msgspec import Struct


class Mail(Struct):
    """One message that was taken."""

    sender: str
    recipients: list[str]
    raw: bytes


class Sink:
    """Listens while entered; `refuse` maps recipients to answers, `answer` is what DATA ends with."""

    def __init__(self, *, utf8: bool = True) -> None:
        self.mails: list[Mail] = []
        self.refuse: dict[str, str] = {}
        self.answer = "250 ok"
        self.greeting = "220 sink"
        self.utf8 = utf8
        self.hello = ""

    @property
    def place(self) -> str:
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def __aenter__(self) -> Sink:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mail = Mail("", [], b"")
        writer.write(f"{self.greeting}\r\n".encode())
        while line := await reader.readline():
            text = line.decode().strip()
            verb = text[:4].upper()
            if verb == "EHLO":
                self.hello = text[5:]
                extensions = ["SMTPUTF8"] if self.utf8 else []
                answer = "\r\n".join(["250-sink", *(f"250-{name}" for name in extensions), "250 8BITMIME"])
            elif verb == "MAIL":
                mail = Mail(text.partition("<")[2].partition(">")[0], [], b"")
                answer = "250 ok"
            elif verb == "RCPT":
                who = text.partition("<")[2].partition(">")[0]
                answer = self.refuse.get(who, "250 ok")
                if answer.startswith("250"):
                    mail.recipients.append(who)
            elif verb == "DATA":
                writer.write(b"354 go on\r\n")
                mail.raw = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                answer = self.answer
                if answer.startswith("250"):
                    self.mails.append(mail)
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                answer = "250 ok"
            writer.write(f"{answer}\r\n".encode())
