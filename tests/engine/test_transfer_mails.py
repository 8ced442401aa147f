"""Mail the file-transfer API fetches, and the files it lets be downloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from qmail_core.embed import Cluster
from qmail_core.engine.engine import Engine
from qmail_core.engine.files import pins
from qmail_core.engine.files.tokens import Owner
from qmail_core.model import Listing
from qmail_core.store.mailbox import HOME

PIN = "123456"
PAGE = Listing(limit=10, offset=0)
PDF = b"%PDF" * 100_000  # more than is kept within the database


def over(story: Callable[..., Awaitable[None]], *names: str) -> None:
    """Run a story against a cluster and the engines of some people, each with a PIN."""

    async def whole() -> None:
        async with Cluster(5) as cluster:
            engines = [await cluster.engine(name) for name in names]
            for engine in engines:
                await engine.transfer.pins.set(HOME, PIN)
            await story(cluster, *engines)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pins, "COST", 1 << 4)
        asyncio.run(whole())


async def owner_of(engine: Engine) -> Owner:
    _, text = await engine.transfer.tokens.create("tests")
    return engine.transfer.tokens.owner(text)


async def fetched(engine: Engine, download: bytes) -> bytes:
    owner, downloads = await owner_of(engine), engine.transfer.downloads
    pin_key = (await engine.transfer.pins.unlock(owner, PIN)).key
    opened = await downloads.open(download, (await downloads.make_key(owner, download, pin_key)).key)
    return b"".join([part async for part in downloads.read(opened, 0, opened.content.size, "here")])


def test_a_mail_that_cannot_be_rebuilt_holds_up_no_other() -> None:
    async def story(cluster: Cluster, alice: Engine, bob: Engine) -> None:
        lost = await alice.send(alice.draft(["bob"], "lost", "x"))
        assert lost.receipt is not None
        for node in cluster.raida.nodes:
            node.state.drop(bytes.fromhex(lost.receipt.file_guid))
        for name in ("first", "second"):
            await alice.send(alice.draft(["bob"], name, "y"))
        rows, _ = await bob.transfer.mails.inbox(await owner_of(bob), PAGE)
        assert sorted(row.subject for row in rows) == ["first", "second"]

    over(story, "alice", "bob")


@pytest.mark.parametrize("files", [1, 2])
def test_the_files_of_a_mail_from_elsewhere_can_be_downloaded(files: int) -> None:
    async def story(_: Cluster, alice: Engine) -> None:
        letter = EmailMessage()
        letter["From"], letter["To"], letter["Subject"] = "a@far.example", "alice@near.example", "files"
        letter.set_content("see below")
        for number in range(files):
            letter.add_attachment(PDF, maintype="application", subtype="pdf", filename=f"{number}.pdf")
        mail = await alice.post.deliver(HOME, letter.as_bytes(), sender="a@far.example")
        assert mail is not None
        for row in alice.attachments(mail.email_id):
            saved = await asyncio.gather(*(alice.attachment(mail.email_id, row.id) for _ in range(3)))
            assert {Path(one.path).read_bytes() for one in saved} == {PDF}  # noqa: ASYNC240
        for data in await asyncio.gather(*(fetched(alice, mail.email_id) for _ in range(3))):
            assert data == PDF if files == 1 else data.count(PDF) == files

    over(story, "alice")
