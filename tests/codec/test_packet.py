"""Frames: the reference's worked examples, both ends against each other, and nothing believed that is not proven."""

from __future__ import annotations

import itertools
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmail_core.codec import cipher, exchange, packet
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import NO_KEY, Key
from qmail_core.codec.packet import Batch, Header, Refused, Reply, Request, Sent
from qmail_core.errors import LocalProtocolError, NodeError, RemoteProtocolError
from qmail_core.model import Address, Coin
from qmail_core.raida.node import COMMANDS
from tests.reference import framing

CHALLENGE = bytes.fromhex("000102030405060708090a0b9270c965")
AN = bytes(range(0xA0, 0xB0))
COIN = Coin(Address(0, 42), AN * 25)
OTHER = Coin(Address(1, 7), b"another numbers." * 25)
NONCE = bytes.fromhex("1122334455667788")
SIGNATURE = "a0a0a0a0a0a0a0a0a0a0a0a03edd67ca"
PREAMBLE = bytes.fromhex("0000000000000000000600 0000002a00") + AN
entropy = random.Random(2).randbytes

KEYS = {
    c.ENC_NONE: NO_KEY,
    c.ENC_COIN: cipher.coin_key(c.ENC_COIN, COIN, 11),
    c.ENC_LOCKER: Key(c.ENC_LOCKER, AN, AN[:5]),
    c.ENC_COIN256: cipher.coin_key(c.ENC_COIN256, COIN, 11),
    c.ENC_COINS256: cipher.pair_key(COIN, OTHER, 11),
}


class Ring:
    """A node that knows two coins and one locker."""

    def coin_an(self, selector: bytes) -> bytes | None:
        return {"000000002a": AN, "0100000007": OTHER.an(11)}.get(selector.hex())

    def locker_an(self, prefix: bytes) -> bytes | None:
        return AN if prefix == AN[:5] else None


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


def pack(
    enc: int,
    body: bytes = b"",
    *,
    group: int = c.GROUP_MAIL,
    command: int = c.CMD_PEEK,
    page: int = 0,
    draw: bytes = b"",
) -> Sent:
    batch = Batch(group, command, [11], [KEYS[enc]], [body], [b""], page)
    return packet.pack(batch, draw or entropy(batch.entropy_size()))[0]


def nonce_of(sent: Sent) -> bytes:
    """The nonce of a frame's entropy."""
    return sent.draw[:-12]


def challenge_of(sent: Sent) -> bytes:
    """The challenge that a frame's entropy makes, QMail wire A.4."""
    return sent.draw[-12:] + zlib.crc32(sent.draw[-12:]).to_bytes(4, "big")


def opened(sent: Sent) -> Request:
    """What a node makes of a frame."""
    frame = memoryview(bytearray(sent.frame))
    header = packet.read_header(frame)
    packet.check_header(frame, header, 11, COMMANDS)
    return packet.open_request(frame, header, Ring())


def answer(sent: Sent, payload: bytes, status: int = c.STATUS_SUCCESS) -> bytearray:
    return packet.build_reply(opened(sent), status, payload, 100, entropy(16))


def read(sent: Sent, frame: bytes | bytearray) -> Reply:
    return packet.open_reply(sent, memoryview(bytearray(frame)))


# ------------------------------------------------------------------------------------------------------------------
# Worked examples, QMail wire A.5 and A.7


def test_the_documented_signature() -> None:
    challenge, an = hexed("eb159806b4024f65af86dc25edbe3a1d"), hexed("66689ef5bde040479416b4f6d9576172")
    head = bytearray(hexed("0b00fa00 00010000 00000000 00000000") + hexed("8d7d06f309e20f223b9068d334e95b6f"))
    request = Request(Header(11, 0, 0, 1, bytes(5), 18, NONCE[:6] + b"\0\0", b"\0\0"), an, challenge, memoryview(b""))
    assert packet.build_reply(request, 250, b"", 0, b"") == head
    # The example's challenge does not end in the CRC-32 of its noise, and a client knows only challenges that do: the
    # signature of the noise is the documented one, the last four bytes are those of the CRC-32.
    sent = Sent(11, b"", Key(c.ENC_COIN, an, bytes(5)), NONCE + challenge[:12])
    assert challenge_of(sent) != challenge
    with pytest.raises(RemoteProtocolError):
        read(sent, head)
    head[28:] = bytes(x ^ y for x, y in zip(challenge_of(sent)[12:], an[12:], strict=True))
    assert read(sent, head).status == c.STATUS_SUCCESS


