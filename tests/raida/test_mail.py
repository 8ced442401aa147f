"""raida.mail: uploads and their payment, downloads, tells, and the two ways to fetch them."""

from __future__ import annotations

import msgspec
import pytest

from qmail_core.codec import cipher, lockers, mail
from qmail_core.codec import consts as c
from qmail_core.codec.directory import UNITS_PER_COIN, build_owned
from qmail_core.codec.mail import TellRecipient
from qmail_core.errors import StoreUnavailable
from qmail_core.model import Address, Coin, FileEntry, ListEntry, ListKind, Tell, UserProfile
from qmail_core.raida.mail import MAX_TELL_BYTES
from qmail_core.raida.node import Policy

from .client import GUID, NOW, Peer, World, code, frame_of, opened, request, tell_from

PAY = code("PAY")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def sender(world: World) -> Peer:
    return world.peer(world.ones[0])


@pytest.fixture
def reader(world: World) -> Peer:
    return world.peer(world.ones[1])


def held(peer: Peer, text: str) -> int:
    return len(peer.node.state.locker(cipher.locker_key(text.encode(), peer.index)))


# ------------------------------------------------------------------------------------------------------------------
# the preamble


@pytest.mark.parametrize("command", [70, 71, 72, 73, 75])
def test_every_command_but_download_checks_the_preamble(world: World, sender: Peer, command: int) -> None:
    stranger = Coin(Address(0, 999), b"s" * 32)
    wrong = Coin(sender.coin.address, b"w" * 32)
    zeros = Coin(stranger.address, bytes(32))
    for coin, status in ((stranger, 40), (wrong, 200), (zeros, 34)):
        assert sender.mail(command, bytes(4), identity=mail.build_identity(coin, 1)).status == status


def test_the_wire_key_may_be_another_coin(world: World, sender: Peer) -> None:
    other = mail.build_identity(world.tens[0], 1)
    assert sender.mail(c.CMD_PEEK, bytes(4), identity=other).status == 250


# ------------------------------------------------------------------------------------------------------------------
# storage


def test_upload_and_download(world: World, sender: Peer, reader: Peer) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241
    assert sender.upload(b"stripe", PAY) == 250
    assert held(sender, "PAY") == 0
    reply = reader.download()
    assert (reply.status, bytes(mail.parse_page(reply.payload))) == (250, b"stripe")
    assert reader.download(page=1).status == 202
    assert reader.download(file_type=0).status == 202
    assert reader.download(guid=bytes(16)).status == 202


def test_a_reader_needs_no_valid_preamble(world: World, sender: Peer) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241
    assert sender.upload(b"stripe", PAY) == 250
    rest = mail.build_download(GUID, bytes(16), 1, 0)
    assert sender.mail(c.CMD_DOWNLOAD, rest, identity=bytes(32)).status == 250


def test_the_first_upload_pays_for_the_whole_mail(world: World, sender: Peer) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241
    assert sender.upload(b"body", PAY) == 250
    assert sender.upload(b"meta", PAY, file_type=0) == 250
    assert sender.upload(b"body again", PAY) == 250
    assert bytes(mail.parse_page(sender.download().payload)) == b"body again"
    assert sender.upload(b"attachment", PAY, file_type=10) == 169
    assert sender.put(world.ones[3:4], code("MORE")) == 241
    assert sender.upload(b"attachment", code("MORE"), file_type=10) == 250
    assert sender.upload(b"attachment", code("MORE"), file_type=11) == 169
    assert len(sender.node.state.earned()) == 2


def test_a_second_locker_for_a_paid_unit_is_left_alone(world: World, sender: Peer) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241
    assert sender.put(world.ones[3:4], code("SPARE")) == 241
    assert sender.upload(b"1", PAY) == 250
    assert sender.upload(b"2", code("SPARE")) == 250
    assert held(sender, "SPARE") == 1


