"""The wire of the `local` and `raida` buckets and of the routes around them (see `schema.py` for the rules)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType, field

from qmail_core.engine.balances import Affordable, Balance
from qmail_core.engine.beacon import BeaconState
from qmail_core.engine.identity import IdentityHealth
from qmail_core.engine.network import Echo, Explained, Piece, ServerState
from qmail_core.model import Address, Contact, Costs, PoolStatus, Powned, Receipt, TaskState
from qmail_server.http.qmail.schema import class_of

_NAMES = ("bit", "byte", "kilo", "mega", "giga", "epic")


class HasId(Struct, kw_only=True):
    command: str = "has-id"
    success: bool = True
    status: str = "success"
    has_id: bool = True


class BeaconPart(Struct, kw_only=True):
    running: bool
    last_tell_timestamp: int
    backoff_seconds: int
    consecutive_errors: int


class BeaconAnswer(Struct, kw_only=True):
    command: str = "beacon-control"
    success: bool = True
    status: str = "success"
    running: bool
    last_tell_timestamp: int
    backoff_seconds: int
    consecutive_errors: int


class DatabasePart(Struct, kw_only=True):
    open: bool = True
    inbox_count: int
    sent_count: int
    trash_count: int
    unread_count: int
    contact_count: int


class ServerPart(Struct, kw_only=True):
    """Documented members, then those clients read."""

    raida_index: int
    server_id: int
    ip: str
    ip_address: str
    port: int
    region: str = ""
    hostname: str
    is_available: bool
    latency_ms: float


class ServersPart(Struct, kw_only=True):
    count: int
    data_stripes: int
    parity_stripes: int
    available: int
    items: list[ServerPart] = field(name="list")


class StatusAnswer(Struct, kw_only=True):
    command: str = "status"
    success: bool = True
    status: str = "success"
    beacon: BeaconPart
    database: DatabasePart
    servers: ServersPart


class FeeAnswer(Struct, kw_only=True):
    command: str = "inbox-fee"
    success: bool = True
    status: str = "success"
    total_cost_cc: int
    storage_cost_cc: int
    inbox_cost_cc: int
    files: int
    servers: int
    recipients: int


class CanSend(Struct, kw_only=True):
    command: str = "can-send"
    success: bool = True
    status: str = "success"
    can_send: bool
    reason: str
    message: str
    required_upload_lockers: int
    required_inbox_fee: int
    wallet_required: int
    wallet_balance: int
    combined_wallet_value: int


class FromSn(Struct, kw_only=True):
    command: str = "address-from-sn"
    success: bool = True
    status: str = "success"
    serial_number: int
    sn: int
    email: str
    first_name: str
    last_name: str
    description: str
    class_name: str
    class_: str = field(name="class")
    denomination: int
    from_directory: bool


class Base32(Struct, kw_only=True):
    command: str = "base32"
    success: bool = True
    status: str = "success"
    mode: str
    decimal: int
    base32: str


class Pool(Struct, kw_only=True):
    command: str = "locker-pool"
    success: bool = True
    status: str = "success"
    upload_available: int
    inbox_fee_available: int
    wallet_balance: int
    low_balance: bool
    locked_value: int
    locked_available_value: int
    locked_reserved_value: int
    locked_limbo_value: int
    locked_upload_value: int
    locked_inbox_fee_value: int
    combined_wallet_value: int


class Folders(Struct, kw_only=True):
    bank_coins: int
    bank_value: int
    fracked_coins: int = 0
    fracked_value: int = 0
    limbo_coins: int
    limbo_value: int


class BalanceAnswer(Struct, kw_only=True):
    command: str = "wallet-balance"
    success: bool = True
    status: str = "success"
    wallet_path: str
    wallet_name: str
    total_value: int
    total_notes: int
    total_coins: int
    bank_value: int
    bank_notes: int
    fracked_value: int = 0
    fracked_notes: int = 0
    limbo_value: int
    limbo_notes: int
    balance_reconciled: bool = True
    log_balance: int
    folders: Folders
    denominations: dict[str, int]


class ChangeAnswer(Struct, kw_only=True):
    command: str = "prepare-change"
    success: bool = True
    status: str = "success"
    wallet_path: str
    wallet_name: str
    coins_broken: int
    total_value: int
    denominations: dict[str, int]
    message: str


class HealAnswer(Struct, kw_only=True):
    command: str = "heal-identity"
    success: bool = True
    status: str = "success"
    identity_health: str
    coins_processed: int = 1
    coins_healed: int
    coins_still_fracked: int
    coins_counterfeit: int
    graded_to_bank: int
    graded_to_fracked: int


class ClaimAnswer(Struct, kw_only=True):
    command: str = "payments-claim"
    success: bool = True
    email_id: str
    status: str
    message: str
    status_persisted: bool = True
    coins_found: int = 0
    coins_saved: int = 0
    total_value: int = 0
    graded_to_bank: int = 0
    graded_to_fracked: int = 0


class ImportAnswer(Struct, kw_only=True):
    command: str = "import-credentials"
    success: bool = True
    status: str = "success"
    operation: str = "import_credentials"
    coins_found: int
    coins_saved: int
    total_value: int
    wallet_path: str
    destination_folder: str = "Mail"
    raida_success: bool = True
    serial_number: int
    denomination: int
    email_address: str
    pretty_address: str
    registered: bool = True
    needs_healing: bool = False


class EchoPart(Struct, kw_only=True):
    index: int
    status: str
    latency_ms: float
    error: str | UnsetType = UNSET


class EchoAnswer(Struct, kw_only=True):
    command: str = "echo"
    success: bool = True
    status: str = "success"
    raidas: list[EchoPart]
    total_available: int
    total_error: int
    total_timeout: int
    array_usable: bool


class VersionAnswer(Struct, kw_only=True):
    command: str = "version-check"
    success: bool = True
    status: str = "success"
    update_available: bool = False
    current_version: str
    latest_version: str
    message: str = "Updates are not looked for"
    download_url_windows: str = ""
    download_url_mac: str = ""
    download_url_linux: str = ""


class SyncAnswer(Struct, kw_only=True):
    command: str = "sync"
    success: bool = True
    status: str = "success"
    message: str = "Contacts and servers are up to date"
    users_synced: int
    servers_synced: int
    timestamp: int


class TaskItem(Struct, kw_only=True):
    id: str
    task_id: str
    status: str
    progress: int
    message: str
    started_at: float
    finished_at: float


class TaskList(Struct, kw_only=True):
    command: str = "task-list"
    success: bool = True
    status: str = "success"
    count: int
    total: int
    tasks: list[TaskItem]


class TaskCancelled(Struct, kw_only=True):
    command: str = "task-cancel"
    success: bool = True
    task_id: str
    id: str
    status: str
    message: str


class ReceiptItem(Struct, kw_only=True):
    file_guid: str
    status: str
    upload_status: str
    tell_status: str
    subject: str
    recipients: list[str]
    created_at: int
    updated_at: int
    survives_loss_of: int


class ReceiptList(Struct, kw_only=True):
    command: str = "receipts-list"
    success: bool = True
    status: str = "success"
    count: int
    total: int
    limit: int
    offset: int
    receipts: list[ReceiptItem]


class HoldCancelled(Struct, kw_only=True):
    command: str = "hold-cancel"
    success: bool = True
    status: str = "success"
    message: str = "Nobody is told of this mail; it stays stored"
    file_guid: str


class StripePart(Struct, kw_only=True):
    stripe_index: int
    server_id: int
    stripe_type: str
    is_parity: bool
    status: str
    answers: bool
    latency_ms: float
    error: str | UnsetType = UNSET


class ExplainAnswer(Struct, kw_only=True):
    command: str = "qmail-explain"
    success: bool = True
    status: str = "success"
    file_guid: str
    sent_from_here: bool
    profile: str
    data_stripes: int
    parity_stripes: int
    files: int
    expires_at: int | None
    stored: int
    reachable: int
    survives_loss_of: int
    readable: bool
    message: str
    stripes: list[StripePart]


class OlderMessage(Struct, kw_only=True):
    id: str
    timestamp: int
    size: int


class OlderPing(Struct, kw_only=True):
    success: bool = True
    status: str = "ok"
    timestamp: int
    beacon_status: str
    has_mail: bool
    message_count: int
    messages: list[OlderMessage]


# ------------------------------------------------------------------------------------------------------------------
# Engine values to Structs


def beacon(state: BeaconState) -> BeaconPart:
    """The watch of the beacons."""
    return BeaconPart(
        running=state.running,
        last_tell_timestamp=state.last_tell,
        backoff_seconds=state.backoff,
        consecutive_errors=state.errors,
    )


def beacon_answer(state: BeaconState) -> BeaconAnswer:
    """The same as an answer of its own."""
    part = beacon(state)
    return BeaconAnswer(**{name: getattr(part, name) for name in part.__struct_fields__})


def server(state: ServerState) -> ServerPart:
    """One server."""
    return ServerPart(
        raida_index=state.index,
        server_id=state.index,
        ip=state.host,
        ip_address=state.host,
        port=state.port,
        hostname=f"raida{state.index}",
        is_available=state.available,
        latency_ms=_milliseconds(state.latency),
    )


def fee(costs: Costs, files: int, servers: int, recipients: int) -> FeeAnswer:
    """What a send costs."""
    return FeeAnswer(
        total_cost_cc=costs.total,
        storage_cost_cc=costs.storage,
        inbox_cost_cc=costs.inbox,
        files=files,
        servers=servers,
        recipients=recipients,
    )


def can_send(need: Affordable) -> CanSend:
    """Whether a send can be paid."""
    lacking = f"The wallet lacks {need.from_wallet - need.pool.wallet_balance} CC"
    return CanSend(
        can_send=need.ok,
        reason="ok" if need.ok else "insufficient_balance",
        message="Ready to send" if need.ok else lacking,
        required_upload_lockers=need.upload_lockers,
        required_inbox_fee=need.inbox_fee,
        wallet_required=need.from_wallet,
        wallet_balance=need.pool.wallet_balance,
        combined_wallet_value=need.pool.spendable,
    )


def from_sn(address: Address, text: str, contact: Contact | None) -> FromSn:
    """A mailbox by its number, with what is known of its owner."""
    name = class_of(address)
    return FromSn(
        serial_number=address.serial,
        sn=address.serial,
        email=text,
        first_name=contact.first_name if contact else "",
        last_name=contact.last_name if contact else "",
        description=contact.description if contact else "",
        class_name=name,
        class_=name,
        denomination=address.denomination,
        from_directory=contact is not None,
    )


def pool(status: PoolStatus) -> Pool:
    """The lockers."""
    return Pool(
        upload_available=status.upload_available,
        inbox_fee_available=status.inbox_fee_available,
        wallet_balance=status.wallet_balance,
        low_balance=status.low_balance,
        locked_value=status.locked_value,
        locked_available_value=status.available_value,
        locked_reserved_value=status.reserved_value,
        locked_limbo_value=status.limbo_value,
        locked_upload_value=status.upload_value,
        locked_inbox_fee_value=status.inbox_fee_value,
        combined_wallet_value=status.spendable,
    )


def balance(path: str, name: str, held: Balance) -> BalanceAnswer:
    """What a wallet holds, in both documented shapes."""
    notes = sum(held.notes.values())
    return BalanceAnswer(
        wallet_path=path,
        wallet_name=name,
        total_value=held.value,
        total_notes=notes,
        total_coins=notes,
        bank_value=held.value,
        bank_notes=notes,
        limbo_value=held.limbo_value,
        limbo_notes=held.limbo_notes,
        log_balance=held.value,
        folders=Folders(
            bank_coins=notes, bank_value=held.value, limbo_coins=held.limbo_notes, limbo_value=held.limbo_value
        ),
        denominations=denominations(held.notes),
    )


def denominations(notes: Mapping[int, int]) -> dict[str, int]:
    """How many coins, by what a denomination is called or is worth."""
    return {_NAMES[code] if 0 <= code < len(_NAMES) else f"1e{code}": count for code, count in notes.items()}


def healed(health: IdentityHealth) -> HealAnswer:
    """How the identity coin is."""
    return HealAnswer(
        identity_health=health.word,
        coins_healed=int(health.healed),
        coins_still_fracked=int(health.word == "still_fracked"),
        coins_counterfeit=int(health.word == "counterfeit"),
        graded_to_bank=int(health.word == "healthy"),
        graded_to_fracked=int(health.word == "still_fracked"),
    )


def claimed(email_id: bytes, taken: Powned | None) -> ClaimAnswer:
    """What came of a claim; None: it was done before."""
    if taken is None:
        text = "Payment was claimed before"
        return ClaimAnswer(email_id=email_id.hex(), status="already_claimed", message=text)
    return ClaimAnswer(
        email_id=email_id.hex(),
        status="claimed",
        message="Payment claimed",
        coins_found=len(taken.accepted) + len(taken.rejected) + len(taken.unclear),
        coins_saved=len(taken.accepted),
        total_value=worth(taken),
        graded_to_bank=len(taken.accepted),
        graded_to_fracked=len(taken.rejected),
    )


def imported(taken: Powned, path: str, text: str) -> ImportAnswer:
    """An identity coin that came out of a locker; `text` is its address."""
    first = taken.accepted[0]
    return ImportAnswer(
        coins_found=len(taken.accepted) + len(taken.rejected) + len(taken.unclear),
        coins_saved=len(taken.accepted),
        total_value=worth(taken),
        wallet_path=path,
        serial_number=first.serial,
        denomination=first.denomination,
        email_address=text,
        pretty_address=text,
    )


def worth(taken: Powned) -> int:
    """Whole CloudCoins that were taken."""
    return sum(int(10**address.denomination) for address in taken.accepted)


def echo(found: Mapping[int, Echo], needed: int) -> EchoAnswer:
    """What an echo of all servers came to."""
    rows = [found[node] for node in sorted(found)]
    answered = sum(not row.error for row in rows)
    late = sum(row.timed_out for row in rows)
    return EchoAnswer(
        raidas=[
            EchoPart(
                index=row.index,
                status="Timeout" if row.timed_out else "Error" if row.error else "Ready",
                latency_ms=_milliseconds(row.seconds),
                error=row.error or UNSET,
            )
            for row in rows
        ],
        total_available=answered,
        total_error=len(rows) - answered - late,
        total_timeout=late,
        array_usable=answered >= needed,
    )


def task_item(state: TaskState) -> TaskItem:
    """One row of the tasks."""
    return TaskItem(
        id=state.id,
        task_id=state.id,
        status=state.status,
        progress=state.progress,
        message=state.message,
        started_at=state.started_at,
        finished_at=state.finished_at,
    )


def receipt_item(receipt: Receipt) -> ReceiptItem:
    """One row of the receipts."""
    up, tell = receipt.upload, receipt.tell
    return ReceiptItem(
        file_guid=receipt.file_guid,
        status=tell.status if up.status == "success" else up.status,
        upload_status=up.status,
        tell_status=tell.status,
        subject=up.subject,
        recipients=[row.address for row in tell.recipients],
        created_at=receipt.created_at,
        updated_at=receipt.updated_at,
        survives_loss_of=up.survives_loss_of,
    )


def explained(found: Explained) -> ExplainAnswer:
    """Where a mail lies."""
    if found.survives >= 0:
        text = f"Readable; {found.survives} more of the servers that answer may be lost"
    else:
        text = f"Not readable now: {-found.survives} more servers are needed"
    return ExplainAnswer(
        file_guid=found.guid.hex(),
        sent_from_here=found.sent,
        profile=found.striping.profile.name.lower(),
        data_stripes=found.striping.k,
        parity_stripes=found.striping.m,
        files=found.files,
        expires_at=found.expires_at or None,
        stored=sum(piece.stored for piece in found.pieces),
        reachable=found.reachable,
        survives_loss_of=max(0, found.survives),
        readable=found.survives >= 0,
        message=text,
        stripes=list(map(_stripe, found.pieces)),
    )


def _stripe(piece: Piece) -> StripePart:
    return StripePart(
        stripe_index=piece.stripe,
        server_id=piece.server.index,
        stripe_type="parity" if piece.parity else "data",
        is_parity=piece.parity,
        status="ok" if piece.stored else "failed",
        answers=not piece.server.error,
        latency_ms=_milliseconds(piece.server.seconds),
        error=piece.server.error or UNSET,
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