def test_the_documented_plain_echo() -> None:
    sent = pack(0, group=c.GROUP_STATUS, command=c.CMD_ECHO, draw=bytes(6) + hexed("1122") + CHALLENGE[:12])
    assert sent.frame == hexed(
        "01000b00 00000006 00000000 00000000 00000000 00000012 00000000 00001122000102030405060708090a0b9270c965 3e3e"
    )
    reply = hexed("0b00fa00 00011122 00000000 00000007 000102030405060708090a0b9270c965")
    assert packet.build_reply(opened(sent), c.STATUS_SUCCESS, b"", 7, b"") == reply
    assert read(sent, reply) == Reply(11, c.STATUS_SUCCESS, b"", 7)


def test_the_documented_encrypted_echo() -> None:
    sent = pack(1, group=c.GROUP_STATUS, command=c.CMD_ECHO, draw=NONCE + CHALLENGE[:12])
    assert sent.frame == hexed(
        "01000b00 00000006 00000000 00000000 01000000 002a0012 11223344 55667788b0279eae7758b568c8314732990dea97 3e3e"
    )
    assert packet.build_reply(opened(sent), 250, b"", 0, b"")[16:].hex() == SIGNATURE


def ping() -> Sent:
    return pack(1, PREAMBLE + bytes(4), command=c.CMD_PING, draw=NONCE + CHALLENGE[:12])


def test_the_documented_ping() -> None:
    sent = ping()
    assert nonce_of(sent) == NONCE
    assert challenge_of(sent) == CHALLENGE
    assert sent.frame == hexed(
        "01000b00 06480006 00000000 00000000 01000000 002a0036 11223344 55667788"
        "b0279eae7758b568c8314732990dea97 611361d2dbe662eb039552b57f3485ee 653d7a01d56a09e3bb244a1e1252ae75"
        "cd17bda0 3e3e"
    )
    request = opened(sent)
    assert request.challenge == CHALLENGE
    assert request.payload == PREAMBLE + bytes(4)


def test_the_documented_answer_to_a_peek_without_mail() -> None:
    sent = pack(1, PREAMBLE + bytes(4), draw=NONCE + CHALLENGE[:12])
    frame = hexed(f"0b00fa06 00017788 0000000a 00000064 {SIGNATURE} b0269cad735db36f 3e3e")
    assert packet.build_reply(opened(sent), c.STATUS_SUCCESS, bytes(8), 100, b"") == frame
    reply = read(sent, frame)
    assert (reply.status, bytes(reply.payload), reply.execution_us) == (c.STATUS_SUCCESS, bytes(8), 100)


def test_the_documented_ping_time_out() -> None:
    frame = hexed(f"0b00f506 00017788 00000000 00000064 {SIGNATURE}")
    assert packet.build_reply(opened(ping()), c.STATUS_POLL_TIMEOUT, b"", 100, b"") == frame
    reply = read(ping(), frame)
    assert (reply.status, reply.payload) == (c.STATUS_POLL_TIMEOUT, b"")
    with pytest.raises(NodeError) as refusal:
        reply.expect()
    assert refusal.value.status == c.STATUS_POLL_TIMEOUT
    assert reply.expect(c.STATUS_POLL_TIMEOUT) is reply


# ------------------------------------------------------------------------------------------------------------------
# Both ends


@pytest.mark.parametrize("enc", KEYS)
@settings(max_examples=50)
@given(body=st.binary(max_size=300), payload=st.binary(max_size=300), status=st.sampled_from((250, 241, 245, 202)))
def test_a_request_and_its_answer_pass_unchanged(enc: int, body: bytes, payload: bytes, status: int) -> None:
    sent = pack(enc, body)
    request = opened(sent)
    assert bytes(request.payload) == body
    assert request.challenge == challenge_of(sent)
    frame = packet.build_reply(request, status, payload, 77, entropy(16))
    assert exchange.reply_size(memoryview(frame), enc) == len(frame)
    reply = read(sent, frame)
    assert (reply.status, bytes(reply.payload), reply.execution_us) == (status, payload, 77)