def test_storage_must_be_paid_for(world: World, sender: Peer) -> None:
    assert sender.upload(b"x") == 169
    assert sender.upload(b"x", code("EMPTY")) == 169
    assert sender.download().status == 202
    dear = World(policy=Policy(storage_fee=2))
    peer = dear.peer(dear.ones[0])
    assert peer.put(dear.ones[2:3], PAY) == 241
    assert peer.upload(b"x", PAY) == 168
    assert held(peer, "PAY") == 1


def test_storage_may_be_free() -> None:
    world = World(policy=Policy(storage_fee=0))
    peer = world.peer(world.ones[0])
    assert peer.upload(b"x") == 250


def test_consumed_coins_belong_to_the_node(world: World, sender: Peer) -> None:
    paid = world.ones[2]
    assert sender.put([paid], PAY) == 241
    assert sender.upload(b"x", PAY) == 250
    ((selector, an),) = sender.node.state.earned()
    assert selector == mail.build_selector(paid.address)
    assert an not in (paid.an(1), cipher.locker_key(b"PAY", 1))
    assert sender.node.state.an(selector) == an
    renewed = Coin(paid.address, b"n" * 32)
    assert sender.ask(8, 84, lockers.build_remove(cipher.locker_key(b"PAY", 1), [renewed], 1)).status == 242


def test_a_mail_belongs_to_its_first_uploader(world: World, sender: Peer, reader: Peer) -> None:
    for text, coin in (("ONE", 2), ("TWO", 3)):
        assert sender.put(world.ones[coin : coin + 1], code(text)) == 241
    assert sender.upload(b"mine", code("ONE")) == 250
    assert reader.upload(b"yours", code("TWO")) == 201
    assert reader.upload(b"yours", code("TWO"), file_type=10) == 201
    assert held(sender, "TWO") == 1
    assert bytes(mail.parse_page(reader.download().payload)) == b"mine"


@pytest.mark.parametrize("duration", [0, 1, 2, 3, 4, 5, 255])
def test_known_durations(world: World, sender: Peer, duration: int) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241
    assert sender.upload(b"x", PAY, duration=duration) == 250


def test_unknown_durations_and_wrong_lengths(world: World, sender: Peer) -> None:
    assert sender.upload(b"x", PAY, duration=6) == 198
    rest = mail.build_upload(GUID, PAY, 1, 2, 9) + b"x"
    assert sender.mail(c.CMD_UPLOAD, rest).status == 16


