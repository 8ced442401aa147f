"""One request and one answer of every command, from which `record_frames` makes tests/vectors/frames.json.

A command is added by one line in `COMMANDS`: its name, group and number, what follows the challenge, and how a node
answers. Afterwards `python -m tests.reference.record_frames` records it; lines that were there must not change.
"""

from __future__ import annotations

from msgspec import Struct

from qmail_core.codec import change, cipher, coins, directory, healing, keys, lockers, mail, objects, status
from qmail_core.codec import consts as c
from qmail_core.codec.mail import TellRecipient
from qmail_core.model import (
    Address,
    Coin,
    FileEntry,
    ListEntry,
    ListKind,
    Profile,
    StripeLocation,
    Striping,
    Tell,
    UserProfile,
    UserRecord,
)

NODE = 11
COIN = Coin(Address(0, 42), b"".join(bytes(range(node, node + 16)) for node in range(25)))
OTHERS = [Coin(Address(1, 100 + i), bytes((i,)) * 400) for i in range(3)]
TEN = [Coin(Address(0, 200 + i), bytes((i,)) * 400) for i in range(10)]
LISTED = [coin.address for coin in OTHERS]
GUID = bytes(range(16, 32))
LOCKER = cipher.locker_code("X7KQ-M3PL-9RVB")
LOCKER_KEY = cipher.locker_key(LOCKER, NODE)
WHO = mail.build_identity(COIN, NODE)
TELL = Tell(
    guid=GUID,
    sender=COIN.address,
    timestamp=0x6A69B300,
    locker_code=LOCKER,
    total_size=16,
    striping=Striping(Profile.SEALED, 2, 1),
    files=(FileEntry(0, 4, 46, 0x56FDE996), FileEntry(1, 1, 16, 0x396AC9F0)),
    servers=tuple(StripeLocation(i, i == 2, i, "192.0.2.10", 50000 + i) for i in range(3)),
)
RECIPIENTS = [TellRecipient(Address(0, 0x33FE), 0, LOCKER), TellRecipient(Address(1, 7), 2, bytes(16))]
OWNER = directory.Owned(COIN.address, COIN.an(NODE))
PROFILE = UserProfile(fee=1_000_000_000, symbol1=5, symbol2=17, first_name="Alice", last_name="Smith")
RECORD = directory.build_user_record(UserRecord(COIN.address, PROFILE, 1_700_000_000, 1_785_312_000))
ENTRIES = [ListEntry(Address(0, 100), ListKind.WHITE), ListEntry(Address(1, 200), ListKind.BLACK)]
MASTER = keys.MasterKey(1, bytes(range(32)))
SHARE = keys.ShareRequest(server_id=b"CONTENT-SERVER01", kid=1, client=COIN.address, timestamp=1_785_312_000)


TRANSFER = bytes(range(32, 48))
HASH = bytes(range(64, 96))
CALL = 0x0102030405060708  # the request id of object transfers
STORED = objects.Committed(GUID, 10, 1, 0, objects.SHA256, 1, 5, HASH)


class Command(Struct, frozen=True):
    """One row."""

    name: str
    group: int
    number: int
    request: bytes = b""  # what follows the challenge, identity included
    answer: bytes = b""
    status: int = c.STATUS_SUCCESS
    page: int = 0