@pytest.mark.parametrize("enc", KEYS)
@pytest.mark.parametrize("command", [c.CMD_UPLOAD, c.CMD_UPLOAD_PAGE])
def test_frames_are_those_of_the_slow_description(enc: int, command: int) -> None:
    page = 7 if command == c.CMD_UPLOAD_PAGE else 0
    batch = Batch(c.GROUP_MAIL, command, [11, 3], [KEYS[enc]] * 2, [b"head", b"other"], [b"tail", b""], page)
    draw = entropy(batch.entropy_size())
    step = len(draw) // 2
    key = KEYS[enc]
    for i, sent in enumerate(packet.pack(batch, draw)):
        plain = (b"headtail", b"other")[i]
        part = draw[i * step : (i + 1) * step]
        wanted = framing.pack(6, command, enc, (11, 3)[i], key.secret, key.selector, plain, part, page)
        assert sent.frame == wanted
        assert sent.node == (11, 3)[i]


@pytest.mark.parametrize("enc", KEYS)
def test_an_altered_answer_is_never_believed(enc: int) -> None:
    sent = pack(enc, PREAMBLE)
    frame = answer(sent, b"payload of an answer")
    header = 48 if enc >= c.ENC_COIN256 else 32
    protected = range(header, len(frame)) if enc >= c.ENC_COIN256 else range(16, header)
    for position in (0, *protected):
        for bit in range(8):
            wrong = bytearray(frame)
            wrong[position] ^= 1 << bit
            with pytest.raises(RemoteProtocolError):
                read(sent, wrong)


@pytest.mark.parametrize("enc", KEYS)
def test_an_answer_to_another_request_is_refused(enc: int) -> None:
    one, other = pack(enc, PREAMBLE), pack(enc, PREAMBLE)
    with pytest.raises(RemoteProtocolError):
        read(other, answer(one, b"payload"))
    with pytest.raises(RemoteProtocolError):
        read(other, answer(one, b""))


@pytest.mark.parametrize("enc", KEYS)
def test_an_answer_that_claims_another_node_is_refused(enc: int) -> None:
    sent = pack(enc)
    frame = answer(sent, b"")
    frame[0] = 12
    with pytest.raises(RemoteProtocolError, match="node 11 answered as node 12"):
        read(sent, frame)


@pytest.mark.parametrize("enc", KEYS)
@pytest.mark.parametrize("cut", [1, 2])
def test_an_answer_whose_size_leaves_no_trailer_is_refused(enc: int, cut: int) -> None:
    sent = pack(enc)
    frame = answer(sent, b"x" * 40)[:-cut]
    frame[9:12] = (len(frame) - (48 if enc >= c.ENC_COIN256 else 32)).to_bytes(3, "big")
    with pytest.raises(RemoteProtocolError):
        read(sent, frame)
    short = answer(sent, b"")
    short[9:12] = (1).to_bytes(3, "big")
    with pytest.raises(RemoteProtocolError):
        read(sent, short + b"\x3e")


def test_a_bare_refusal_need_not_be_signed_but_a_success_must() -> None:
    for enc in (c.ENC_NONE, c.ENC_COIN, c.ENC_COIN256, c.ENC_COINS256):
        sent = pack(enc)
        header = packet.read_header(memoryview(bytearray(sent.frame)))
        header.enc = 0  # the node gave up before it knew the type
        refusal = packet.build_refusal(header, c.STATUS_INVALID_CRC, echo=False)
        assert read(sent, refusal).status == c.STATUS_INVALID_CRC
        for status in c.SUCCESSES:
            with pytest.raises(RemoteProtocolError):
                read(sent, packet.build_refusal(header, status, echo=True))


def test_a_long_refusal_answers_a_long_request() -> None:
    sent = pack(c.ENC_COIN256)
    header = packet.read_header(memoryview(bytearray(sent.frame)))
    refusal = packet.build_refusal(header, c.STATUS_INVALID_HMAC, echo=True)
    assert len(refusal) == 48
    assert read(sent, refusal).status == c.STATUS_INVALID_HMAC


