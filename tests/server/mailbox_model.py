"""What the mailbox API must remember of users, mailboxes and messages, in plain dicts and the slow obvious way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

FLAGS = ("seen", "flagged", "deleted", "draft")
HIDDEN = ("\\Trash", "\\Junk")
INBOX = "INBOX"
Event = tuple[str, str, int | None]  # command, mailbox, uid


@dataclass
class Letter:
    """A message: `raw` None if only the server knows its bytes."""

    oid: str
    uid: int
    subject: str
    words: frozenset[str]
    size: int
    flags: dict[str, bool]
    raw: bytes | None = None
    expires: int | None = None

    @property
    def name(self) -> str:
        return f"{self.oid}:{self.uid}"


@dataclass
class Box:
    oid: str
    path: str
    special: str | None = None
    retention: int = 0  # ms
    subscribed: bool = True
    uidnext: int = 1
    changes: int = 0  # how often the modification number must have grown
    letters: dict[int, Letter] = field(default_factory=dict)

    @property
    def unseen(self) -> int:
        return sum(not letter.flags["seen"] for letter in self.letters.values())

    @property
    def fixed(self) -> bool:
        return self.path == INBOX or self.special is not None

    def expiry(self, now: int) -> int | None:
        return now + self.retention // 1000 if self.retention else None

    def range(self, first: int, last: int | None) -> list[Letter]:
        return [letter for uid, letter in sorted(self.letters.items()) if first <= uid <= (last or 1 << 40)]


@dataclass
class Person:
    oid: str
    name: str
    quota: int
    boxes: list[Box]
    journal: list[Event] = field(default_factory=list)

    @property
    def used(self) -> int:
        return sum(letter.size for box in self.boxes for letter in box.letters.values())

    def listed(self) -> list[Box]:
        """The inbox, then subscribed mailboxes before others, by path."""
        return sorted(self.boxes, key=lambda box: (box.path != INBOX, not box.subscribed, box.path))

    # ------------------------------------------------------------------ mailboxes

    def taken(self, path: str, but: Iterable[Box] = ()) -> bool:
        return any(box.path == path for box in self.boxes if box not in tuple(but))

    def below(self, top: Box) -> list[Box]:
        return [box for box in self.boxes if box is top or box.path.startswith(f"{top.path}/")]

    def rename(self, top: Box, path: str) -> None:
        old = top.path
        for box in self.below(top):
            box.path = path + box.path[len(old) :]
            self.journal.append(("RENAME", box.oid, None))

    def drop(self, box: Box) -> None:
        self.remove(box, list(box.letters.values()))
        self.boxes.remove(box)
        self.journal.append(("DROP", box.oid, None))

    # ------------------------------------------------------------------ messages

    def file(self, box: Box, letter: Letter, now: int) -> None:
        assert letter.uid == box.uidnext, "uids rise by one"
        box.uidnext += 1
        box.changes += 1
        letter.expires = box.expiry(now)
        box.letters[letter.uid] = letter
        self.journal.append(("EXISTS", box.oid, letter.uid))

    def flag(self, box: Box, letters: Iterable[Letter], flags: dict[str, bool]) -> None:
        for letter in letters:
            if any(letter.flags[name] != value for name, value in flags.items()):
                letter.flags |= flags
                box.changes += 1
                self.journal.append(("FETCH", box.oid, letter.uid))

    def move(self, box: Box, letters: Iterable[Letter], target: Box, now: int) -> None:
        for letter in letters if target is not box else ():
            self.remove(box, [letter])
            letter.uid = target.uidnext
            self.file(target, letter, now)

    def remove(self, box: Box, letters: Sequence[Letter]) -> None:
        for letter in letters:
            del box.letters[letter.uid]
            box.changes += 1
            self.journal.append(("EXPUNGE", box.oid, letter.uid))

    def expire(self, now: int) -> None:
        for box in self.boxes:
            self.remove(box, [one for one in box.letters.values() if one.expires is not None and one.expires <= now])

    def found(self, word: str, box: Box | None = None, *, flagged: bool = False, unseen: bool = False) -> set[str]:
        """Names of the messages a search must find."""
        looked = [box] if box is not None else [one for one in self.boxes if one.special not in HIDDEN]
        return {
            letter.name
            for one in looked
            for letter in one.letters.values()
            if (not word or word in letter.words)
            and (not flagged or letter.flags["flagged"])
            and (not unseen or not letter.flags["seen"])
        }
