"""What is answered about wallets, costs and payments."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from qmail_core.engine.balances import Affordable, Balance
from qmail_core.engine.identity import IdentityHealth
from qmail_core.model import Costs, PoolStatus, Powned

_NAMES = ("bit", "byte", "kilo", "mega", "giga", "epic")


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


class BillList(Struct, kw_only=True):
    command: str = "wallet-receipts"
    success: bool = True
    status: str = "success"
    files: list[str]
    count: int


class BillAnswer(Struct, kw_only=True):
    command: str = "wallet-receipts"
    success: bool = True
    status: str = "success"
    content: str
    filename: str
    size: int


class BillRow(Struct, kw_only=True):
    paid_for: str  # storage is `upload`, a recipient's fee `inbox`
    amount_cc: int
    consumed_at: int


class Bill(Struct, kw_only=True):
    """The content of a receipt of money."""

    file_guid: str
    wallet_name: str
    subject: str
    total_cc: int
    payments: list[BillRow]


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