@settings(max_examples=300)
@given(st.binary(min_size=48, max_size=120), st.sampled_from(list(KEYS)))
def test_random_answers_are_protocol_errors_or_bare_refusals(noise: bytes, enc: int) -> None:
    sent = pack(enc)
    frame = bytearray(noise)
    frame[0] = 11
    size = len(frame) - (48 if c.ENC_COIN256 <= enc == frame[16] else 32)
    frame[9:12] = size.to_bytes(3, "big")
    try:
        reply = read(sent, frame)
    except RemoteProtocolError:
        return
    assert reply.status not in c.SUCCESSES
    assert reply.payload == b""


# ------------------------------------------------------------------------------------------------------------------
# The node's order of checks


@pytest.mark.parametrize(
    ("position", "value", "status"),
    [
        (0, 2, c.STATUS_INVALID_ROUTING),
        (1, 1, c.STATUS_INVALID_SPLIT),
        (2, 12, c.STATUS_INVALID_RAIDA),
        (4, 17, c.STATUS_INVALID_GROUP),
        (4, 5, c.STATUS_INVALID_COMMAND),
        (3, 4, c.STATUS_INVALID_SHARD),
        (5, 99, c.STATUS_INVALID_COMMAND),
        (7, 7, c.STATUS_INVALID_COIN_ID),
        (16, 3, c.STATUS_ENCRYPTION_UNSUPPORTED),
    ],
)
def test_header_errors_have_their_status(position: int, value: int, status: int) -> None:
    sent = pack(1, PREAMBLE)
    frame = bytearray(sent.frame)
    frame[position] = value
    assert _refusal(frame) == status


def _refusal(frame: bytearray) -> int:
    view = memoryview(frame)
    header = packet.read_header(view)
    try:
        packet.check_header(view, header, 11, COMMANDS)
        packet.open_request(view, header, Ring())
    except Refused as refused:
        return refused.status
    raise AssertionError("the frame was accepted")


@pytest.mark.parametrize("enc", KEYS)
def test_every_truncation_of_a_request_is_refused(enc: int) -> None:
    # fixed: one frame in a thousand holds the two bytes of a trailer somewhere by chance
    sent = pack(enc, PREAMBLE, draw=random.Random(50 + enc).randbytes(36 if enc >= c.ENC_COIN256 else 20))
    header = 48 if enc >= c.ENC_COIN256 else 32
    for size in range(header, len(bytes(sent.frame))):
        status = _refusal(bytearray(bytes(sent.frame)[:size]))
        assert status in (c.STATUS_PACKET_LENGTH, c.STATUS_NO_TRAILER)
        # with a trailer where it ends now, the content gives it away
        if size >= header + 2:
            cut = bytearray(bytes(sent.frame)[: size - 2]) + b"\x3e\x3e"
            if enc >= c.ENC_COIN256 or size < header + 18:
                assert _refusal(cut) in (c.STATUS_PACKET_LENGTH, c.STATUS_INVALID_HMAC)


@pytest.mark.parametrize(
    ("enc", "status"),
    [
        (1, c.STATUS_INVALID_ENCRYPTION),
        (2, c.STATUS_INVALID_ENCRYPTION),
        (4, c.STATUS_KEY_COIN_NOT_FOUND),
        (5, c.STATUS_KEY_COIN_NOT_FOUND),
    ],
)
def test_an_unknown_key_is_refused(enc: int, status: int) -> None:
    frame = bytearray(pack(enc).frame)
    frame[19 if enc >= 4 else 17] ^= 0x55
    assert _refusal(frame) == status


def test_a_pair_needs_both_coins() -> None:
    for position in (23, 28):
        frame = bytearray(pack(c.ENC_COINS256).frame)
        frame[position] ^= 1
        assert _refusal(frame) == c.STATUS_KEY_COIN_NOT_FOUND


@pytest.mark.parametrize("enc", KEYS)
def test_a_wrong_challenge_or_hmac_is_refused(enc: int) -> None:
    frame = bytearray(pack(enc).frame)
    frame[(48 if enc >= 4 else 32) + 3] ^= 1
    assert _refusal(frame) == (c.STATUS_INVALID_HMAC if enc >= 4 else c.STATUS_INVALID_CRC)


# ------------------------------------------------------------------------------------------------------------------
# Proofs, and keystreams that go on

LONG = [c.ENC_COIN256, c.ENC_COINS256]


