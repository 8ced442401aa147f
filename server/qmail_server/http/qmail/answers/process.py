"""What is answered about this process and the servers it knows."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType, field

from qmail_core.engine.beacon import BeaconState
from qmail_core.engine.network import Echo, ServerState


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
        latency_ms=milliseconds(state.latency),
    )


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
                latency_ms=milliseconds(row.seconds),
                error=row.error or UNSET,
            )
            for row in rows
        ],
        total_available=answered,
        total_error=len(rows) - answered - late,
        total_timeout=late,
        array_usable=answered >= needed,
    )


def milliseconds(seconds: float) -> float:
    """As answers give it."""
    return round(seconds * 1000, 1)
