"""The demo's tour: a mail with a photograph survives five dead servers, and is made whole again. Ten lines."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qmail_core.errors import QMailError
from qmail_core.model import Downloaded, SendResult, Source, StoredAttachment
from qmail_server.demo import samples
from qmail_server.demo.world import BOB_TEXT, NODES, World

DEAD = (3, 7, 11, 19, 24)  # 11 is the first beacon


class TourFailed(QMailError):
    """A promise of the tour did not hold."""

    code = "tour_failed"


def require(holds: bool, text: str) -> None:
    """Stop the tour when a promise does not hold."""
    if not holds:
        raise TourFailed(text)


async def tour(world: World, say: Callable[[str], None]) -> dict[str, Any]:
    """Show it; returns the figures it printed, raises TourFailed if a promise does not hold."""
    begun = time.perf_counter()

    def line(text: str) -> None:
        say(f"{(time.perf_counter() - begun) * 1000:7.1f} ms  {text}")

    photo = samples.PHOTO.read_bytes()
    digest = hashlib.sha256(photo).hexdigest()
    line(f"{NODES} servers listen; Alice and Bob have mailboxes and {world.alice.balance()} CC each")

    sent = await _send(world)
    up, guid = sent.receipt.upload, bytes.fromhex(sent.receipt.file_guid)
    line(f"Alice sent Bob a mail with a photograph of {len(photo):,} bytes, as {len(up.files)} objects in stripes")
    require(up.servers.ok == NODES, f"only {up.servers.ok} servers stored the mail")
    line(
        f"stored on {up.servers.ok} of {up.servers.total} servers, of which any {up.survives_loss_of} may vanish;"
        f" it cost {sent.storage_cost + sent.inbox_cost} CC"
    )

    await _mode(world, "down")
    line(f"servers {', '.join(map(str, DEAD))} are stopped; 11 was Bob's first beacon")

    waiting = (await world.bob.peek()).notifications
    require(any(item.tell.guid == guid for item in waiting), "Bob's second beacon does not know of the mail")
    line("Bob asked his beacons: the second one announced the mail")

    mail = await world.bob.download(guid)
    line(f"Bob read it: {mail.stripes_downloaded} stripes downloaded, {mail.stripes_recovered} recovered from parity")
    require((mail.stripes_downloaded, mail.stripes_recovered) == (NODES - len(DEAD), len(DEAD)), "wrong stripe counts")

    found = await _photo(world, mail)
    same = await asyncio.to_thread(_digest, found.path)
    require(same == digest, "the photograph is not the one that was sent")
    line(f"the photograph is the same, byte for byte: SHA-256 {digest[:16]}...")

    for node in DEAD:
        await asyncio.to_thread(world.network.thread.lose, node, guid)
    await _mode(world, "up")
    line("the five servers came back, but their disks have lost the mail")

    repaired = await world.alice.repair(guid)
    line(f"Alice's engine found {repaired.missing} stripes missing, and rebuilt and stored {repaired.rebuilt}")
    require(repaired.rebuilt == repaired.missing == len(DEAD) * len(up.files), "not every stripe was repaired")

    again = await world.alice.repair(guid)
    require(again.missing == 0 and again.survives_loss_of == len(DEAD), "the mail is not whole again")
    line(f"all {again.checked} stripes checked: again any {again.survives_loss_of} servers may vanish")
    return {
        "guid": guid.hex(),
        "stripes_downloaded": mail.stripes_downloaded,
        "stripes_recovered": mail.stripes_recovered,
        "stripes_repaired": repaired.rebuilt,
        "survives_loss_of": again.survives_loss_of,
        "sha256": digest,
    }


async def _send(world: World) -> SendResult:
    photo = Source(name="photograph.jpg", path=str(world.data / "alice" / "files" / "photo.jpg"))
    text = "Dear Bob,\n\nthe photograph I promised. Five servers may burn and you will still see it.\n\nAlice\n"
    return await world.alice.send(world.alice.draft([BOB_TEXT], "A photograph ✓", text, attachments=[photo]))


async def _photo(world: World, mail: Downloaded) -> StoredAttachment:
    return await world.bob.attachment(mail.message.id, mail.attachments[0].id)


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


async def _mode(world: World, mode: Any) -> None:
    for node in DEAD:
        await asyncio.to_thread(world.network.thread.set_mode, node, mode)