@pytest.mark.parametrize("enc", LONG)
@pytest.mark.parametrize("payload", [b"", b"some payload"])
def test_an_answer_carries_the_documented_proof(enc: int, payload: bytes) -> None:
    sent = pack(enc, PREAMBLE)
    frame = answer(sent, payload)
    assert frame[40:46] == framing.proof(bytes(frame), sent.draw[:24], KEYS[enc].secret)
    reply = packet.open_reply(sent, memoryview(bytearray(frame)), proof=True)
    assert (reply.proven, reply.status, bytes(reply.payload)) == (True, c.STATUS_SUCCESS, payload)


@pytest.mark.parametrize("enc", LONG)
@pytest.mark.parametrize("payload", [b"", b"some payload"])
def test_a_node_known_to_prove_is_not_believed_without(enc: int, payload: bytes) -> None:
    sent = pack(enc, PREAMBLE)
    for position in (2, 5, 30, 40, 45):  # status, time, nonce, proof
        frame = answer(sent, payload)
        frame[position] ^= 250 if position == 2 else 1
        assert not read(sent, frame).proven
        if position == 2:
            assert read(sent, frame).status == 0
        with pytest.raises(RemoteProtocolError, match="proof"):
            packet.open_reply(sent, memoryview(frame), proof=True)


@pytest.mark.parametrize("enc", LONG)
def test_refusals_are_believed_without_proof(enc: int) -> None:
    sent = pack(enc, PREAMBLE)
    header = packet.read_header(bytearray(sent.frame))
    for echo in (True, False):
        refusal = packet.build_refusal(header, c.STATUS_INVALID_HMAC, echo=echo)
        assert len(refusal) == (48 if echo else 32)
        reply = packet.open_reply(sent, memoryview(refusal), proof=True)
        assert (reply.status, reply.proven) == (c.STATUS_INVALID_HMAC, False)


@pytest.mark.parametrize("enc", LONG)
def test_an_old_answer_proves_nothing_about_another_request(enc: int) -> None:
    one, other = pack(enc, PREAMBLE), pack(enc, PREAMBLE)
    frame = answer(one, b"what was true then")
    frame[46:48] = other.draw[22:24]  # all that the documented format compares
    assert not read(other, frame).proven
    with pytest.raises(RemoteProtocolError, match="proof"):
        packet.open_reply(other, memoryview(frame), proof=True)


def test_an_answer_of_the_other_long_type_is_refused() -> None:
    for asked, answered in (LONG, LONG[::-1]):
        sent = pack(asked, PREAMBLE)
        frame = answer(sent, b"payload")
        frame[16] = answered
        before = bytes(frame)
        with pytest.raises(RemoteProtocolError):
            packet.open_reply(sent, memoryview(frame))
        assert frame == before


@pytest.mark.parametrize("enc", [c.ENC_COIN, c.ENC_LOCKER])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 300])
def test_a_keystream_that_goes_on_can_be_read(enc: int, size: int) -> None:
    sent = pack(enc, bytes(size))
    payload = entropy(100)
    frame = packet.build_reply(opened(sent), c.STATUS_SUCCESS, payload, 0, b"", go_on=True)
    reply = read(sent, frame)
    assert bytes(reply.payload) != payload
    again = reply.reread()
    assert again is not None
    assert bytes(again.payload) == payload
    assert again.reread() is None


def test_the_documented_answer_with_continued_keystream() -> None:
    frame = packet.build_reply(opened(ping()), c.STATUS_SUCCESS, bytes(8), 100, b"", go_on=True)
    assert frame[32:].hex() == "314c885a63bf00253e3e"


def test_a_judge_sees_the_other_reading_only_if_the_first_makes_no_sense() -> None:
    seen: list[bytes] = []

    def judge(reply: Reply) -> str:
        seen.append(bytes(reply.payload))
        if not seen[-1].startswith(b"sense"):
            raise RemoteProtocolError(f"nonsense {len(seen)}")
        return "read"

    sent = pack(c.ENC_COIN, b"body")
    for go_on, known in itertools.product((False, True), repeat=2):
        seen.clear()
        frame = packet.build_reply(opened(sent), 250, b"sense", 0, b"", go_on=go_on)
        assert packet.judged(read(sent, frame), judge, goes_on=known) == ("read", go_on)
        assert len(seen) == 1 + (go_on != known)
    seen.clear()
    with pytest.raises(RemoteProtocolError, match="nonsense 1"):
        packet.judged(read(sent, packet.build_reply(opened(sent), 250, b"noise", 0, b"")), judge)
    for enc, known in itertools.product((c.ENC_NONE, c.ENC_COIN256), (False, True)):
        sent = pack(enc, b"body")
        with pytest.raises(RemoteProtocolError):
            packet.judged(
                read(sent, packet.build_reply(opened(sent), 250, b"noise", 0, bytes(16))), judge, goes_on=known
            )


