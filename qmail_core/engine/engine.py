"""The facade: one method per story. Surfaces, the command line and embedding programs call nothing below it.

An Engine serves one identity. It is given its transport, store, clock and randomness, so the same code runs against
sockets, in memory, and in tests with a clock of their own. All methods belong to the loop that called `start`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import BinaryIO

import msgspec

from qmail_core.codec import address as addresses
from qmail_core.codec.directory import fee_from_text
from qmail_core.config import EngineConfig
from qmail_core.engine.accounts import Accounts
from qmail_core.engine.balances import Balances
from qmail_core.engine.beacon import Beacon
from qmail_core.engine.context import Context
from qmail_core.engine.decisions import Decisions
from qmail_core.engine.directory import Directory
from qmail_core.engine.drafts import Drafts
from qmail_core.engine.events import Events
from qmail_core.engine.fetching import Fetching
from qmail_core.engine.files.transfer import Transfer
from qmail_core.engine.identity import Identity
from qmail_core.engine.letters import Letters
from qmail_core.engine.mailbox import Mailbox
from qmail_core.engine.mailboxes import Mailboxes
from qmail_core.engine.messages import Messages
from qmail_core.engine.network import Network
from qmail_core.engine.objects import Objects
from qmail_core.engine.opened import Opened
from qmail_core.engine.operations import Operations
from qmail_core.engine.outgoing import Outgoing
from qmail_core.engine.paths import Paths
from qmail_core.engine.payments import Payments
from qmail_core.engine.people import People
from qmail_core.engine.polls import Told
from qmail_core.engine.post import Post
from qmail_core.engine.purse import Purse
from qmail_core.engine.receipts import Receipts
from qmail_core.engine.receive import Receiver
from qmail_core.engine.repair import Repairer
from qmail_core.engine.send import Sender
from qmail_core.engine.tasks import Tasks
from qmail_core.engine.wallet import Wallet
from qmail_core.errors import NotFound, QMailError, UsageError
from qmail_core.folders import make_private
from qmail_core.model import (
    Address,
    Coin,
    Contact,
    Costs,
    Downloaded,
    Draft,
    Durability,
    Folder,
    Healed,
    Kind,
    ListEntry,
    ListKind,
    Message,
    MessagePage,
    Notification,
    Polled,
    PoolStatus,
    Powned,
    Published,
    Receipt,
    Recipient,
    Repaired,
    RequestKey,
    SendResult,
    Source,
    Started,
    StoredAttachment,
    TaskState,
    UserProfile,
    UserRecord,
)
from qmail_core.store.base import MailStore
from qmail_core.transport.base import Transport
from qmail_core.transport.outside import MailRelay, Poster

log = logging.getLogger("qmail.engine")

_TICK = 2.0  # seconds between looks at a queue
Chore = Callable[[], Awaitable[object]]


async def _again_and_again(chore: Chore) -> None:
    """Work off one queue."""
    while True:
        try:
            await chore()
        except QMailError as error:
            log.warning("background work: %s", error)
        except Exception:  # a fault of ours ends neither this queue nor the process
            log.exception("background work failed")
        await asyncio.sleep(_TICK)


class Engine:
    """Send, receive and look after the mail of one identity.

    config     settings; `config.data` is the engine's own folder
    coin       the identity coin with its authenticity numbers
    transport  how frames reach the nodes
    store      where everything is remembered; closed with the engine
    clock      Unix time in seconds
    entropy    cryptographically strong random bytes
    relay      takes mail for addresses outside; None: there is no way there
    poster     posts news to webhooks; None: there are none
    """

    def __init__(
        self,
        config: EngineConfig,
        coin: Coin,
        transport: Transport,
        store: MailStore,
        *,
        clock: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = os.urandom,
        relay: MailRelay | None = None,
        poster: Poster | None = None,
    ) -> None:
        config.check(transport.nodes())
        self.config = config
        self._store = store
        self._transport = transport
        home = os.path.join(config.data, "Wallets", "Mail", "Outgoing")
        make_private(home)
        make_private(os.path.join(config.data, "Wallets", "Default"))
        ctx = self._ctx = Context(config, coin, transport, store, clock, entropy)
        self._tasks = Tasks(clock, entropy)
        self._paths = Paths(home, config.roots, config.drives)
        self._purse = Purse(ctx)
        self._wallet = Wallet(ctx, self._purse)
        self.events = Events(ctx)
        self.accounts = Accounts(ctx)
        self.people = People(ctx)
        self.mailbox = self._mailbox = Mailbox(ctx)
        self.mailboxes = Mailboxes(ctx)
        self.messages_of = Messages(ctx)
        self.drafts = Drafts(ctx, self.people)
        self._receipts = Receipts(ctx)
        self._directory = Directory(ctx)
        self._outgoing = Outgoing(ctx, self._tasks, self._receipts, self._wallet, self._mailbox, self._directory)
        self._decisions = Decisions(ctx, self._receipts, self._outgoing)
        self._sender = Sender(
            ctx,
            self._tasks,
            self._paths,
            self._receipts,
            self._wallet,
            self._mailbox,
            self._directory,
            self._outgoing,
            self._decisions,
        )
        self._receiver = Receiver(ctx, self._mailbox)
        self._fetching = Fetching(self._receiver, self._tasks)
        self._opened = Opened(ctx)
        self.beacon = Beacon(self._receiver, self.download, config.auto_download)
        self.network = Network(ctx)
        self.payments = Payments(ctx, self._purse)
        self.balances = Balances(ctx, self._wallet, self._purse, self._directory)
        self.identity = Identity(ctx, self._purse)
        self.letters = Letters(ctx, self.messages_of, self._receiver)
        self.transfer = Transfer(ctx, self.people, self._sender, self._receiver, self.letters)
        self.accounts.users.drop = self.transfer.uploads.drop
        self.queue = self._outgoing
        self.post = Post(ctx, self.accounts, self.people, self.messages_of, self.letters, self._upload, relay, poster)
        self._mailbox.wishes = self.post.network
        self._repairer = Repairer(ctx, self._receipts, self._wallet)
        self.objects = Objects(ctx, self._wallet)  # the stories of Object Transfer
        self.operations = Operations(ctx, self._tasks, self._paths, self.objects.nodes, self._wallet)
        self._background: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Take up what a stop or crash interrupted, and begin to work off the queues."""
        await self._store.mail.set_home(self._ctx.address)
        await self.accounts.start()
        self._sender.resume()
        self.operations.resume_all()
        self.transfer.sweep()
        self._background = asyncio.get_running_loop().create_task(self._work(), name="qmail-background")
        self.post.start()

    def notifications(self, limit: int = 50, *, downloaded: bool = False) -> Sequence[Notification]:
        """Tells the user has not dismissed; with `downloaded` also those whose mail is here."""
        return self._receiver.shown(limit, downloaded=downloaded)

    def notification(self, guid: bytes) -> Notification:
        """One tell; NotFound if none came with this guid."""
        return self._receiver.notification(guid)

    async def dismiss(self, *, notification: int | None = None, guid: bytes | None = None) -> int:
        """Stop showing a tell; NotFound if it is not shown."""
        return await self._store.mail.dismiss_tell(tell_id=notification, guid=guid)

    async def close(self) -> None:
        """Stop; whatever was accepted and is not finished goes on at the next start."""
        self.drain()
        await self.beacon.stop()
        await self.post.stop()
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)
        await self._tasks.close()
        await self._receiver.close()
        self.accounts.close()
        self.transfer.close()
        await self._transport.close()
        self.events.close()
        await self._store.close()

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _work(self) -> None:
        """The queues: lockers in doubt, the pool, tells to retry, mails and directory copies to repair."""
        chores: Sequence[Chore] = (
            self._receiver.polls.keeper.again,
            self._wallet.recover,
            lambda: self._wallet.replenish("Default"),
            self._outgoing.retry_due,
            self._opened.tell_due,
            self._repairer.repair_due,
            self.messages_of.sweep,
            self._directory.repair_due,
            self.accounts.sweep,
            self.transfer.uploads.expire,
        )
        # each by itself, so that servers that hang hold up one of them at most
        await asyncio.gather(*map(_again_and_again, chores))

    # ---------------------------------------------------------------------------------------------- who and what

    @property
    def address(self) -> Address:
        """This engine's mailbox."""
        return self._ctx.address

    @property
    def revision(self) -> int:
        """What was read from the store after this number holds for as long as the number stays."""
        return self._store.revision

    @property
    def address_text(self) -> str:
        """This engine's mailbox as text."""
        return addresses.render(self._ctx.address)

    def render(self, address: Address) -> str:
        """The canonical text of an address."""
        return addresses.render(address)

    def resolve(self, text: str) -> Address:
        """The mailbox a text means; AddressError with a short reason if none."""
        return self.people.resolve(text)

    @staticmethod
    def split_list(values: Iterable[str]) -> list[str]:
        """The items of parameters that may each be a list with `,` or `;`, such as recipients."""
        return addresses.split_list(values)

    def base32_encode(self, value: int) -> str:
        """A number of at most 64 bits as people read it out; AddressError."""
        return addresses.base32_encode(value, 64)

    def base32_decode(self, text: str) -> int:
        """The number of such a text; AddressError."""
        return addresses.base32_decode(text, 64)

    async def add_contact(self, text: str, address: Address, *, beacon: int | None = None) -> None:
        """Remember who a text means."""
        first, second = self.config.beacons
        contact = Contact(address=address, text=text, beacon=first if beacon is None else beacon, second=second)
        await self._store.contacts.add(contact, self._ctx.now())

    async def deposit(self, coins: Iterable[Coin], wallet: str = "Default") -> None:
        """Put coins into a wallet."""
        await self._store.wallet.add_coins(wallet, coins)

    def coins(self, wallet: str = "Default") -> Sequence[Address]:
        """The coins of a wallet, smallest denominations first."""
        return [coin.address for coin in self._store.wallet.coins(wallet)]

    async def pown(self, coins: Sequence[Coin], wallet: str = "Default") -> Powned:
        """Take coins over from somebody who may have kept a copy: they get new numbers at every node.

        raises   UsageError for a coin that is listed twice, Conflict for one this engine has already
        """
        return await self._purse.pown(coins, wallet)

    async def receive_locker(self, code: str, wallet: str = "Default") -> Powned:
        """Take the coins of a locker; NotFound if it is empty or unknown, Conflict if it is this engine's own."""
        return await self._purse.receive(code, wallet)

    async def break_coin(self, coin: Address, wallet: str = "Default") -> Sequence[Address]:
        """Ten coins of the next smaller denomination for one; the new ones. Sends break coins by themselves."""
        return [part.address for part in await self._purse.break_coin(coin, wallet)]

    async def join_coins(self, coins: Sequence[Address], wallet: str = "Default") -> Address:
        """One coin of the next larger denomination for ten; the new one."""
        return (await self._purse.join(coins, wallet)).address

    async def heal(self, wallet: str = "Default") -> Healed:
        """Look at all coins of a wallet at all nodes; those more than half accept are mended at the others."""
        return await self._purse.heal(wallet)

    async def fill_pool(self, wallet: str = "Default") -> PoolStatus:
        """Fund lockers now rather than in the background."""
        await self._wallet.fill(wallet)
        return self._wallet.pool(wallet)

    def new_guid(self) -> bytes:
        """A fresh GUID."""
        return self._ctx.entropy(16)

    # ---------------------------------------------------------------------------------------------- files by path

    def allow_path(self, text: str, limit: int | None = None) -> str:
        """The resolved path of a readable file below the allowed folders; UsageError if it is larger than `limit`."""
        path, state = self._paths.check(text)
        if limit is not None and state.st_size > limit:
            raise UsageError(f"file is larger than {limit} bytes")
        return path

    def read_path(self, text: str, limit: int) -> bytes:
        """The bytes of such a file; UsageError if it is empty or larger than `limit`."""
        data = self._paths.read(text, limit)
        if not data:
            raise UsageError("file is empty")
        return data

    def spool(self, guid: bytes, name: str) -> tuple[BinaryIO, Source]:
        """A file for attachment bytes that come with a request; the caller writes and closes it."""
        return self._sender.spool(guid, name)

    def drop_spool(self, guid: bytes) -> None:
        """Forget attachment bytes of a request that was refused."""
        self._sender.drop_spool(guid)

    # ---------------------------------------------------------------------------------------------- directory

    async def publish_user(
        self,
        first: str = "",
        last: str = "",
        *,
        symbols: tuple[int, int] = (0, 0),
        inbox_fee: str | int | None = None,
        class_rejection: int = 0,
    ) -> Published:
        """Tell every node who has this mailbox and what it asks of senders.

        first, last      at most 63 bytes of UTF-8 each
        symbols          the avatar: two numbers, 0 to 255
        inbox_fee        CloudCoins, as text with at most 8 decimals; default: `config.inbox_fee`
        class_rejection  lowest denomination of senders, signed; 0 accepts all
        raises           UsageError, NodeError, QuorumError
        """
        profile = UserProfile(
            fee=fee_from_text(str(self.config.inbox_fee if inbox_fee is None else inbox_fee)),
            symbol1=symbols[0],
            symbol2=symbols[1],
            class_rejection=class_rejection,
            first_name=first,
            last_name=last,
        )
        return await self._directory.change({None: profile})

    async def delete_user(self) -> Published:
        """Take this mailbox's record out of the directory; its lists stay."""
        return await self._directory.change({None: None})

    async def get_user(self, address: Address) -> UserRecord | None:
        """What most nodes know of a mailbox; None if they know nothing. QuorumError if too few answer or agree."""
        return await self._directory.get(address)

    async def search_users(
        self, first: str | None = None, last: str | None = None, limit: int = 50
    ) -> Sequence[UserRecord]:
        """Mailboxes by the beginnings of their owners' names, without regard to case; both must match if given.

        limit   1 to 50
        raises  UsageError, QuorumError
        """
        return await self._directory.search(first, last, limit)

    async def list_get(self) -> Sequence[ListEntry]:
        """The senders on this mailbox's white and black list."""
        return await self._directory.listed()

    async def list_set(self, kind: ListKind, *senders: Address) -> Published:
        """Put senders on a list; those on the other one move. At most 1000 are listed in all (NodeError 198)."""
        return await self._directory.change(dict.fromkeys(senders, ListKind(kind)))

    async def list_remove(self, *senders: Address) -> Published:
        """Take senders off the lists."""
        return await self._directory.change(dict.fromkeys(senders))

    # ---------------------------------------------------------------------------------------------- wallet

    def wallet_name(self, text: str, *, pays: bool = True) -> str:
        """The wallet a name or path means; UsageError or NotFound with the documented words. Mail never pays."""
        name = text.replace("\\", "/").rstrip("/").rpartition("/")[2]
        if not name or name in (".", "..") or "\0" in text:
            raise UsageError("Invalid wallet_path")
        if name == "Mail" and pays:
            raise UsageError("Invalid wallet_path")  # it holds the identity and is never a payment source
        if not os.path.isdir(os.path.join(self.config.data, "Wallets", name)):
            raise NotFound("Wallet not found")
        return name

    def wallets(self) -> Sequence[str]:
        """Names of the wallets on disk."""
        return sorted(os.listdir(os.path.join(self.config.data, "Wallets")))

    def balance(self, wallet: str = "Default") -> int:
        """Whole CloudCoins free in a wallet."""
        return self._store.wallet.balance(wallet)

    def pool_status(self, wallet: str = "Default") -> PoolStatus:
        """Lockers ready to pay, and the wallet behind them."""
        return self._wallet.pool(wallet)

    def costs(self, files: int, recipients: int) -> Costs:
        """What a send costs recipients of the usual fee; the mail itself and each attachment is a file."""
        config = self.config
        return Costs(config.storage_fee * config.striping.n * files, config.inbox_fee * recipients)

    # ---------------------------------------------------------------------------------------------- send

    def receipt_exists(self, guid: bytes) -> bool:
        """Whether a guid has been used."""
        return self._store.sends.has_receipt(guid)

    def receipt(self, guid: bytes) -> Receipt:
        """The receipt of a send; NotFound if there is none."""
        return self._receipts.get(guid)

    def task(self, task_id: str) -> TaskState:
        """The state of a task; NotFound if there is none."""
        return self._tasks.get(task_id)

    @property
    def task_revision(self) -> int:
        """While this number stays, so does what `tasks` answers."""
        return self._tasks.revision

    def tasks(self) -> Sequence[TaskState]:
        """Tasks that run or have ended not long ago, newest first."""
        return self._tasks.listed()

    async def cancel(self, task_id: str) -> TaskState:
        """Take a send back, as long as nobody was told of it; NotFound, UsageError or Conflict with the documented
        words."""
        return await self._tasks.cancel(task_id)

    def receipts(self, status: str | None = None, limit: int = 50, offset: int = 0) -> tuple[Sequence[Receipt], int]:
        """A page of receipts, newest first, and how many there are of that status."""
        sends = self._store.sends
        return sends.receipts(status, limit, offset), sends.count_receipts(status)

    async def wait(self, task_id: str) -> TaskState:
        """The state of a task once it has ended."""
        return await self._tasks.wait(task_id)

    async def start_upload(self, draft: Draft, *, tell: bool) -> Started:
        """Accept a mail and store it in the background; with `tell`, announce it then.

        When this returns, the intent is on disk. raises UsageError, PathRefused, Conflict
        """
        return await self._sender.accept(draft, tell=tell)

    async def _upload(self, draft: Draft) -> Started:
        return await self.start_upload(msgspec.structs.replace(draft, durability=self.config.durability), tell=True)

    async def start_tell(self, guid: bytes) -> Started:
        """Announce a stored mail in the background; NotFound, Conflict or UsageError with the documented words."""
        return await self._decisions.start_tell(guid)

    def repeated(self, key: RequestKey) -> Started | None:
        """What a request with this key started before; Conflict if the key stands for another request."""
        return self._sender.repeated(key)

    async def cancel_hold(self, guid: bytes) -> None:
        """Tell nobody of a mail whose tell is held; NotFound, or Conflict once it is too late."""
        await self._decisions.cancel_hold(guid)

    async def send(self, draft: Draft) -> SendResult:
        """Store and announce a mail, and wait for both; recipients that cannot be reached now are told later.

        raises   PaymentError, QuorumError, TellError, and what `start_upload` raises
        """
        fees = await self._directory.fees([recipient.address for recipient in draft.recipients])
        costs = msgspec.structs.replace(self.costs(1 + len(draft.attachments), 0), inbox=sum(fees))
        return await self._sender.send(draft, costs)

    def draft(
        self,
        to: Sequence[str],
        subject: str,
        body: str,
        *,
        cc: Sequence[str] = (),
        bcc: Sequence[str] = (),
        attachments: Sequence[Source] = (),
        durability: Durability | None = None,
    ) -> Draft:
        """A draft from plain texts; AddressError if a recipient cannot be resolved."""
        groups = ((Kind.TO, to), (Kind.CC, cc), (Kind.BCC, bcc))
        return Draft(
            subject=subject,
            body=body,
            recipients=tuple(Recipient(kind, text, self.resolve(text)) for kind, texts in groups for text in texts),
            attachments=tuple(attachments),
            durability=durability or self.config.durability,
        )

    async def repair(self, guid: bytes) -> Repaired:
        """Look for missing stripes of a sent mail and store them again."""
        return await self._repairer.repair(guid)

    # ---------------------------------------------------------------------------------------------- receive

    async def peek(self, since: int = 0) -> Polled:
        """Ask the beacons for mail now; QuorumError if none answers."""
        return await self._with_id(self._receiver.peek(since))

    async def ping(self, timeout: float, since: int = 0) -> Polled:
        """Wait up to `timeout` seconds for new mail."""
        return await self._with_id(self._receiver.ping(timeout, since))

    def watch(self, timeout: float, since: int, told: Told) -> Callable[[], object]:
        """The same without a task for each who waits: `told` is called with the outcome or the error; what is returned
        ends the wait. All who are told the same are given the same object, without `elapsed_ms`."""
        return self._receiver.polls.wait(timeout, since, told).close

    async def _with_id(self, polling: Awaitable[Polled]) -> Polled:
        polled = await polling
        return msgspec.structs.replace(polled, request_id=self._ctx.entropy(8).hex())

    def drain(self) -> None:
        """Answer every parked `ping` at once with "nothing new"; call it before stopping a server."""
        self._receiver.polls.drain()

    async def download(self, guid: bytes, sender_sn: int | None = None) -> Downloaded:
        """Fetch a mail into the store; NotFound without a pending tell (unless `sender_sn` is given)."""
        return await self._receiver.download(guid, sender_sn)

    def start_download(self, guid: bytes, sender_sn: int | None = None) -> Downloaded | str:
        """The same in the background: the id of the task, or the mail if it is here already."""
        return self._fetching.start(guid, sender_sn)

    async def receive(self, timeout: float = 0.0) -> Sequence[Downloaded]:
        """Every mail that waits, fetched; waits up to `timeout` seconds for the first.

        A mail that cannot be fetched now stays where it is and holds up no other; its error is raised only if there
        was nothing else.
        """
        polled = await self.peek()
        if not polled.notifications and timeout:
            polled = await self.ping(timeout)
        fetched: list[Downloaded] = []
        failure: QMailError | None = None
        for item in polled.notifications:
            try:
                fetched.append(await self.download(item.tell.guid))
            except QMailError as error:
                log.warning("mail %s cannot be fetched now: %s", item.tell.guid.hex(), error)
                failure = error
        if failure is not None and not fetched:
            raise failure
        return fetched

    def messages(self, folder: Folder, limit: int = 50, offset: int = 0, sort: str = "newest") -> MessagePage:
        """One page of a folder."""
        return self.mailbox.page(folder, limit, offset, sort)

    async def message(self, message_id: bytes, *, mark_read: bool = True) -> Message:
        """A stored message; NotFound if there is none."""
        return await self.mailbox.get(message_id, mark_read=mark_read)

    def attachments(self, message_id: bytes) -> Sequence[StoredAttachment]:
        """The attachments of a message; NotFound if there is no such message."""
        return self._store.mail.attachments(message_id)

    async def attachment(self, message_id: bytes, attachment_id: int, *, fetch: bool = True) -> StoredAttachment:
        """One attachment; with `fetch` its bytes are in the file `path` names."""
        found = await self._receiver.attachment(message_id, attachment_id, fetch=fetch)
        return await self.letters.save(found) if fetch and found.mode == 0 else found
