"""Numbers of the RAIDA/QMail wire, each once. Where sources disagree the comment says which one wins and why."""

from __future__ import annotations

COIN_ID = b"\x00\x06"  # QMail wire A.2: CloudCoin
TRAILER = b"\x3e\x3e"  # A.4; old documents print E3 E3, code and vectors use 3E 3E

# Encryption types, header byte 16 (A.3.1)
ENC_NONE = 0
ENC_COIN = 1  # AES-128-CTR under the coin's authenticity number
ENC_LOCKER = 2  # AES-128-CTR under a locker key
ENC_COIN256 = 4  # AES-256-CTR + HMAC-SHA-256 under SHA-256(authenticity number); our nodes among themselves
ENC_COINS256 = 5  # the same under SHA-256 of two coins' authenticity numbers
SHORT_HEADERS = frozenset({0, 1, 2})  # A.1: every other type is read as 48 bytes, type 3 too (A.11)
ENCODINGS = frozenset({ENC_NONE, ENC_COIN, ENC_LOCKER, ENC_COIN256, ENC_COINS256})  # what a node here understands

MAX_GROUP = 16  # A.9: a group up to here is known even when none of its commands is served
# Command groups (A.9) and commands. Group 6 uses 70..84; the older 60..64 are never sent, and answered only by a node
# that is told to (C.10).
GROUP_STATUS = 0
CMD_ECHO = 0
CMD_VERSION = 1
CMD_STATS = 2
CMD_COUNT = 3
GROUP_AUTH = 1
CMD_DETECT = 10
CMD_DETECT_SUM = 11
CMD_POWN = 20
CMD_POWN_SUM = 21
GROUP_HEALING = 2
CMD_GET_TICKET = 40
CMD_VALIDATE_TICKET = 50
CMD_FIND = 60
CMD_FIX = 80
GROUP_MAIL = 6
CMD_UPLOAD = 70
CMD_TELL = 71
CMD_PING = 72
CMD_PEEK = 73
CMD_DOWNLOAD = 74
CMD_UPLOAD_PAGE = 75
CMD_OBJECT_BEGIN = 76  # C.9, Object Transfer v1
CMD_OBJECT_PUT_RANGE = 77
CMD_OBJECT_STATUS = 78
CMD_OBJECT_COMMIT = 79
CMD_OBJECT_ABORT = 80
CMD_OBJECT_INFO = 81
CMD_OBJECT_GET_RANGE = 82
CMD_OBJECT_CAPABILITIES = 83
CMD_OBJECT_DELETE = 84
CMD_OLD_UPLOAD = 60  # C.10
CMD_OLD_TELL = 61
CMD_OLD_PING = 62
CMD_OLD_PEEK = 63
CMD_OLD_DOWNLOAD = 64
GROUP_LOCKER = 8
CMD_LOCKER_DOWNLOAD = 8
CMD_LOCKER_PUT = 82
CMD_LOCKER_PEEK = 83
CMD_LOCKER_REMOVE = 84
CMD_LOCKER_PUT_MANY = 88
GROUP_KEYS = 15  # RKE
CMD_PRELOAD_MASTER_KEY = 1
CMD_GET_KEY_SHARE = 2
GROUP_DIRECTORY = 16  # DRD; older documents say group 18, commands 180..187
CMD_POST_USER = 140
CMD_GET_USER = 141
CMD_SEARCH_USERS = 142
CMD_DELETE_USER = 143
CMD_LIST_SET = 144
CMD_LIST_REMOVE = 145
CMD_LIST_GET = 146
GROUP_CHANGE = 9
CMD_AVAILABLE = 91
CMD_BREAK = 92
CMD_JOIN = 93

# Coins (A.10)
DENOMINATIONS = range(-8, 7)  # of coins with a value; 7 to 11 are role keys
SERIALS_PER_PAGE = 1024
SERIAL_PAGES = 1000  # per denomination: what change deals with ends at serial 1 023 999

# Commands whose body length is the u32 at header bytes 10..13 (A.2.1)
LONG_COMMANDS = range(75, 85)
OLD_COMMANDS = range(60, 65)
# Commands of group 6 that a datagram cannot carry (C.7, C.9.1 and the summary of section 0)
TCP_COMMANDS = frozenset({CMD_PING, *LONG_COMMANDS})

# Sizes
CHALLENGE_SIZE = 16
SELECTOR_SIZE = 5  # DN SN of a coin, or the beginning of a locker key
HEADER_SIZE = 32  # types 0..3
HEADER256_SIZE = 48  # types 4 and 5, request and answer
HMAC_SIZE = 32
PAGE_SIZE = 262_144  # one page of command 75 and of an answer to 74 (C.4, C.5)
MAX_SHORT_BODY = 65_535  # u16 body length
MAX_RANGE = 1 << 20  # data of one command 77 or of one answer to 82; the client's default chunk (C.9.1)
MAX_BODY = MAX_RANGE + 4096  # what a node accepts at all: a whole range and what stands around it
PREAMBLE_SIZE = 48
IDENTITY_SIZE = 32  # preamble without its challenge
TELL_HEADER_SIZE = 64
LOCATION_SIZE = 32
ADDRESS_ENTRY_SIZE = 32
MANIFEST_ENTRY_SIZE = 16
LOCKER_CODE_SIZE = 16
SEED_SIZE = 16  # PG of a fix, seed of a locker download (B.3, B.5.2)
TICKET_SIZE = 4
MAX_TICKETS = 25  # places in a fix, by node index (B.3)
MAX_RECIPIENTS = 50
MAX_FILES = 246  # meta, body and 244 attachments
MAX_ATTACHMENTS = MAX_FILES - 2

