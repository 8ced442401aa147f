"""The other end of a node: builds request frames, opens answers. Tests of nodes and of their host share it."""

from __future__ import annotations

import random

from qmail_core.codec import cipher, directory, lockers, mail, packet
from qmail_core.codec import consts as c
from qmail_core.codec.cipher import NO_KEY, Key
from qmail_core.codec.mail import TellRecipient
from qmail_core.model import (
    Address,
    Coin,
    FileEntry,
    ListEntry,
    Profile,
    StripeLocation,
    Striping,
    Tell,
    UserProfile,
)
from qmail_core.raida.cluster import Cluster
from qmail_core.raida.node import Ask, Node, Outcome, Policy

NOW = 1_800_000_000.0
GUID = bytes(range(16, 32))
entropy = random.Random(20261121).randbytes


def request(
    index: int, group: int, command: int, body: bytes = b"", *, key: Key = NO_KEY, page: int = 0
) -> packet.Sent:
    """One frame for one node."""
    batch = packet.Batch(group, command, [index], [key], [body], [b""], page)
    return packet.pack(batch, entropy(batch.entropy_size()))[0]


def opened(sent: packet.Sent, outcome: Outcome) -> packet.Reply:
    """The answer in an outcome, checked as a client checks it."""
    assert outcome.reply is not None
    return packet.open_reply(sent, memoryview(bytearray(outcome.reply)))


def frame_of(sent: packet.Sent) -> bytearray:
    """A private copy of a frame: nodes decrypt in place."""
    return bytearray(sent.frame)


class Peer:
    """A coin talking to one node, committing as a host would."""

    def __init__(self, node: Node, coin: Coin, enc: int = c.ENC_COIN256) -> None:
        self.node = node
        self.coin = coin
        self.index = node.index
        self.key = cipher.coin_key(enc, coin, node.index)
        self.identity = mail.build_identity(coin, node.index)
        self.now = NOW

    def send(self, sent: packet.Sent) -> Outcome:
        outcome = self.node.handle(frame_of(sent), self.now)
        if outcome.changed:
            self.node.state.commit()
        return outcome

    def ask(self, group: int, command: int, body: bytes = b"", *, key: Key = NO_KEY, page: int = 0) -> packet.Reply:
        sent = request(self.index, group, command, body, key=key, page=page)
        return opened(sent, self.send(sent))

    def mail(self, command: int, rest: bytes, *, identity: bytes | None = None, page: int = 0) -> packet.Reply:
        """A group 6 request."""
        head = self.identity if identity is None else identity
        return self.ask(c.GROUP_MAIL, command, head + rest, key=self.key, page=page)

    def upload(
        self, data: bytes, code: bytes = bytes(16), *, guid: bytes = GUID, file_type: int = 1, duration: int = 2
    ) -> int:
        """Status of command 70."""
        rest = mail.build_upload(guid, code, file_type, duration, len(data)) + data
        return self.mail(c.CMD_UPLOAD, rest).status

    def download(self, file_type: int = 1, page: int = 0, guid: bytes = GUID) -> packet.Reply:
        return self.mail(c.CMD_DOWNLOAD, mail.build_download(guid, bytes(16), file_type, page))

    def put(self, paid_with: list[Coin], code: bytes) -> int:
        """Status of moving coins into the locker with a code, at this node."""
        body = lockers.build_put(paid_with, cipher.locker_key(code, self.index), self.index)
        return self.ask(c.GROUP_LOCKER, c.CMD_LOCKER_PUT, body).status

    @property
    def owner(self) -> directory.Owned:
        """What this coin proves itself with in the directory."""
        return directory.Owned(self.coin.address, self.coin.an(self.index))

    def drd(self, command: int, payload: bytes) -> packet.Reply:
        """A group 16 request."""
        return self.ask(c.GROUP_DIRECTORY, command, payload, key=self.key)

    def publish(self, profile: UserProfile) -> int:
        return self.drd(c.CMD_POST_USER, directory.build_post_user(self.owner, profile)).status

    def put_on_list(self, *entries: ListEntry) -> int:
        return self.drd(c.CMD_LIST_SET, directory.build_list_set(self.owner, entries)).status

    def tell(self, sent_tell: Tell, *recipients: TellRecipient, fee: bytes = bytes(16)) -> int:
        return self.mail(c.CMD_TELL, mail.build_tell(sent_tell, recipients, fee)).status

    def peek(self, since: int = 0) -> list[bytes]:
        """The records command 73 serves."""
        reply = self.mail(c.CMD_PEEK, mail.build_poll(since))
        assert reply.status == c.STATUS_SUCCESS
        return [record for _, record in mail.parse_tells(reply.payload)]


