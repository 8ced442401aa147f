"""The bytes of every command, recorded once: the native path must make and read exactly these."""

from __future__ import annotations

import json

import pytest

from qmail_core.codec import packet
from qmail_core.codec.cipher import Key
from qmail_core.codec.packet import Batch, Request, Sent
from qmail_core.raida.node import COMMANDS as SERVED
from tests.reference import record_frames
from tests.reference.commands import COIN, COMMANDS, LOCKER_KEY, NODE, Command

RECORDED = {(row["name"], row["enc"]): row for row in json.loads(record_frames.FRAMES.read_text(encoding="utf-8"))}
ROWS = [(command, enc) for command in COMMANDS for enc in record_frames.encodings(command)]
rows = pytest.mark.parametrize(("command", "enc"), ROWS, ids=[f"{command.name}-{enc}" for command, enc in ROWS])


class Ring:
    """A node that knows the coin and the locker of the frames."""

    def coin_an(self, selector: bytes) -> bytes | None:
        return COIN.an(NODE)

    def locker_an(self, prefix: bytes) -> bytes | None:
        return LOCKER_KEY


def sent(command: Command, enc: int) -> Sent:
    """The request as the native path makes it."""
    _, key, selector = record_frames.secrets(enc)
    batch = Batch(
        command.group, command.number, [NODE], [Key(enc, key, selector)], [command.request], [b""], command.page
    )
    return packet.pack(batch, record_frames.draw(command, enc, batch.entropy_size()))[0]


def opened(frame: bytes) -> Request:
    view = memoryview(bytearray(frame))
    return packet.open_request(view, packet.read_header(view), Ring())


@rows
def test_request_is_the_recorded_one(command: Command, enc: int) -> None:
    recorded = bytes.fromhex(RECORDED[command.name, enc]["request"])
    assert sent(command, enc).frame == recorded
    request = opened(recorded)
    header = request.header
    assert (header.raida, header.group, header.command, header.enc) == (NODE, command.group, command.number, enc)
    assert (bytes(request.payload), header.page) == (command.request, command.page)


@rows
def test_answer_is_the_recorded_one(command: Command, enc: int) -> None:
    recorded = bytes.fromhex(RECORDED[command.name, enc]["answer"])
    asked = sent(command, enc)
    iv = record_frames.draw(command, enc, len(asked.draw) + 16)[len(asked.draw) :]
    assert packet.build_reply(opened(asked.frame), command.status, command.answer, 0, iv) == recorded  # type: ignore[arg-type]
    reply = packet.open_reply(asked, memoryview(bytearray(recorded)))
    assert (reply.status, bytes(reply.payload)) == (command.status, command.answer)


def test_the_file_is_what_the_slow_packer_makes() -> None:
    assert record_frames.FRAMES.read_text(encoding="utf-8") == record_frames.text()


def test_every_command_a_node_serves_is_recorded() -> None:
    served = {(group, number) for group, numbers in SERVED.items() for number in numbers}
    assert served == {(command.group, command.number) for command in COMMANDS}