# File types (C.2)
FILE_META = 0
FILE_BODY = 1
FILE_ATTACHMENT = 10  # first attachment; N-th is FILE_ATTACHMENT + N
FLAG_BODY = 1
FLAG_ATTACHMENT = 2
FLAG_META = 4
MANIFEST_HAS_CRC = 2  # manifest_flags bit 1 (C.6.4)

TELL_NEW_MAIL = 0
TELL_READ_RECEIPT = 1
TELL_DELETED = 2

# Status bytes of an answer (A.8); names follow the column "Meaning"
STATUS_NO_ERROR = 0
STATUS_INVALID_SPLIT = 2
STATUS_INVALID_RAIDA = 3
STATUS_INVALID_SHARD = 4
STATUS_INVALID_GROUP = 5
STATUS_INVALID_COMMAND = 6
STATUS_INVALID_COIN_ID = 7
STATUS_COIN_NOT_FOUND = 8
STATUS_PACKET_LENGTH = 16
STATUS_OLD_NO_MAIL = 17  # C.10
STATUS_WRONG_RAIDA = 18
STATUS_KEY_COIN_NOT_FOUND = 25
STATUS_ENCRYPTION_UNSUPPORTED = 27
STATUS_NO_TRAILER = 33
STATUS_INVALID_ENCRYPTION = 34
STATUS_EMPTY_BODY = 36
STATUS_INVALID_CRC = 37
STATUS_ADMIN = 38
STATUS_NOT_DIVISIBLE = 39
STATUS_SN_NOT_HELD = 40
STATUS_PAGE_NOT_RESERVED = 41
STATUS_NO_TICKET_SLOT = 42
STATUS_TICKET_NOT_FOUND = 43
STATUS_TICKET_CLAIMED = 44
STATUS_RATE_EXCEEDED = 160
STATUS_OLD_AUTH_FAILED = 165  # C.10; 200 today
STATUS_OLD_PAYMENT = 166  # C.10; 168 and 169 today
STATUS_PAYMENT_PROCESSING = 167
STATUS_PAYMENT_INSUFFICIENT = 168
STATUS_PAYMENT_REQUIRED = 169
STATUS_LOCKER_EMPTY = 179
STATUS_NO_ENTRY = 193
STATUS_FILESYSTEM = 194
STATUS_INVALID_PARAMETER = 198
STATUS_INVALID_PAN = 199
STATUS_INVALID_AN = 200
STATUS_FILE_EXISTS = 201
STATUS_FILE_NOT_EXIST = 202
STATUS_INVALID_HMAC = 204
STATUS_FIND_NEITHER = 208
STATUS_FIND_ALL_AN = 209
STATUS_FIND_ALL_PAN = 210
STATUS_FIND_MIXED = 211
STATUS_SN_NOT_AVAILABLE = 215
STATUS_TCP_REQUIRED = 218
STATUS_PROTOCOL_UNSUPPORTED = 219
STATUS_OBJECT_TOO_LARGE = 220
STATUS_RANGE_TOO_LARGE = 221
STATUS_TRANSFER_NOT_FOUND = 222
STATUS_TRANSFER_EXPIRED = 223
STATUS_RANGE_CONFLICT = 224
STATUS_TRANSFER_INCOMPLETE = 225
STATUS_HASH_MISMATCH = 226
STATUS_QUOTA = 227
STATUS_NOT_COMMITTED = 228
STATUS_RANGE_INVALID = 229
STATUS_STORAGE_FULL = 230
STATUS_OBJECT_STATE = 231
STATUS_NOT_OWNER = 232
STATUS_GENERATION_CONFLICT = 233
STATUS_TRANSFER_CONFLICT = 234
STATUS_RETENTION_UNAVAILABLE = 235
STATUS_BLACKLISTED = 236
STATUS_CLASS_REJECTED = 237
STATUS_ALL_PASS = 241
STATUS_ALL_FAIL = 242
STATUS_MIXED = 243
STATUS_POLL_TIMEOUT = 245
STATUS_SUCCESS = 250
STATUS_INTERNAL = 252
STATUS_NETWORK = 253
STATUS_MEMORY = 254
STATUS_INVALID_ROUTING = 255

SUCCESSES = frozenset({STATUS_NO_ERROR, STATUS_ALL_PASS, STATUS_SUCCESS})

