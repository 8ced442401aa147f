"""A mail with an attachment that is read although five of its 25 servers are gone. Nothing leaves this process."""

import asyncio

from qmail_core import Cluster, Source


async def main() -> None:
    async with Cluster() as cluster:
        alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
        notes = Source(name="notes.txt", data=b"written on a train\n" * 1000)
        sent = await alice.send(alice.draft(["bob"], "Hello", "A mail over 25 servers.", attachments=[notes]))
        print("survives the loss of any", sent.receipt.upload.survives_loss_of, "servers")
        cluster.down |= {3, 7, 11, 19, 24}
        for mail in await bob.receive():
            print(f"{mail.message.subject!r}: {mail.stripes_downloaded} stripes, {mail.stripes_recovered} recovered")
            file = await bob.attachment(mail.message.id, mail.attachments[0].id)
            print(f"{file.name}: {file.size} bytes")


if __name__ == "__main__":
    asyncio.run(main())
