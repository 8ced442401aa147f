"""Tests of a program that sends mail, against a network of its own. Run: python -m pytest examples/test_with_cluster.py

A plain function drives each test, so no asyncio plug-in is needed; with one, `cluster` works as an async fixture too.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qmail_core import Cluster, QuorumError, Source

Story = Callable[[Cluster], Awaitable[None]]
Run = Callable[[Story], None]


@pytest.fixture
def cluster() -> Run:
    """Runs a story on a fresh network of 8 nodes (7+1) that is gone afterwards."""

    def run(story: Story) -> None:
        async def whole() -> None:
            async with Cluster(nodes=8) as network:
                await story(network)

        asyncio.run(whole())

    return run


def test_attachment_comes_through_with_one_node_down(cluster: Run) -> None:
    async def story(network: Cluster) -> None:
        alice, bob = await network.engine("alice"), await network.engine("bob")
        report = Source(name="report.csv", data=b"1;2;3\n")
        await alice.send(alice.draft(["bob"], "Report", "attached", attachments=[report]))
        network.down.add(3)
        (mail,) = await bob.receive()
        file = await bob.attachment(mail.message.id, mail.attachments[0].id)
        assert await asyncio.to_thread(Path(file.path).read_bytes) == report.data
        assert mail.stripes_recovered == 1

    cluster(story)


def test_one_node_too_many_is_a_named_error_and_a_later_try_succeeds(cluster: Run) -> None:
    async def story(network: Cluster) -> None:
        alice, bob = await network.engine("alice"), await network.engine("bob")
        await alice.send(alice.draft(["bob"], "Patience", "still here"))
        network.down |= {2, 3}
        (waiting,) = (await bob.peek()).notifications
        with pytest.raises(QuorumError) as lost:
            await bob.download(waiting.tell.guid)
        assert set(lost.value.failures) == {2, 3}
        network.down.clear()
        assert (await bob.download(waiting.tell.guid)).message.body == "still here"

    cluster(story)
