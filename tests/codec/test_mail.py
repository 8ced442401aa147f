"""Bodies of group 6: published vectors, the reference's worked examples, round trips, and every truncation refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmail_core import Cluster
from qmail_core.codec import consts as c
from qmail_core.codec import mail
from qmail_core.codec.mail import TellRecipient
from qmail_core.errors import LocalProtocolError, NodeError, QMailError, RemoteProtocolError
from qmail_core.model import Address, Coin, FileEntry, Profile, Source, StripeLocation, Striping, Tell
from tests.published import consumed, linked, names
from tests.raida import client, test_gate

Json = dict[str, Any]

FILES = names("qmail")
CHALLENGE = bytes.fromhex("000102030405060708090a0b9270c965")
AN = bytes(range(0xA0, 0xB0))
COIN = Coin(Address(0, 42), AN)
IDENTITY = mail.build_identity(COIN, 0)
GUID = bytes(range(16, 32))
LOCKER = b"X7KQ-M3PL-9RVB\0\0"


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


# ------------------------------------------------------------------------------------------------------------------
# Vectors


def check_preamble(vector: Json) -> None:
    raw = bytes.fromhex(vector["bytes_hex"])
    assert raw == CHALLENGE + IDENTITY
    assert len(raw) == vector["length_bytes"] == c.PREAMBLE_SIZE
    check = vector["cross_check"]
    assert check["result"] == "byte-identical"
    assert linked(check["against"])["bytes_hex"] == vector["bytes_hex"]
    assert mail.parse_identity(memoryview(raw[16:])) == mail.Identity(COIN.address, AN)


def check_file_types(vector: Json) -> None:
    numbers = [row["file_type"] for row in vector["mapping"]]
    assert numbers[:2] == [c.FILE_META, c.FILE_BODY]
    assert c.FILE_ATTACHMENT in numbers
    order = [row["file_type"] for row in vector["manifest_order"]]
    assert [row["position"] for row in vector["manifest_order"]] == list(range(len(order)))

    async def sent_manifest() -> list[int]:
        async with Cluster(nodes=5) as cluster:
            alice = await cluster.engine("alice")
            await alice.send(alice.draft(["alice"], "s", "b", attachments=[Source(name="x", data=b"x")]))
            (waiting,) = (await alice.peek()).notifications
            return [entry.file_type for entry in waiting.tell.files]

    assert asyncio.run(sent_manifest()) == order


def check_status_flow(vector: Json) -> None:
    commands = [(c.CMD_UPLOAD, c.CMD_UPLOAD_PAGE), (c.CMD_TELL,), (c.CMD_PING, c.CMD_PEEK), (c.CMD_DOWNLOAD,)]
    for step, codes in zip(vector["flow"], commands, strict=True):
        assert all(f"({code})" in step["command"] for code in codes)
        assert step["expect"].startswith("250")
    seen: list[tuple[int, int]] = []

    async def flow() -> None:
        async with Cluster(nodes=8) as cluster:
            alice, bob = await cluster.engine("alice"), await cluster.engine("bob")
            for node in cluster.raida.nodes:
                _watch(node, seen)
            big = Source(name="big", data=bytes(600_000))
            result = await alice.send(alice.draft(["bob"], "s", "b", attachments=[big]))
            assert result.receipt.upload.servers.ok == 8
            (got,) = await bob.receive()
            await bob.attachment(got.message.id, got.attachments[0].id)

    asyncio.run(flow())
    for codes in commands:
        statuses = {status for command, status in seen if command in codes}
        assert statuses == {c.STATUS_SUCCESS}, codes
    check_common_errors(vector["common_errors"])


def _watch(node: Any, seen: list[tuple[int, int]]) -> None:
    run = node._run

    def watched(command: Any, request: Any, now: float) -> Any:
        outcome = run(command, request, now)
        if request.header.group == c.GROUP_MAIL and outcome.reply is not None:
            seen.append((request.header.command, outcome.reply[2]))
        return outcome

    node._run = watched


def check_common_errors(errors: Json) -> None:
    world = client.World()
    peer = world.peer(world.tens[0])
    zero = mail.build_identity(Coin(peer.coin.address, bytes(32)), 0)
    wrong = mail.build_identity(Coin(peer.coin.address, b"\1" * 32), 0)
    found = [
        peer.mail(c.CMD_PEEK, mail.build_poll(), identity=zero).status,
        peer.mail(c.CMD_PEEK, mail.build_poll(), identity=wrong).status,
        peer.download().status,
    ]
    assert [str(status) for status in found] == list(errors)


CHECKS: dict[str, Callable[[Json], None]] = {
    "01-preamble.json": check_preamble,
    "02-file-type-mapping.json": check_file_types,
    "03-tell-drd-gate.json": test_gate.check_vector,
    "04-status-flow.json": check_status_flow,
}


@pytest.mark.parametrize("name", FILES)
def test_published_vector(name: str) -> None:
    with consumed("qmail", name) as vector:
        CHECKS[name](vector)


def test_every_vector_file_has_a_check() -> None:
    assert sorted(CHECKS) == FILES


# ------------------------------------------------------------------------------------------------------------------
# Worked examples


def test_the_documented_upload() -> None:
    head = mail.build_upload(GUID, LOCKER, 1, 2, 5)
    body = CHALLENGE + IDENTITY + head + b"hello" + c.TRAILER
    assert len(body) == 93
    assert body[48:] == hexed(
        "101112131415161718191a1b1c1d1e1f 58374b512d4d33504c2d395256420000 01 02 00000005 68656c6c6f 3e3e"
    )
    upload = mail.parse_upload(memoryview(body)[16:-2], paged=False)
    assert (upload.guid, upload.locker, upload.file_type, upload.duration, upload.page) == (GUID, LOCKER, 1, 2, 0)
    assert bytes(upload.data) == b"hello"


def test_the_documented_download() -> None:
    body = CHALLENGE + IDENTITY + mail.build_download(GUID, LOCKER, 1, 0) + c.TRAILER
    assert len(body) == 87
    assert body[48:] == hexed("101112131415161718191a1b1c1d1e1f 58374b512d4d33504c2d395256420000 01 00 000000 3e3e")
    assert mail.parse_download(memoryview(body)[16:-2]) == mail.Download(GUID, LOCKER, 1, 0)


TELL = Tell(
    guid=GUID,
    sender=Address(0, 42),
    timestamp=0x6A69B300,
    locker_code=LOCKER,
    total_size=16,
    striping=Striping(Profile.INTEROP, 2, 1),
    files=(FileEntry(0, 4, 46, 0x56FDE996), FileEntry(1, 1, 16, 0x396AC9F0)),
    servers=(
        StripeLocation(0, False, 0, "192.0.2.10", 50000),
        StripeLocation(1, False, 1, "192.0.2.11", 50001),
        StripeLocation(2, True, 2, "192.0.2.12", 50002),
    ),
)
WORKED = hexed(
    "101112131415161718191a1b1c1d1e1f 00000010 00000000 6a69b300 00 01 03 58374b512d4d33504c2d395256420000 00"
    "00 0006 00 000033fe 58374b512d4d33504c2d395256420000 0000000000000000"
    "101112131415161718191a1b1c1d1e1f 0006 00 0000002a 00 6a69b300 00 03 58374b512d4d33504c2d395256420000"
    "00000010 02 01 02 10 0020 03 00000000000000"
    "00 00 00 00000000000000 00000000000000000000 ffff c000020a c350 00000000"
    "01 00 01 00000000000000 00000000000000000000 ffff c000020b c351 00000000"
    "02 01 02 00000000000000 00000000000000000000 ffff c000020c c352 00000000"
    "00 04 0000 000000000000002e 56fde996 01 01 0000 0000000000000010 396ac9f0"
)


def test_the_documented_tell() -> None:
    recipient = TellRecipient(Address(0, 0x33FE), 0, LOCKER)
    body = mail.build_tell(TELL, [recipient], LOCKER)
    assert len(CHALLENGE + IDENTITY + body + c.TRAILER) == 322
    assert body == WORKED
    found = mail.parse_tell(memoryview(IDENTITY + WORKED))
    assert found == mail.TellRequest(TELL, (recipient,), LOCKER, WORKED[80:])
    assert mail.parse_record(memoryview(WORKED)[80:]) == (TELL, len(WORKED) - 80)
    assert mail.build_record(TELL) == WORKED[80:]


# ------------------------------------------------------------------------------------------------------------------
# Round trips and truncations

u32 = st.integers(0, 0xFFFFFFFF)
blob16 = st.binary(min_size=16, max_size=16)
addresses = st.builds(Address, st.integers(-128, 127), u32)
entries = st.builds(FileEntry, st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**64 - 1), u32)


@st.composite
def tells(draw: st.DrawFn) -> Tell:
    profile = draw(st.sampled_from(Profile))
    k, m = draw(st.integers(1, 20)), 1 if profile == Profile.INTEROP else draw(st.integers(1, 12))
    servers = [
        StripeLocation(
            i, i >= k, draw(st.integers(0, 24)), str(draw(st.ip_addresses(v=4))), draw(st.integers(0, 65535))
        )
        for i in range(k + m)
    ]
    listed = draw(st.sets(st.integers(0, k + m - 1), min_size=1 if profile else k + m))
    return Tell(
        guid=draw(blob16),
        sender=draw(addresses),
        timestamp=draw(u32),
        tell_type=draw(st.integers(0, 2)),
        locker_code=draw(blob16),
        total_size=draw(u32),
        striping=Striping(profile, k, m),
        files=tuple(draw(st.lists(entries, min_size=1, max_size=4))),
        servers=tuple(servers[i] for i in sorted(listed)),
    )


@given(
    tells(), st.lists(st.builds(TellRecipient, addresses, st.integers(0, 2), blob16), min_size=1, max_size=50), blob16
)
def test_tells_go_there_and_back(tell: Tell, recipients: list[TellRecipient], fee: bytes) -> None:
    body = IDENTITY + mail.build_tell(tell, recipients, fee)
    found = mail.parse_tell(memoryview(body))
    assert found == mail.TellRequest(tell, tuple(recipients), fee, mail.build_record(tell))


@settings(suppress_health_check=[HealthCheck.too_slow])  # drawing many tells takes its time
@given(st.lists(tells(), max_size=5))
def test_lists_of_tells_go_there_and_back(some: list[Tell]) -> None:
    records = [mail.build_record(tell) for tell in some]
    assert mail.parse_tells(mail.build_tells(records)) == list(zip(some, records, strict=True))


@given(st.binary(max_size=100), st.integers(0, 255), st.integers(0, 65535))
def test_uploads_and_pages_go_there_and_back(data: bytes, file_type: int, page: int) -> None:
    body = IDENTITY + mail.build_upload_page(GUID, LOCKER, file_type, 4, page, len(data)) + data
    found = mail.parse_upload(memoryview(body), paged=True)
    assert (found.file_type, found.duration, found.page, bytes(found.data)) == (file_type, 4, page, data)
    assert bytes(mail.parse_page(mail.build_page(file_type, page, data))) == data
    asked = mail.parse_download(memoryview(IDENTITY + mail.build_download(GUID, LOCKER, file_type, page)))
    assert (asked.file_type, asked.page) == (file_type, page)


def refuses_every_truncation(parse: Callable[[memoryview], object], body: bytes) -> None:
    for size in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            parse(memoryview(body)[:size])
    with pytest.raises(RemoteProtocolError):
        parse(memoryview(body + b"\0"))


def test_every_truncation_and_extension_is_refused() -> None:
    refuses_every_truncation(mail.parse_tell, IDENTITY + WORKED)
    refuses_every_truncation(
        lambda view: mail.parse_upload(view, paged=False),
        IDENTITY + mail.build_upload(GUID, LOCKER, 1, 2, 5) + b"hello",
    )
    refuses_every_truncation(
        lambda view: mail.parse_upload(view, paged=True),
        IDENTITY + mail.build_upload_page(GUID, LOCKER, 1, 2, 3, 5) + b"hello",
    )
    refuses_every_truncation(mail.parse_download, IDENTITY + mail.build_download(GUID, LOCKER, 1, 0))
    refuses_every_truncation(mail.parse_page, mail.build_page(1, 0, b"hello"))
    refuses_every_truncation(lambda view: mail.parse_poll(view, exact=True), IDENTITY + mail.build_poll(7))


def test_every_truncation_of_a_record_is_refused() -> None:
    record = WORKED[80:]
    for size in range(len(record)):
        with pytest.raises(RemoteProtocolError):
            mail.parse_record(memoryview(record)[:size])
    assert mail.parse_record(memoryview(record + b"more"))[1] == len(record)


def test_a_short_identity_is_refused() -> None:
    for size in range(32):
        with pytest.raises(RemoteProtocolError):
            mail.parse_identity(memoryview(IDENTITY)[:size])


def test_a_list_cut_short_keeps_its_whole_records() -> None:
    record = WORKED[80:]
    answer = mail.build_tells([record, record])
    for size in range(len(answer)):
        whole = max(0, (size - 8) // len(record))
        assert mail.parse_tells(answer[:size]) == [(TELL, record)] * whole


@given(st.binary(max_size=400))
def test_noise_raises_nothing_but_our_errors(noise: bytes) -> None:
    for parse in (mail.parse_tell, mail.parse_record, mail.parse_download, mail.parse_page, mail.parse_identity):
        try:
            parse(memoryview(noise))
        except QMailError:
            continue
    mail.parse_tells(noise)


@given(st.integers(0, len(WORKED) * 8 - 1))
def test_a_flipped_bit_is_read_or_refused_but_never_a_crash(bit: int) -> None:
    wrong = bytearray(IDENTITY + WORKED)
    wrong[32 + bit // 8] ^= 1 << bit % 8
    try:
        mail.parse_tell(memoryview(wrong))
    except RemoteProtocolError:
        return


# ------------------------------------------------------------------------------------------------------------------
# Rules


def changed(tell: Tell = TELL, **fields: Any) -> Tell:
    return msgspec.structs.replace(tell, **fields)


@pytest.mark.parametrize("count", [0, 33])
def test_a_tell_lists_1_to_32_servers(count: int) -> None:
    with pytest.raises(LocalProtocolError):
        mail.build_record(changed(servers=(StripeLocation(0, False, 0),) * count))


@pytest.mark.parametrize("count", [0, 51])
def test_a_tell_has_1_to_50_recipients(count: int) -> None:
    with pytest.raises(LocalProtocolError):
        mail.build_tell(TELL, [TellRecipient(Address(0, 1))] * count)


def test_a_tell_lists_at_most_246_files() -> None:
    entry = FileEntry(10, 2, 1, 1)
    assert len(mail.parse_record(memoryview(mail.build_record(changed(files=(entry,) * 246))))[0].files) == 246
    with pytest.raises(LocalProtocolError):
        mail.build_record(changed(files=(entry,) * 247))


def test_a_page_holds_256_kib() -> None:
    mail.build_upload_page(GUID, LOCKER, 10, 2, 0, c.PAGE_SIZE)
    with pytest.raises(LocalProtocolError):
        mail.build_upload_page(GUID, LOCKER, 10, 2, 0, c.PAGE_SIZE + 1)
    with pytest.raises(RemoteProtocolError):
        mail.parse_page(mail.build_page(10, 0, bytes(c.PAGE_SIZE + 1)))


def test_one_answer_carries_255_tells() -> None:
    record = WORKED[80:]
    assert len(mail.parse_tells(mail.build_tells([record] * 255))) == 255
    with pytest.raises(LocalProtocolError):
        mail.build_tells([record] * 256)


def test_a_checksum_that_is_missing_once_is_announced_for_none() -> None:
    tell = changed(files=(FileEntry(0, 4, 46, None), FileEntry(1, 1, 16, 7)))
    found = mail.parse_record(memoryview(mail.build_record(tell)))[0]
    assert [entry.crc32 for entry in found.files] == [None, None]


def test_a_profile_of_our_own_is_announced_in_bytes_57_to_59() -> None:
    sealed = mail.build_record(changed(striping=Striping(Profile.SEALED, 2, 1)))
    assert sealed[57:60] == b"\x02\x01\x02"
    assert WORKED[80:][57:60] == bytes(3)
    for profile in (3, 255):
        wrong = bytearray(sealed)
        wrong[57] = profile
        with pytest.raises(RemoteProtocolError):
            mail.parse_record(memoryview(wrong))


def test_the_data_stripes_are_known_whichever_servers_are_listed() -> None:
    rows = tuple(StripeLocation(i, i >= 20, i) for i in range(25))
    striping = Striping(Profile.SEALED, 20, 5)
    for listed in (rows, rows[:24], rows[5:], rows[1:21], rows[:20], rows[1:20] + rows[24:]):
        tell = changed(striping=striping, servers=listed)
        assert mail.parse_record(memoryview(mail.build_record(tell)))[0].striping == striping


def test_interop_counts_its_data_by_the_parity_or_the_highest_index() -> None:
    def k(servers: tuple[StripeLocation, ...]) -> int:
        return mail.parse_record(memoryview(mail.build_record(changed(servers=servers))))[0].striping.k

    assert k(TELL.servers[1:]) == 2
    assert k(TELL.servers[:2]) == 2


def test_a_manifest_of_version_0_is_the_body_alone_with_or_without_its_footer() -> None:
    record = bytearray(WORKED[80 : 80 + 64 + 96])
    record[51:57] = bytes(6)
    tell, size = mail.parse_record(memoryview(record))
    assert (tell.files, size) == ((FileEntry(1, 1, 16, None),), len(record))
    footer = b"\x50\x10" + LOCKER
    assert mail.parse_record(memoryview(bytes(record) + footer + b"next"))[1] == len(record) + 18
    assert mail.parse_record(memoryview(bytes(record) + footer[:10]))[1] == len(record)


def test_a_manifest_of_version_2_gives_sizes() -> None:
    record = bytearray(WORKED[80 : 80 + 64 + 96])
    record[51:57] = bytes((2, 1, 72, 0, 72, 1))
    entry = bytes((10, 2, 1, 1)) + GUID + bytes(8) + (777).to_bytes(8, "big") + bytes(36)
    tell, size = mail.parse_record(memoryview(bytes(record) + entry))
    assert (tell.files, size) == ((FileEntry(10, 2, 777, None),), len(record) + 72)


@pytest.mark.parametrize(("position", "value"), [(51, 3), (51, 2), (52, 3), (52, 0), (53, 17), (55, 16)])
def test_a_manifest_that_contradicts_itself_is_refused(position: int, value: int) -> None:
    record = bytearray(WORKED[80:])
    record[position] = value
    with pytest.raises(RemoteProtocolError):
        mail.parse_record(memoryview(bytes(record) + bytes(200)))


@pytest.mark.parametrize(("position", "value"), [(61, 0), (61, 51), (62, 0), (62, 33), (62, 2)])
def test_tell_counts_out_of_range_are_refused(position: int, value: int) -> None:
    body = bytearray(IDENTITY + WORKED)
    body[position] = value
    with pytest.raises(RemoteProtocolError):
        mail.parse_tell(memoryview(body + bytes(33 * 64)))


def test_polls_are_lenient_for_ping_and_exact_for_peek() -> None:
    for extra in range(5):
        assert mail.parse_poll(memoryview(IDENTITY + bytes(extra)), exact=False) == 0
    assert mail.parse_poll(memoryview(IDENTITY + mail.build_poll(99)), exact=True) == 99
    for wrong in (IDENTITY[:-1], IDENTITY + bytes(5)):
        with pytest.raises(RemoteProtocolError):
            mail.parse_poll(memoryview(wrong), exact=False)


def test_a_tell_prints_without_its_locker() -> None:
    assert "X7KQ" not in repr(TELL)


def test_refusals_name_themselves() -> None:
    world = client.World()
    with pytest.raises(NodeError, match=r"object does not exist \(status 202\)"):
        world.peer(world.tens[0]).download().expect()
