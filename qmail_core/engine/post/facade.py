"""Mail beside the network as surfaces see it: `engine.post`."""

from __future__ import annotations

from qmail_core.codec import mime
from qmail_core.engine.accounts import Accounts
from qmail_core.engine.context import Context
from qmail_core.engine.letters import Letters
from qmail_core.engine.messages import Messages
from qmail_core.engine.people import People
from qmail_core.engine.post.arrivals import Arrivals
from qmail_core.engine.post.autoreply import Autoreplies, plain
from qmail_core.engine.post.bounces import Bounces
from qmail_core.engine.post.filters import Filters
from qmail_core.engine.post.network import NetworkMail
from qmail_core.engine.post.outbox import Outbox
from qmail_core.engine.post.routes import Routes
from qmail_core.engine.post.submit import Submission, Submitted, Submitter, Upload
from qmail_core.engine.post.webhooks import Webhooks
from qmail_core.errors import AddressError
from qmail_core.model import MessageState
from qmail_core.store.post import Usage
from qmail_core.transport.outside import MailRelay, Poster


class Post:
    """Submission, delivery, filters, automatic answers, webhooks of one engine's users.

    filters, autoreplies, webhooks, outbox, network  the parts
    """

    def __init__(
        self,
        ctx: Context,
        accounts: Accounts,
        people: People,
        messages: Messages,
        letters: Letters,
        upload: Upload,
        relay: MailRelay | None,
        poster: Poster | None,
    ) -> None:
        self._ctx = ctx
        routes = self._routes = Routes(ctx, accounts.users, people)
        self.filters = Filters(ctx)
        self.autoreplies = Autoreplies(ctx)
        bounces = Bounces(ctx, letters)
        self.outbox = Outbox(ctx, bounces, relay)
        self.webhooks = Webhooks(ctx, poster)
        self._arrivals = Arrivals(ctx, letters, routes, self.filters, self.autoreplies, self.outbox)
        self._submitter = Submitter(ctx, messages, letters, routes, self._arrivals, self.outbox, bounces, upload)
        self.network = NetworkMail(
            ctx, letters, self._arrivals, self.filters, self.autoreplies, bounces, self._submitter
        )

    def start(self) -> None:
        """Begin to work off what waits."""
        self.outbox.start()
        self.network.worker.start()
        self.webhooks.start()

    async def stop(self) -> None:
        """What waits is in the store and goes on at the next start; but for answers to mail of the network."""
        await self.outbox.worker.stop()
        await self.network.worker.stop()
        await self.webhooks.worker.stop()

    async def submit(self, user: int, wanted: Submission) -> Submitted:
        """See Submitter.submit."""
        return await self._submitter.submit(user, wanted)

    async def deliver(self, user: int, raw: bytes, *, sender: str = "", address: str = "") -> MessageState | None:
        """See Arrivals.deliver."""
        return await self._arrivals.deliver(user, raw, sender=sender, address=address)

    def knows(self, address: str) -> bool:
        """Whether mail for an address is for a user here."""
        return self._routes.here(address) is not None

    async def deliver_to(self, address: str, raw: bytes, *, sender: str = "") -> MessageState | None:
        """`deliver` for whoever's address it is; AddressError if it is nobody's here."""
        account = self._routes.here(address)
        if account is None:
            raise AddressError("Unknown recipient")
        return await self.deliver(account.id, raw, sender=sender, address=plain(mime.normalise_address(address)))

    def usage(self, user: int, kind: str) -> tuple[int, int]:
        """How much of a daily allowance (recipients, forwards) is used, and seconds until counting starts again."""
        found: Usage = self._ctx.store.post.usage(user, kind)
        left = found.until - self._ctx.now()
        return (found.used, left) if left > 0 else (0, 0)