def test_a_failing_disk_keeps_the_locker(world: World, sender: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241

    def full(*args: object) -> None:
        raise StoreUnavailable("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(sender.node.state, "put_page", full)
        assert sender.upload(b"x", PAY) == 194
    with monkeypatch.context() as patch:
        patch.setattr(sender.node.state, "record_payment", full)
        assert sender.upload(b"x", PAY) == 194
    assert held(sender, "PAY") == 1
    assert sender.download().status == 202
    assert sender.upload(b"x", PAY) == 250


def page_request(page: int, data: bytes, locker: bytes = PAY) -> bytes:
    return mail.build_upload_page(GUID, locker, 10, 2, page, len(data)) + data


def test_pages_come_back_one_by_one(world: World, sender: Peer) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241
    large, small = b"p" * c.PAGE_SIZE, b"end"
    assert sender.mail(75, page_request(300, small), page=300).status == 250
    assert sender.mail(75, page_request(0, large), page=0).status == 250
    assert bytes(mail.parse_page(sender.download(10, 0).payload)) == large
    assert bytes(mail.parse_page(sender.download(10, 300).payload)) == small


def test_a_page_number_must_be_the_headers(sender: Peer) -> None:
    assert sender.mail(75, page_request(3, b"x"), page=4).status == 198


def test_a_tampering_node_alters_what_it_serves(world: World, sender: Peer) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241
    assert sender.upload(b"stripe", PAY) == 250
    sender.node.tamper = bytes.upper
    assert bytes(mail.parse_page(sender.download().payload)) == b"STRIPE"
    assert sender.node.tamper is bytes.upper


def test_lost_stripes_can_be_uploaded_again_for_nothing(world: World, sender: Peer) -> None:
    assert sender.put(world.ones[2:3], PAY) == 241
    assert sender.upload(b"stripe", PAY) == 250
    world.cluster.lose(1, GUID)
    world.cluster.commit()
    assert sender.download().status == 202
    assert sender.upload(b"stripe", PAY) == 250


# ------------------------------------------------------------------------------------------------------------------
# tells


def to(peer: Peer, locker: bytes = bytes(16)) -> TellRecipient:
    return TellRecipient(peer.coin.address, 0, locker)


def funded(world: World, peer: Peer, text: str, at: int) -> bytes:
    assert peer.put(world.tens[at : at + 1], code(text)) == 241
    return code(text)


def test_a_paid_tell_arrives_verbatim(world: World, sender: Peer, reader: Peer) -> None:
    fee = funded(world, sender, "FEE", 0)
    sent = tell_from(sender.coin)
    assert sender.tell(sent, to(reader, fee)) == 250
    assert held(sender, "FEE") == 0
    assert reader.peek() == [mail.build_record(sent)]


def test_the_routing_locker_is_the_fallback(world: World, sender: Peer, reader: Peer) -> None:
    assert sender.tell(tell_from(sender.coin), to(reader), fee=funded(world, sender, "FEE", 0)) == 250


def test_a_repeated_tell_is_free_and_silent(world: World, sender: Peer, reader: Peer) -> None:
    fee = funded(world, sender, "FEE", 0)
    assert sender.tell(tell_from(sender.coin), to(reader, fee)) == 250
    assert sender.tell(tell_from(sender.coin), to(reader, fee)) == 250
    spare = funded(world, sender, "SPARE", 1)
    assert sender.tell(tell_from(sender.coin), to(reader, spare)) == 250
    assert held(sender, "SPARE") == 1
    assert len(reader.peek()) == 1


def test_nobody_can_block_a_guid_or_its_receipt(world: World, sender: Peer, reader: Peer) -> None:
    thief = world.peer(world.ones[5])
    assert thief.tell(tell_from(thief.coin), to(reader, funded(world, sender, "A", 0))) == 250
    assert sender.tell(tell_from(sender.coin), to(reader, funded(world, sender, "B", 1))) == 250
    assert sender.tell(tell_from(sender.coin, tell_type=2), to(reader, funded(world, sender, "C", 2))) == 250
    assert len(reader.peek()) == 3


def test_refusals_of_a_single_recipient(world: World, sender: Peer, reader: Peer) -> None:
    me = sender.coin.address
    poor = code("POOR")
    assert sender.put(world.ones[4:5], poor) == 241
    assert sender.tell(tell_from(sender.coin), to(reader)) == 169
    assert sender.tell(tell_from(sender.coin), to(reader, poor)) == 168
    assert reader.publish(UserProfile(class_rejection=1)) == 250
    assert sender.tell(tell_from(sender.coin), to(reader, poor)) == 237
    assert reader.put_on_list(ListEntry(me, ListKind.BLACK)) == 250
    assert sender.tell(tell_from(sender.coin), to(reader, poor)) == 236
    assert sender.tell(tell_from(sender.coin), TellRecipient(Address(0, 999))) == 40
    assert reader.put_on_list(ListEntry(me, ListKind.WHITE)) == 250
    assert sender.tell(tell_from(sender.coin), to(reader, poor)) == 250
    assert held(sender, "POOR") == 1


def test_a_lookup_that_fails_asks_to_retry(world: World, sender: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise StoreUnavailable("read error")

    for read in ("user", "listed"):
        with monkeypatch.context() as patch:
            patch.setattr(sender.node.state, read, fail)
            assert sender.tell(tell_from(sender.coin), TellRecipient(world.ones[1].address)) == 167


def test_a_record_sets_the_fee(world: World, sender: Peer, reader: Peer) -> None:
    one, two = code("ONE"), code("TWO")
    assert (sender.put(world.ones[4:5], one), sender.put(world.ones[5:7], two)) == (241, 241)
    assert reader.publish(UserProfile(fee=UNITS_PER_COIN + 1)) == 250
    assert sender.tell(tell_from(sender.coin), to(reader, one)) == 168
    assert sender.tell(tell_from(sender.coin), to(reader, two)) == 250
    assert reader.publish(UserProfile(fee=0)) == 250
    assert sender.tell(tell_from(sender.coin, b"2" * 16), to(reader, one)) == 250
    assert (held(sender, "ONE"), held(sender, "TWO")) == (1, 0)
    # without a record the default holds again
    assert reader.drd(c.CMD_DELETE_USER, build_owned(reader.owner)).status == 250
    assert sender.tell(tell_from(sender.coin, b"3" * 16), to(reader, one)) == 168


def test_several_recipients_share_one_status(world: World, sender: Peer, reader: Peer) -> None:
    other, stranger = world.peer(world.ones[6]), TellRecipient(Address(0, 999))
    assert sender.tell(tell_from(sender.coin), stranger, stranger) == 40
    assert sender.tell(tell_from(sender.coin), to(reader), stranger) == 169
    assert reader.publish(UserProfile(class_rejection=1)) == 250
    assert sender.tell(tell_from(sender.coin), to(other), to(reader)) == 237
    # one locker pays one recipient
    fee = funded(world, sender, "FEE", 0)
    last = world.peer(world.ones[7])
    assert sender.tell(tell_from(sender.coin), to(other, fee), to(last, fee)) == 250
    assert (len(other.peek()), len(last.peek())) == (1, 0)


def test_telling_oneself_is_free(world: World, sender: Peer) -> None:
    assert sender.tell(tell_from(sender.coin), to(sender)) == 250
    assert len(sender.peek()) == 1


def test_a_tell_in_somebody_elses_name(world: World, sender: Peer, reader: Peer) -> None:
    assert sender.tell(tell_from(reader.coin), to(reader)) == 198


def test_a_tell_of_a_wrong_length(world: World, sender: Peer, reader: Peer) -> None:
    rest = mail.build_tell(tell_from(sender.coin), [to(reader)])
    assert sender.mail(c.CMD_TELL, rest[:-1]).status == 16
    assert sender.mail(c.CMD_TELL, rest + b"x").status == 16


def test_a_full_mailbox_asks_to_come_back() -> None:
    world = World(policy=Policy(inbox_fee=0, max_pending_tells=1))
    sender, reader = world.peer(world.ones[0]), world.peer(world.ones[1])
    assert sender.tell(tell_from(sender.coin), to(reader)) == 250
    assert sender.tell(tell_from(sender.coin, b"2" * 16), to(reader)) == 160


def receipt_from(coin: Coin, guid: bytes) -> Tell:
    """A read receipt."""
    return msgspec.structs.replace(
        tell_from(coin, guid, c.TELL_READ_RECEIPT), total_size=0, files=(FileEntry(0, c.FLAG_META, 0, None),)
    )


def test_a_read_receipt_costs_nothing_and_does_not_fill_a_mailbox() -> None:
    world = World(policy=Policy(inbox_fee=10, max_pending_tells=8))
    sender, reader = world.peer(world.ones[0]), world.peer(world.ones[1])
    for number in range(2):
        assert sender.tell(receipt_from(sender.coin, bytes([number]) * 16), to(reader)) == 250
    assert sender.tell(receipt_from(sender.coin, b"2" * 16), to(reader)) == 160
    assert sender.tell(tell_from(sender.coin, b"3" * 16), to(reader)) == 169  # there is room, if it is paid
    assert [record[28] for record in reader.peek()] == [c.TELL_READ_RECEIPT] * 2


def test_a_node_may_want_money_for_read_receipts() -> None:
    world = World(policy=Policy(inbox_fee=10, free_receipts=False))
    sender, reader = world.peer(world.ones[0]), world.peer(world.ones[1])
    assert sender.tell(receipt_from(sender.coin, b"1" * 16), to(reader)) == 169


# ------------------------------------------------------------------------------------------------------------------
# peek and ping


@pytest.fixture
def free() -> World:
    return World(policy=Policy(inbox_fee=0))


def test_a_served_tell_comes_back_later_but_not_for_ever(free: World) -> None:
    sender, reader = free.peer(free.ones[0]), free.peer(free.ones[1])
    assert sender.tell(tell_from(sender.coin), to(reader)) == 250
    assert len(reader.peek()) == 1
    assert reader.peek() == []
    reader.now += 59
    assert reader.peek() == []
    served = 1
    for _ in range(5):
        reader.now += 61
        served += len(reader.peek())
    assert served == 3
    sender.now = reader.now
    assert sender.tell(tell_from(sender.coin), to(reader)) == 250
    assert reader.peek() == []


def test_since_filters_by_arrival_for_peek_only(free: World) -> None:
    sender, reader = free.peer(free.ones[0]), free.peer(free.ones[1])
    assert sender.tell(tell_from(sender.coin, b"1" * 16), to(reader)) == 250
    sender.now += 100
    assert sender.tell(tell_from(sender.coin, b"2" * 16), to(reader)) == 250
    assert [record[:16] for record in reader.peek(int(NOW) + 1)] == [b"2" * 16]
    reply = reader.mail(c.CMD_PING, mail.build_poll(int(NOW) + 999))
    assert [tell.guid for tell, _ in mail.parse_tells(reply.payload)] == [b"1" * 16]


def test_an_answer_is_bounded_in_count_and_bytes(free: World) -> None:
    reader = free.peer(free.ones[1])
    state, box = reader.node.state, mail.build_selector(reader.coin.address)
    record = mail.build_record(tell_from(free.ones[0].__class__(Address(0, 1), b"")))
    for number in range(300):
        state.add_tell(box, number.to_bytes(22, "big"), record, NOW)
    assert [len(reader.peek()) for _ in range(3)] == [255, 45, 0]
    big = bytearray(record[:64]) + bytes(17 * 1024)
    big[29], big[51], big[52], big[53], big[54:56] = 0, 2, 240, 72, (240 * 72).to_bytes(2, "big")
    big = big[: 64 + 240 * 72]
    for number in range(20):
        state.add_tell(box, b"big" + number.to_bytes(19, "big"), bytes(big), NOW)
    first = reader.peek()
    assert sum(map(len, first)) <= MAX_TELL_BYTES
    assert len(first) + len(reader.peek()) == 20


def test_poll_requests_of_a_wrong_length(free: World) -> None:
    reader = free.peer(free.ones[1])
    assert reader.mail(c.CMD_PEEK, b"").status == 16
    assert reader.mail(c.CMD_PING, bytes(5)).status == 16


def test_a_ping_waits_until_it_is_woken(free: World) -> None:
    sender, reader = free.peer(free.ones[0]), free.peer(free.ones[1])
    node = reader.node
    sent = request(1, c.GROUP_MAIL, c.CMD_PING, reader.identity, key=reader.key)
    outcome = node.handle(frame_of(sent), NOW)
    wait = outcome.wait
    assert wait is not None
    assert outcome.reply is None
    assert (wait.mailbox, wait.until) == (reader.key.selector, NOW + 600)
    assert node.resume(wait, NOW + 1).wait is wait

    told = request(1, c.GROUP_MAIL, c.CMD_TELL, sender.identity + mail.build_tell(tell_from(sender.coin), [to(reader)]),
                   key=sender.key)  # fmt: skip
    assert node.handle(frame_of(told), NOW + 2).woken == (reader.key.selector,)
    woken = node.resume(wait, NOW + 2)
    assert woken.changed
    assert len(mail.parse_tells(opened(sent, woken).payload)) == 1
    # a second device that waited too finds nothing new
    assert node.resume(wait, NOW + 3).wait is wait


def test_a_ping_expires_with_a_signed_bare_status(free: World) -> None:
    reader = free.peer(free.ones[1], enc=c.ENC_COIN)
    sent = request(1, c.GROUP_MAIL, c.CMD_PING, reader.identity + bytes(4), key=reader.key)
    wait = reader.node.handle(frame_of(sent), NOW).wait
    assert wait is not None
    outcome = reader.node.expire(wait, wait.until)
    assert outcome.reply is not None
    assert len(outcome.reply) == c.HEADER_SIZE
    assert any(outcome.reply[16:])
    assert opened(sent, outcome).status == 245
