"""The hosts file of a network: one `IP:PORT` per line, line n is RAIDA n from 0. QMail wire A.1."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from qmail_core.errors import ConfigError

Host = tuple[str, int]
MAX_NODES = 255  # the index of a node is one byte on the wire
MAX_BYTES = 1 << 16


def load_hosts(path: Path) -> tuple[Host, ...]:
    """Read a hosts file; ConfigError names the line that is wrong."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"hosts file {path}: {error.strerror}") from error
    try:
        return parse_hosts(raw.decode("ascii"))
    except UnicodeDecodeError:
        raise ConfigError(f"hosts file {path} is not ASCII text") from None
    except ConfigError as error:
        raise ConfigError(f"hosts file {path}: {error.message}") from None


def parse_hosts(text: str) -> tuple[Host, ...]:
    """Read the lines of a hosts file. Empty lines may only end it: anything else would shift the numbers."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"larger than {MAX_BYTES} bytes")
    lines = text.rstrip().splitlines()
    hosts = tuple(_host(line.strip(), number) for number, line in enumerate(lines, 1))
    if not 1 <= len(hosts) <= MAX_NODES:
        raise ConfigError(f"{len(hosts)} lines; a network has 1 to {MAX_NODES} nodes")
    if len(set(hosts)) < len(hosts):
        raise ConfigError("two lines are the same")
    return hosts


def _host(line: str, number: int) -> Host:
    address, _, port = line.rpartition(":")
    try:
        # IPv4 only: a Tell has no room for anything else (C.6.5)
        host = str(ipaddress.IPv4Address(address))
    except ValueError:
        raise ConfigError(f"line {number} is not IP:PORT with an IPv4 address") from None
    if not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):
        raise ConfigError(f"line {number} has no port between 1 and 65535")
    return host, int(port)


def render_hosts(hosts: Sequence[Host]) -> str:
    """The text of a hosts file."""
    return "".join(f"{host}:{port}\n" for host, port in hosts)
