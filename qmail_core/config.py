"""Typed settings. Read once at start-up from file, environment or arguments, then passed down; never read below."""

from __future__ import annotations

from msgspec import Struct

from qmail_core.errors import ConfigError
from qmail_core.model import Durability, Profile, Striping


class Timeouts(Struct, frozen=True):
    """Seconds one exchange with one node may take, by what is asked."""

    small: float = 10.0  # peek, tell, lockers, download of a small object
    page: float = 30.0  # one page of a large object


class EngineConfig(Struct, frozen=True, kw_only=True):
    """Everything one engine (one identity, one store, one wallet folder) needs to know."""

    data: str  # folder that holds the store, wallets, receipts, outgoing files and fetched attachments
    striping: Striping = Striping(Profile.SEALED, 20, 5)
    encryption: int = 4  # 1 for foreign servers, 4 between our own
    durability: Durability = Durability.SAFE
    beacons: tuple[int, int] = (11, 14)  # primary and secondary, for recipients that name none
    storage_fee: int = 1  # CloudCoins per server per file
    inbox_fee: int = 10  # CloudCoins per recipient whose own fee is not known
    max_inbox_fee: int = 100  # CloudCoins; a recipient that asks for more is offered `inbox_fee`, and may refuse
    pool_upload: int = 100  # funded upload lockers to keep ready
    pool_inbox: int = 6  # funded inbox-fee lockers to keep ready
    username: str = "local"  # what the engine's own user is called
    domain: str = "localhost"  # of addresses of users who name none
    roots: tuple[str, ...] = ()  # folders files may be read from by path, besides <data>
    drives: tuple[tuple[str, str], ...] = ()  # (Windows path prefix, folder it stands for)
    max_body: int = 1_000_000  # bytes of a plain-text body
    max_document: int = 8 << 20  # bytes of a ready document
    auto_download: bool = False  # fetch mail as the watch of the beacons hears of it
    read_receipts: bool = True  # tell senders whose clients understand it that their mail was opened
    file_quota: int = 0  # bytes of files one user may keep who has no quota; 0: what the disk holds
    smtp_relay: str = ""  # "host:port" that takes mail for everybody else; empty: there is none
    smtp_login: str = ""  # file, mode 0600, with "user:password" for it
    smtp_starttls: bool = True  # never speak to it without TLS; false is for a relay on this machine
    webhooks: bool = False  # post news of mail to where webhooks say
    webhooks_loopback: bool = False  # to this machine as well: for tests
    udp: bool = False  # small requests that may be repeated go as datagrams first; the nodes must listen for them
    timeouts: Timeouts = Timeouts()

    def check(self, nodes: int) -> None:
        """Raise ConfigError if the striping does not fit a network of so many nodes."""
        s = self.striping
        if s.k < 1 or s.m < 1:
            raise ConfigError("striping needs at least one data and one parity stripe")
        if s.n > nodes:
            raise ConfigError(f"striping {s.k}+{s.m} needs {s.n} servers, the network has {nodes}")
        if s.n > 32:
            raise ConfigError(f"striping {s.k}+{s.m} uses {s.n} servers, a mail may use at most 32")
        if s.profile == Profile.INTEROP and (s.m != 1 or s.k < 2):
            raise ConfigError("the interop profile has at least two data stripes and exactly one parity stripe")
        if self.encryption not in (1, 4):
            raise ConfigError(f"encryption type {self.encryption} is not 1 or 4")
        if any(not 0 <= beacon < nodes for beacon in self.beacons):
            raise ConfigError(f"beacons {self.beacons} are not nodes of a network of {nodes}")


def striping_for(nodes: int) -> Striping:
    """The striping of a network of so many nodes when nobody chooses one: `sealed`, a fifth of its nodes as parity."""
    n = min(nodes, 32)
    m = max(1, n // 5)
    return Striping(Profile.SEALED, n - m, m)


def beacons_for(nodes: int) -> tuple[int, int]:
    """The beacons of a network of so many nodes when nobody chooses them."""
    return (11, 14) if nodes > 14 else (0, nodes - 1)