STATUS_TEXT = {
    STATUS_INVALID_SPLIT: "split id invalid",
    STATUS_INVALID_RAIDA: "request is for another RAIDA",
    STATUS_INVALID_SHARD: "shard id invalid",
    STATUS_INVALID_GROUP: "command group unknown",
    STATUS_INVALID_COMMAND: "command unknown",
    STATUS_INVALID_COIN_ID: "coin id wrong",
    STATUS_COIN_NOT_FOUND: "coin not found",
    STATUS_PACKET_LENGTH: "packet length invalid",
    STATUS_OLD_NO_MAIL: "no mail",
    STATUS_WRONG_RAIDA: "wrong RAIDA",
    STATUS_KEY_COIN_NOT_FOUND: "encryption coin not found",
    STATUS_ENCRYPTION_UNSUPPORTED: "encryption type unsupported",
    STATUS_NO_TRAILER: "trailer missing",
    STATUS_INVALID_ENCRYPTION: "body cannot be decrypted",
    STATUS_EMPTY_BODY: "body required but empty",
    STATUS_INVALID_CRC: "challenge CRC mismatch",
    STATUS_ADMIN: "admin authentication failed",
    STATUS_NOT_DIVISIBLE: "entry list not divisible",
    STATUS_SN_NOT_HELD: "serial number not held here",
    STATUS_PAGE_NOT_RESERVED: "serial numbers are not reserved",
    STATUS_NO_TICKET_SLOT: "no ticket slot",
    STATUS_TICKET_NOT_FOUND: "ticket not found",
    STATUS_TICKET_CLAIMED: "ticket already claimed",
    STATUS_RATE_EXCEEDED: "request rate exceeded",
    STATUS_OLD_AUTH_FAILED: "authentication failed",
    STATUS_OLD_PAYMENT: "payment required",
    STATUS_PAYMENT_PROCESSING: "payment being processed",
    STATUS_PAYMENT_INSUFFICIENT: "payment insufficient",
    STATUS_PAYMENT_REQUIRED: "payment required",
    STATUS_LOCKER_EMPTY: "locker empty or unknown",
    STATUS_NO_ENTRY: "no entry",
    STATUS_FILESYSTEM: "node cannot write its storage",
    STATUS_INVALID_PARAMETER: "parameter invalid",
    STATUS_INVALID_PAN: "locker key malformed",
    STATUS_INVALID_AN: "authenticity number wrong",
    STATUS_FILE_EXISTS: "object belongs to another sender",
    STATUS_FILE_NOT_EXIST: "object does not exist",
    STATUS_INVALID_HMAC: "HMAC invalid",
    STATUS_FIND_NEITHER: "neither number is held",
    STATUS_FIND_ALL_AN: "all old numbers are held",
    STATUS_FIND_ALL_PAN: "all new numbers are held",
    STATUS_FIND_MIXED: "some numbers are held",
    STATUS_SN_NOT_AVAILABLE: "serial number not available",
    STATUS_TCP_REQUIRED: "TCP required",
    STATUS_PROTOCOL_UNSUPPORTED: "object protocol unsupported",
    STATUS_OBJECT_TOO_LARGE: "object too large",
    STATUS_RANGE_TOO_LARGE: "range too large",
    STATUS_TRANSFER_NOT_FOUND: "transfer not found",
    STATUS_TRANSFER_EXPIRED: "transfer expired",
    STATUS_RANGE_CONFLICT: "range was stored with other bytes",
    STATUS_TRANSFER_INCOMPLETE: "transfer incomplete",
    STATUS_HASH_MISMATCH: "hash mismatch",
    STATUS_QUOTA: "quota used up",
    STATUS_NOT_COMMITTED: "object not committed",
    STATUS_RANGE_INVALID: "range invalid",
    STATUS_STORAGE_FULL: "storage full",
    STATUS_OBJECT_STATE: "object or transfer is in another state",
    STATUS_NOT_OWNER: "not the owner",
    STATUS_GENERATION_CONFLICT: "generation conflict",
    STATUS_TRANSFER_CONFLICT: "transfer id was used with other parameters",
    STATUS_RETENTION_UNAVAILABLE: "retention unavailable",
    STATUS_BLACKLISTED: "sender is blacklisted",
    STATUS_CLASS_REJECTED: "sender class is rejected",
    STATUS_ALL_FAIL: "all coins failed",
    STATUS_MIXED: "some coins failed",
    STATUS_POLL_TIMEOUT: "long poll timed out",
    STATUS_INTERNAL: "internal error",
    STATUS_NETWORK: "network error",
    STATUS_MEMORY: "node is out of memory",
    STATUS_INVALID_ROUTING: "routing byte invalid",
}


def status_text(status: int) -> str:
    """The meaning of an answer's status byte, for messages."""
    return STATUS_TEXT.get(status, "unknown status")


def duration_code(weeks: int) -> int:
    """The wire's storage duration code for a number of weeks (C.2)."""
    for code, limit in enumerate((0, 1, 4, 12, 26, 52)):
        if weeks <= limit:
            return code
    return 255