def test_type_4_outside_group_6_has_no_challenge() -> None:
    request = opened(pack(c.ENC_COIN256, b"body", group=c.GROUP_LOCKER, command=c.CMD_LOCKER_PEEK))
    assert (request.challenge, bytes(request.payload)) == (b"", b"body")


# ------------------------------------------------------------------------------------------------------------------
# Batches


def test_a_body_too_long_for_its_command_is_our_error() -> None:
    with pytest.raises(LocalProtocolError):
        pack(1, bytes(c.MAX_SHORT_BODY), command=c.CMD_UPLOAD)
    assert opened(pack(1, bytes(c.MAX_SHORT_BODY - 18), command=c.CMD_UPLOAD)).header.body_size == c.MAX_SHORT_BODY


def test_part_of_a_batch_is_that_part() -> None:
    batch = Batch(6, 75, [1, 2, 3], [KEYS[1]] * 3, [b"a", b"b", b"c"], [b"x", b"y", b"z"], 9)
    part = batch.only([2, 0])
    assert (part.nodes, part.heads, part.tails, part.page, part.enc) == ([3, 1], [b"c", b"a"], [b"z", b"x"], 9, 1)
    assert Batch(6, 75, [], [], [], []).enc == c.ENC_NONE


def test_no_nonce_or_challenge_repeats_in_100_000_frames() -> None:
    """Whatever the entropy gives is used once: each byte of it goes to exactly one frame."""
    nodes = list(range(25)) * 40
    nonces: set[bytes] = set()
    challenges: set[bytes] = set()
    on_wire: set[bytes] = set()
    challenges_on_wire: set[bytes] = set()
    secret = KEYS[c.ENC_COIN256].secret
    for _ in range(100):
        batch = Batch(c.GROUP_MAIL, c.CMD_PEEK, nodes, [KEYS[c.ENC_COIN256]] * 1000, [b""] * 1000, [b""] * 1000)
        for sent in packet.pack(batch, entropy(batch.entropy_size())):
            frame = bytes(sent.frame)
            nonces.add(nonce_of(sent))
            challenges.add(challenge_of(sent))
            on_wire.add(frame[24:48])
            challenges_on_wire.add(framing.aes_ctr(secret, frame[24:40], frame[48:64]))
    assert len(nonces) == len(challenges) == len(on_wire) == 100_000
    assert nonces == on_wire
    assert challenges == challenges_on_wire


def test_secrets_stay_out_of_messages() -> None:
    sent = pack(c.ENC_COIN)
    frame = answer(sent, b"x")
    frame[20] ^= 1
    with pytest.raises(RemoteProtocolError) as error:
        read(sent, frame)
    assert AN.hex() not in str(error.value)
    assert AN.hex() not in repr(sent.key)


@pytest.mark.parametrize("enc", [c.ENC_NONE, c.ENC_COIN, c.ENC_LOCKER, c.ENC_COIN256, c.ENC_COINS256])
@pytest.mark.parametrize(
    ("group", "command"),
    [(c.GROUP_LOCKER, c.CMD_LOCKER_PEEK), (c.GROUP_MAIL, c.CMD_PEEK), (c.GROUP_MAIL, c.CMD_UPLOAD_PAGE)],
)
@pytest.mark.parametrize("size", [0, 1, 300])
def test_a_frame_is_made_of_an_old_one(enc: int, group: int, command: int, size: int) -> None:
    body = entropy(size)
    sent = pack(enc, body, group=group, command=command)
    again = packet.repack(sent, entropy)
    assert bytes(again.frame) != bytes(sent.frame)
    assert (again.node, again.key) == (sent.node, sent.key)
    one, two = opened(sent), opened(again)
    assert bytes(two.payload) == bytes(one.payload) == body
    assert (two.header.command, two.header.page) == (one.header.command, one.header.page)
    assert two.header.nonce != one.header.nonce or enc == c.ENC_NONE