COMMANDS = [
    Command("echo", c.GROUP_STATUS, c.CMD_ECHO),
    Command("version", c.GROUP_STATUS, c.CMD_VERSION, b"", b"20261121"),
    Command("statistics", c.GROUP_STATUS, c.CMD_STATS, bytes(range(16)), status.build_stats({"requests": 7})),
    Command("count", c.GROUP_STATUS, c.CMD_COUNT, b"", status.build_count({0: 20, 1: 3})),
    Command("detect", c.GROUP_AUTH, c.CMD_DETECT, coins.build_detect(OTHERS, NODE), b"", c.STATUS_ALL_PASS),
    Command(
        "detect, mixed",
        c.GROUP_AUTH,
        c.CMD_DETECT,
        coins.build_detect(OTHERS, NODE),
        coins.build_bitmap([True, False, True]),
        c.STATUS_MIXED,
    ),
    Command("upload", c.GROUP_MAIL, c.CMD_UPLOAD, WHO + mail.build_upload(GUID, LOCKER, 1, 2, 5) + b"hello"),
    Command("tell", c.GROUP_MAIL, c.CMD_TELL, WHO + mail.build_tell(TELL, RECIPIENTS, LOCKER)),
    Command("ping", c.GROUP_MAIL, c.CMD_PING, WHO + mail.build_poll(), b"", c.STATUS_POLL_TIMEOUT),
    Command(
        "peek", c.GROUP_MAIL, c.CMD_PEEK, WHO + mail.build_poll(7), mail.build_tells([mail.build_record(TELL)] * 2)
    ),
    Command(
        "download",
        c.GROUP_MAIL,
        c.CMD_DOWNLOAD,
        WHO + mail.build_download(GUID, LOCKER, 10, 3),
        mail.build_page(10, 3, b"hello"),
    ),
    Command("absent", c.GROUP_MAIL, c.CMD_DOWNLOAD, WHO + mail.build_download(GUID, LOCKER, 1, 0), b"", 202),
    Command(
        "upload_large_page",
        c.GROUP_MAIL,
        c.CMD_UPLOAD_PAGE,
        WHO + mail.build_upload_page(GUID, LOCKER, 10, 255, 3, 5) + b"hello",
        page=3,
    ),
    Command("locker put", c.GROUP_LOCKER, c.CMD_LOCKER_PUT, lockers.build_put(OTHERS, LOCKER_KEY, NODE), b"", 241),
    Command("locker peek", c.GROUP_LOCKER, c.CMD_LOCKER_PEEK, LOCKER_KEY, coins.build_coin_list(LISTED), 241),
    Command(
        "locker remove", c.GROUP_LOCKER, c.CMD_LOCKER_REMOVE, lockers.build_remove(LOCKER_KEY, OTHERS, NODE), b"", 241
    ),
    Command(
        "locker put multiple",
        c.GROUP_LOCKER,
        c.CMD_LOCKER_PUT_MANY,
        lockers.build_put_many([(OTHERS[:1], LOCKER_KEY), (OTHERS[1:], LOCKER_KEY)], NODE),
        coins.build_bitmap([True, False]),
        c.STATUS_MIXED,
    ),
    Command("post_user", c.GROUP_DIRECTORY, c.CMD_POST_USER, directory.build_post_user(OWNER, PROFILE)),
    Command("get_user", c.GROUP_DIRECTORY, c.CMD_GET_USER, directory.build_get_user(COIN.address), RECORD),
    Command(
        "search_users",
        c.GROUP_DIRECTORY,
        c.CMD_SEARCH_USERS,
        directory.build_search_users(directory.Search("Al", "Sm")),
        directory.build_search_answer([RECORD]),
    ),
    Command("delete_user", c.GROUP_DIRECTORY, c.CMD_DELETE_USER, directory.build_owned(OWNER)),
    Command("list_set", c.GROUP_DIRECTORY, c.CMD_LIST_SET, directory.build_list_set(OWNER, ENTRIES)),
    Command("list_remove", c.GROUP_DIRECTORY, c.CMD_LIST_REMOVE, directory.build_list_remove(OWNER, LISTED)),
    Command(
        "list_get",
        c.GROUP_DIRECTORY,
        c.CMD_LIST_GET,
        directory.build_owned(OWNER),
        directory.build_list_answer(ENTRIES),
    ),
    Command("preload", c.GROUP_KEYS, c.CMD_PRELOAD_MASTER_KEY, keys.build_preload_master_key(b"CS01", [MASTER])),
    Command("share", c.GROUP_KEYS, c.CMD_GET_KEY_SHARE, keys.build_get_key_share(SHARE), keys.build_key_share(42)),
    Command("detect_sum", c.GROUP_AUTH, c.CMD_DETECT_SUM, coins.build_detect_sum(OTHERS, NODE), b"", 241),
    Command("pown", c.GROUP_AUTH, c.CMD_POWN, coins.build_pown(OTHERS, OTHERS, NODE), b"", 241),
    Command("pown_sum", c.GROUP_AUTH, c.CMD_POWN_SUM, coins.build_pown_sum(OTHERS, GUID, NODE), b"", 242),
    Command(
        "get_ticket",
        c.GROUP_HEALING,
        c.CMD_GET_TICKET,
        healing.build_get_ticket(OTHERS, NODE),
        healing.build_ticket([True] * 3, 7)[1],
        c.STATUS_ALL_PASS,
    ),
    Command(
        "validate_ticket",
        c.GROUP_HEALING,
        c.CMD_VALIDATE_TICKET,
        healing.build_validate(NODE, 7),
        healing.build_validated(LISTED),
    ),
    Command(
        "find",
        c.GROUP_HEALING,
        c.CMD_FIND,
        healing.build_find(OTHERS, OTHERS, NODE),
        healing.build_found([healing.Held.AN, healing.Held.PAN, healing.Held.NEITHER])[1],
        211,
    ),
    Command("fix", c.GROUP_HEALING, c.CMD_FIX, healing.build_fix(LISTED, GUID, range(25)), b"", 241),
    Command(
        "locker download",
        c.GROUP_LOCKER,
        c.CMD_LOCKER_DOWNLOAD,
        lockers.build_download(LOCKER_KEY, GUID),
        coins.build_coin_list(LISTED),
    ),
    Command(
        "available",
        c.GROUP_CHANGE,
        c.CMD_AVAILABLE,
        change.build_available(7, change.Operation.BREAK, 1),
        change.build_serials(1, [5, 6, 7]),
    ),
    Command("break", c.GROUP_CHANGE, c.CMD_BREAK, change.build_change(7, OTHERS[0], TEN, NODE)),
    Command("join", c.GROUP_CHANGE, c.CMD_JOIN, change.build_change(7, OTHERS[0], TEN, NODE)),
    *(
        Command(
            name,
            c.GROUP_MAIL,
            number,
            WHO + objects.build_request(CALL, wanted) + data,
            objects.build_answer(CALL, *answer),
        )
        for name, number, wanted, data, answer in (
            (
                "object begin",
                c.CMD_OBJECT_BEGIN,
                objects.Begin(
                    TRANSFER, GUID, LOCKER, 10, 86_400, objects.SHA256, 0, 0, bytes(7), 1 << 20, 5, 0, 1, HASH
                ),
                b"",
                [objects.Begun(TRANSFER, 1 << 20, 4, objects.SHA256, 0, 0, 0, 1, 0x6A69B300, 86_400)],
            ),
            (
                "object range",
                c.CMD_OBJECT_PUT_RANGE,
                objects.PutRange(TRANSFER, 0, 5, objects.SHA256, HASH),
                b"hello",
                [objects.RangePut(TRANSFER, 0, 5)],
            ),
            (
                "object status",
                c.CMD_OBJECT_STATUS,
                objects.Inquiry(TRANSFER, 0, 0, 256),
                b"",
                [objects.Progress(TRANSFER, 5, 1, 1, 1, 0, 5), objects.build_ranges([(0, 5)])],
            ),
            ("object commit", c.CMD_OBJECT_COMMIT, objects.Commit(TRANSFER, 5, objects.SHA256, HASH), b"", [STORED]),
            ("object abort", c.CMD_OBJECT_ABORT, objects.Abort(TRANSFER), b"", []),
            (
                "object info",
                c.CMD_OBJECT_INFO,
                objects.Info(GUID, 10, 0),
                b"",
                [objects.Described(GUID, 10, 1, 0, objects.SHA256, 1, 5, HASH, 1 << 20, 0x6A69B300)],
            ),
            (
                "object get",
                c.CMD_OBJECT_GET_RANGE,
                objects.GetRange(GUID, 10, 1, 0, 5),
                b"",
                [objects.RangeGot(GUID, 10, objects.SHA256, 1, 0, 5, 5, HASH), b"hello"],
            ),
            ("object delete", c.CMD_OBJECT_DELETE, objects.Delete(GUID, 10, 1, 2), b"", [objects.Tombstone(2, 2)]),
            (
                "object capabilities",
                c.CMD_OBJECT_CAPABILITIES,
                None,
                b"",
                [
                    objects.Capabilities(1, 1, 1, 1, 1, 1 << 20, 1 << 20, 1 << 20, 64, 4, 1 << 32, 7, 8, 0, 1),
                    objects.StorageClass(0, 0, 0, 1 << 32, 1 << 40, 1 << 39, 31_536_000, 0),
                ],
            ),
        )
    ),
]
