"""A process that delivers messages to a user until it is killed: `python -m tests.flows.deliveries FOLDER FIRST COUNT`.

It says what it has done as it does it, one line each: `user OID`, `stored NUMBER NAME`, `leaving NUMBER` in front of a
deletion, `end`. What message a number is anybody can tell.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from qmail_core.config import EngineConfig, beacons_for
from qmail_core.embed import Cluster
from qmail_core.engine.accounts.users import NewUser
from qmail_core.engine.engine import Engine
from qmail_core.model import Address
from qmail_core.store.sqlite import SqliteStore
from qmail_core.transport.loopback import LoopbackTransport

AT_ONCE = 16
USER = "cy"


def message(number: int) -> bytes:
    """Small ones; ones with a large part many have; ones with a large part of their own."""
    head = f"From: ada@example.org\r\nSubject: number w{number}x\r\nMIME-Version: 1.0\r\n"
    text = f"Dear reader of w{number}x,\r\n" + "a line as long as many others are\r\n" * (number % 40)
    if number % 10 not in (3, 7):
        return f"{head}\r\n{text}".encode()
    seed = b"shared" if number % 10 == 3 else b"%d" % number
    part = hashlib.shake_256(seed).hexdigest(50_000)
    lines = "\r\n".join(part[at : at + 76] for at in range(0, len(part), 76))
    return (
        f'{head}Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\n{text}\r\n--b\r\n'
        f"Content-Type: application/octet-stream; name=a.bin\r\n\r\n{lines}\r\n--b--\r\n"
    ).encode()


def engine_in(folder: Path, cluster: Cluster) -> Engine:
    """An engine whose store is a file in this folder."""
    (coin,) = cluster.mint([Address(1, 4242)])
    config = EngineConfig(
        data=str(folder), striping=cluster.striping, beacons=beacons_for(5), pool_upload=0, pool_inbox=0
    )
    return Engine(config, coin, LoopbackTransport(cluster._host), SqliteStore(str(folder / "store.sqlite")))


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def deliver_all(engine: Engine, numbers: list[int]) -> None:
    found = await user_of(engine)
    user = engine.mailboxes.user(found)
    left = iter(numbers)

    async def one_after_the_other() -> None:
        for number in left:
            filed = await engine.post.deliver(user, message(number), address=f"{USER}@example.org")
            assert filed is not None
            say("stored", number, f"{filed.oid.hex()}:{filed.uid}")
            if number % 9 == 0:
                say("leaving", number)
                await engine.messages_of.delete(user, [filed])
            if number % 90 == 0:
                await engine.messages_of.sweep()

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


async def user_of(engine: Engine) -> bytes:
    account = engine._ctx.store.accounts.account_named(USER)
    if account is None:
        new = NewUser(username=USER, password="secretpass", address=f"{USER}@example.org")
        account = await engine.accounts.users.create(new)
    say("user", account.oid.hex())
    return account.oid


async def main(folder: Path, first: int, count: int) -> None:
    async with Cluster(5) as cluster:
        engine = engine_in(folder, cluster)
        await engine.start()
        await deliver_all(engine, list(range(first, first + count)))
        await engine.close()
    say("end")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
