"""The one exception hierarchy.

Everything this package raises on purpose is a QMailError. Each class carries

code      a stable word for machines ("quorum_lost"); never translated, never re-used for something else
hint      the HTTP status a surface answers by default; surfaces may override it in their one table
message   a sentence that names what is wrong and, where there is one, what to do about it

Two families matter to a reader: a `LocalProtocolError` means we were about to send nonsense (our bug or our caller's),
a `RemoteProtocolError` means a peer sent nonsense. Secrets (authenticity numbers, locker codes) never enter a message.
"""

from __future__ import annotations

from collections.abc import Mapping


class QMailError(Exception):
    """Base of every error this package raises on purpose."""

    code = "error"
    hint = 500

    def __init__(self, message: str, *, hint: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint


class UsageError(QMailError, ValueError):
    """The caller broke a rule of the interface."""

    code = "usage"
    hint = 400


class AddressError(UsageError):
    """A text is not an address, or a recipient cannot be resolved."""

    code = "bad_address"


class ConfigError(UsageError):
    """A setting is missing, unknown or out of range."""

    code = "bad_config"


class PathRefused(UsageError):
    """A path is missing, unreadable or outside the allowed roots; deliberately one error for all three."""

    code = "path_refused"


class QuotaError(UsageError):
    """What is to be stored does not fit into what its owner may use."""

    code = "over_quota"
    hint = 413


class PaymentError(UsageError):
    """The wallet cannot pay; carries both sides of the sum, in whole CloudCoins."""

    code = "insufficient_balance"
    hint = 402

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class ProtocolError(QMailError):
    """Abstract: bytes that do not obey the protocol."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """We were about to send nonsense."""

    code = "local_protocol"


class RemoteProtocolError(ProtocolError):
    """A peer, or a document from one, is nonsense."""

    code = "remote_protocol"
    hint = 502


class NodeError(QMailError):
    """A node understood the request and refused it; `status` is its answer byte (codec/consts.py)."""

    code = "node_refused"
    hint = 502

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TransportError(QMailError):
    """Bytes did not reach a node, or its answer did not reach us."""

    code = "transport"
    hint = 502


class ConnectError(TransportError):
    """No connection, or the connection broke before a whole answer came.

    `stale` is true when the request may be made once more: a kept connection turned out to be closed before one byte
    came back, so that the node has most likely never seen it, or a datagram got no answer.
    """

    code = "connect"
    stale = False


class NodeTimeout(TransportError):
    """No whole answer before the deadline."""

    code = "timeout"


class QuorumError(QMailError):
    """Too few nodes did what was asked; `failures` maps node index to its error.

    When a send ends so, `guid`, `files_completed` and `files_failed` say how far it came.
    """

    code = "quorum_lost"
    hint = 503

    def __init__(self, message: str, failures: Mapping[int, Exception]) -> None:
        super().__init__(message)
        self.failures = dict(failures)
        self.guid = b""
        self.files_completed = 0
        self.files_failed = 0


class TellError(QMailError):
    """Every file is stored, but no beacon took the announcement."""

    code = "tell_failed"
    hint = 502

    def __init__(self, message: str, *, guid: bytes = b"", files_uploaded: int = 0) -> None:
        super().__init__(message)
        self.guid = guid
        self.files_uploaded = files_uploaded


class Forbidden(QMailError):
    """What was asked for exists, but not for this question."""

    code = "forbidden"
    hint = 403


class Cancelled(QMailError):
    """The user took back what they had asked for, in time."""

    code = "cancelled"
    hint = 409


class ErasureError(QMailError):
    """An object cannot be split or rebuilt: too few stripes, or stripes that contradict each other."""

    code = "erasure"


class StoreError(QMailError):
    """The store could not do what was asked."""

    code = "store"


class NotFound(StoreError):
    """No such row."""

    code = "not_found"
    hint = 404


class Conflict(StoreError):
    """The row exists, or is in a state that forbids the change."""

    code = "conflict"
    hint = 409


class Gone(StoreError):
    """The row existed and is over; the message says why."""

    code = "gone"
    hint = 410


class Tampered(StoreError):
    """Stored bytes are not the bytes that were stored."""

    code = "tampered"


class StoreUnavailable(StoreError):
    """The store is closed or its medium failed."""

    code = "store_unavailable"
    hint = 503


class StoreFull(StoreUnavailable):
    """There is no room on the medium."""

    code = "store_full"
    hint = 507


# ------------------------------------------------------------------------------------------------------------------
# Accounts. The codes are words of the mailbox API's interface, and so are the messages where they are raised.


class InputInvalid(UsageError):
    """Parameters break rules; `details` has a sentence for each, the message all of them."""

    code = "InputValidationError"

    def __init__(self, details: Mapping[str, str]) -> None:
        super().__init__(". ".join(details.values()))
        self.details = dict(details)


class NothingChanged(UsageError):
    """A change that names nothing to be changed."""

    code = "NoUpdates"


class ChangeNotAllowed(UsageError):
    """The change would break a rule between things, such as that a user has a main address."""

    code = "ChangeNotAllowed"


class UserNotFound(NotFound):
    """No such user."""

    code = "UserNotFound"


class AddressNotFound(NotFound):
    """The user has no such address."""

    code = "AddressNotFound"


class AspNotFound(NotFound):
    """The user has no such application-specific password."""

    code = "AspNotFound"


class FilterNotFound(NotFound):
    """The user has no such filter."""

    code = "FilterNotFound"


class WebhookNotFound(NotFound):
    """No such webhook."""

    code = "WebhookNotFound"


class UserExists(Conflict):
    """The username is taken."""

    code = "UserExistsError"
    hint = 400


class AddressExists(Conflict):
    """The address is somebody's already."""

    code = "AddressExistsError"
    hint = 400


class UserNotCreated(StoreError):
    """The store failed while a user was made; nothing of it is left."""

    code = "InternalDatabaseError"


class AuthFailed(Forbidden):
    """Not the right password; the message does not say what else was wrong."""

    code = "AuthFailed"


class InvalidAuthScope(AuthFailed):
    """The right password, for something else."""

    code = "InvalidAuthScope"


class InvalidToken(Forbidden):
    """A code of a second factor, or an access token, that opens nothing."""

    code = "InvalidToken"


class TotpEnabled(UsageError):
    """The second factor is on already."""

    code = "TotpEnabled"


class TotpDisabled(UsageError):
    """The second factor is off, or was never set up."""

    code = "TotpDisabled"


class RateLimited(QMailError):
    """Too many failures; `retry_after` seconds must pass."""

    code = "RateLimitedError"
    hint = 429

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many failed attempts, try again in {retry_after} seconds")
        self.retry_after = retry_after


class SendingLimit(RateLimited):
    """The user has written to as many recipients as may be in one day."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.message = "You reached a daily sending limit for your account"
