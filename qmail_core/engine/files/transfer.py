"""The file-transfer API's part of the engine, by topic."""

from __future__ import annotations

import os

from qmail_core.codec import address
from qmail_core.engine.context import Context
from qmail_core.engine.files.disk import Folder
from qmail_core.engine.files.downloads import Downloads
from qmail_core.engine.files.library import Library
from qmail_core.engine.files.mails import Mails
from qmail_core.engine.files.pins import Pins
from qmail_core.engine.files.tokens import Tokens
from qmail_core.engine.files.uploads import Uploads
from qmail_core.engine.letters import Letters
from qmail_core.engine.people import People
from qmail_core.engine.receive import Receiver
from qmail_core.engine.send import Sender


class Transfer:
    """Tokens, PINs, files, downloads and mail of one engine's users."""

    def __init__(self, ctx: Context, people: People, sender: Sender, receiver: Receiver, letters: Letters) -> None:
        self._store = ctx.store.files
        self._folder = Folder(os.path.join(ctx.config.data, "Files"))
        self.pins = Pins(ctx)
        self.uploads = Uploads(ctx, self._folder, self.pins)
        self.tokens = Tokens(ctx, self.uploads.drop)
        self.library = Library(ctx, self._folder, self.pins, sender, address.render(ctx.address))
        self.downloads = Downloads(ctx, self._folder, self.pins, receiver, letters)
        self.mails = Mails(ctx, self.library, people, sender, receiver)

    def sweep(self) -> None:
        """Remove what uploads that never ended have left on disk."""
        self._folder.sweep(self._store.known_files())

    def close(self) -> None:
        """Give all files back."""
        self.uploads.close()
