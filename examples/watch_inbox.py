"""Wait for mail as a client does: one long poll after the other, each answered as soon as a beacon has something.

The loop ends after three mails, or after the first poll that brings nothing.
"""

import asyncio
from collections.abc import AsyncIterator

from qmail_core import Cluster, Engine, Message

POLL = 5.0  # seconds a poll waits; a server would use minutes


async def watch(engine: Engine, polls: int) -> AsyncIterator[Message]:
    """Every mail that arrives during so many polls, fetched and filed."""
    for mail in await engine.receive():  # what came before the first poll
        yield mail.message
    for _ in range(polls):
        polled = await engine.ping(POLL)
        for waiting in polled.notifications:
            yield (await engine.download(waiting.tell.guid)).message
        if not polled.notifications:
            return


async def write(engine: Engine, subjects: list[str]) -> None:
    """Send one mail after the other."""
    for subject in subjects:
        await asyncio.sleep(0.05)
        await engine.send(engine.draft(["bob"], subject, "Is anybody there?"))


async def main() -> None:
    async with Cluster() as cluster:
        alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
        writing = asyncio.create_task(write(alice, ["one", "two", "three"]))
        seen = 0
        async for message in watch(bob, polls=3):
            seen += 1
            print(f"{seen}: {message.subject} from {message.sender_text}")
            if seen == 3:
                break
        await writing


if __name__ == "__main__":
    asyncio.run(main())