class World:
    """One in-memory cluster with a few coins of 1 and 10 CC."""

    def __init__(self, *, policy: Policy | None = None, count: int = 2) -> None:
        self.cluster = Cluster.in_memory(count, policy=policy, entropy=entropy)
        ones = [Address(0, serial) for serial in range(1, 21)]
        tens = [Address(1, serial) for serial in range(1, 21)]
        minted = self.cluster.mint(ones + tens, entropy)
        self.cluster.commit()
        self.ones, self.tens = minted[:20], minted[20:]

    def peer(self, coin: Coin, index: int = 1, enc: int = c.ENC_COIN256) -> Peer:
        return Peer(self.cluster.nodes[index], coin, enc)


def code(text: str) -> bytes:
    return cipher.locker_code(text)


def tell_from(coin: Coin, guid: bytes = GUID, tell_type: int = 0) -> Tell:
    """A plausible tell."""
    return Tell(
        guid=guid,
        sender=coin.address,
        timestamp=int(NOW),
        tell_type=tell_type,
        total_size=5,
        striping=Striping(Profile.SEALED, 1, 1),
        files=(FileEntry(1, c.FLAG_BODY, 5, 7),),
        servers=(StripeLocation(0, False, 0), StripeLocation(1, True, 1)),
    )


class Net(World):
    """A cluster whose nodes ask each other; `away` nodes answer nobody."""

    def __init__(self, *, policy: Policy | None = None, count: int = 25) -> None:
        super().__init__(policy=policy, count=count)
        self.nodes = self.cluster.nodes
        self.away: set[int] = set()
        self.questions = 0

    def ask(self, index: int, group: int, command: int, body: bytes = b"", *, now: float = NOW) -> packet.Reply:
        """One request without encryption; what the node asks of others is answered on the way."""
        sent = request(index, group, command, body)
        node = self.nodes[index]
        outcome = node.handle(frame_of(sent), now)
        while outcome.ask is not None:
            outcome = node.answered(outcome.ask, self.put(index, outcome.ask, now), now)
        node.state.commit()
        return opened(sent, outcome)

    def put(self, asker: int, ask: Ask, now: float = NOW) -> dict[int, packet.Reply]:
        """The answers other nodes give."""
        inquiry, replies = ask.inquiry, {}
        assert asker not in inquiry.questions, "a node never asks itself"
        for index, question in inquiry.questions.items():
            self.questions += 1
            if index in self.away:
                continue
            key = NO_KEY if inquiry.keys is None else inquiry.keys[index]
            sent = request(index, inquiry.group, inquiry.command, question, key=key)
            outcome = self.nodes[index].handle(frame_of(sent), now)
            assert outcome.ask is None, "a question never leads to another"
            self.nodes[index].state.commit()
            replies[index] = opened(sent, outcome)
        return replies

    def errands(self, index: int, now: float = NOW) -> int:
        """Let a node ask what it wants to know for itself; how many inquiries that took."""
        node = self.nodes[index]
        asks = node.errands(now)
        for ask in asks:
            node.answered(ask, self.put(index, ask, now), now)
            node.state.commit()
        return len(asks)
