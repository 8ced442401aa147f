"""Verbs of an operator: run the nodes of a network, create its money, run an engine against it. No logic."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

import typer

from qmail_core.codec.address import WORDS, parse, render
from qmail_core.config import EngineConfig, beacons_for, striping_for
from qmail_core.errors import AddressError
from qmail_core.model import Address, Profile, Striping
from qmail_core.raida.node import Policy
from qmail_server import logs
from qmail_server.hosts import MAX_NODES, Host, load_hosts
from qmail_server.terminal import failures

Data = Annotated[Path, typer.Option("--data", file_okay=False, metavar="DIR", help="Where everything is kept.")]
NodeData = Annotated[
    Path, typer.Option("--data", file_okay=False, metavar="DIR", help="Node n keeps what it knows in DIR/NN.")
]
Nodes = Annotated[int, typer.Option("--nodes", min=1, max=MAX_NODES, metavar="N", help="How many the network has.")]
Hosts = Annotated[Path | None, typer.Option("--hosts", dir_okay=False, metavar="FILE", help="One IP:PORT per line.")]
ReadyFd = Annotated[
    int, typer.Option("--ready-fd", min=0, metavar="N", help="Where the line goes that says it serves.")
]
LogLevel = Annotated[str, typer.Option("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="One JSON object per log line.")]

_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


def raida(
    data: NodeData,
    nodes: Nodes = 25,
    base_port: Annotated[
        int, typer.Option("--base-port", min=1, max=65535, metavar="N", help="Node n listens on this + n.")
    ] = 50000,
    host: Annotated[str | None, typer.Option("--host", metavar="IP", help="Address to listen on.")] = None,
    hosts: Hosts = None,
    node: Annotated[
        list[int] | None, typer.Option("--node", min=0, metavar="N", help="Run only this one; repeatable.")
    ] = None,
    storage_fee: Annotated[
        int, typer.Option("--storage-fee", min=0, metavar="N", help="CC per mail and per attachment.")
    ] = 1,
    inbox_fee: Annotated[
        int, typer.Option("--inbox-fee", min=0, metavar="N", help="CC for mailboxes without a rule.")
    ] = 10,
    poll_limit: Annotated[
        float, typer.Option("--poll-limit", min=1, metavar="SECONDS", help="How long a ping is parked.")
    ] = 600.0,
    legacy_commands: Annotated[
        bool, typer.Option("--legacy-commands", help="Answer the older mail commands 60 to 64.")
    ] = False,
    ready_fd: ReadyFd = 1,
    log_level: LogLevel = "INFO",
    log_json: LogJson = False,
) -> None:
    """Run storage nodes: a whole network, or some nodes of one, until SIGTERM."""
    from qmail_server.service import RaidaOptions, run_raida  # heavy, and no client verb needs it

    with failures():
        _logs(log_level, log_json)
        network = _network(hosts, nodes, base_port, host)
        chosen = tuple(dict.fromkeys(node)) if node else tuple(range(len(network)))
        if max(chosen) >= len(network):
            raise typer.BadParameter(f"node {max(chosen)} does not exist in a network of {len(network)}")
        policy = Policy(
            storage_fee=storage_fee, inbox_fee=inbox_fee, poll_limit=poll_limit, legacy_commands=legacy_commands
        )
        run_raida(
            RaidaOptions(data=data, hosts=network, nodes=chosen, listen=host, policy=policy, ready_fd=ready_fd),
        )


def mint(
    data: NodeData,
    out: Annotated[
        Path, typer.Option("--out", dir_okay=False, metavar="FILE", help="The purse; must not exist, gets mode 0600.")
    ],
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDRESS", help="The mailbox, such as 51.254@bit.")
    ] = None,
    nodes: Nodes = 25,
    ones: Annotated[int, typer.Option("--ones", min=0, max=100_000, metavar="N", help="Coins of 1 CC.")] = 2500,
    tens: Annotated[int, typer.Option("--tens", min=0, max=100_000, metavar="N", help="Coins of 10 CC.")] = 50,
    again: Annotated[bool, typer.Option("--again", help="Finish a mint that was cut short, from its file.")] = False,
) -> None:
    """Create a mailbox and its money at nodes that do not run, and write both to a file for `qmail serve`."""
    from qmail_server import service  # heavy, and no client verb needs it

    if (address is None) != again:
        raise typer.BadParameter("give either --address or --again")
    with failures():
        if address is None:
            purse = service.record(data, out)
        else:
            purse = service.mint(data, nodes, _mailbox(address), ones, tens, out)
        worth = sum(coin.value for coin in purse.coins)
        typer.echo(f"{render(purse.identity.address)} and {worth} CC, known to {purse.nodes} nodes, are in {out}")


def serve(
    data: Data,
    hosts: Annotated[Path, typer.Option("--hosts", dir_okay=False, metavar="FILE", help="One IP:PORT per line.")],
    purse: Annotated[Path | None, typer.Option("--purse", metavar="FILE", help="Made by mint; first start.")] = None,
    port: Annotated[
        int,
        # event streams listen a hundred above
        typer.Option("--port", min=1, max=65535 - 100, metavar="N", help="Port of the node API; events are 100 above."),
    ] = 8080,
    striping: Annotated[str | None, typer.Option("--striping", metavar="K+M", help="Default: by the nodes.")] = None,
    profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="sealed, rs or interop.")] = "sealed",
    beacons: Annotated[str | None, typer.Option("--beacons", metavar="A,B", help="Default: by the nodes.")] = None,
    encryption: Annotated[
        int, typer.Option("--encryption", metavar="N", help="4 between our own nodes, 1 for others.")
    ] = 4,
    udp: Annotated[bool, typer.Option("--udp", help="Send small requests as datagrams first.")] = False,
    storage_fee: Annotated[
        int, typer.Option("--storage-fee", min=0, metavar="N", help="CC per server for each file.")
    ] = 1,
    inbox_fee: Annotated[int, typer.Option("--inbox-fee", min=0, metavar="N", help="CC per recipient.")] = 10,
    allow_path: Annotated[
        list[Path] | None,
        typer.Option(
            "--allow-path",
            exists=True,
            file_okay=False,
            metavar="DIR",
            help="Files may be sent from there and objects saved there by path; repeatable.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option("--allow-origin", metavar="URL", help="A foreign web page that may use the API; repeatable."),
    ] = None,
    compat_open: Annotated[
        bool, typer.Option("--compat-open", help="No token: every program of this machine may send and spend.")
    ] = False,
    domain: Annotated[
        str, typer.Option("--domain", metavar="NAME", help="Of users that are made without an address.")
    ] = "localhost",
    smtp_relay: Annotated[str, typer.Option("--smtp-relay", metavar="HOST:PORT", help="Takes mail for outside.")] = "",
    smtp_login: Annotated[str, typer.Option("--smtp-login", metavar="FILE", help="user:password; mode 0600.")] = "",
    smtp_plain: Annotated[bool, typer.Option("--smtp-plain", help="A relay without TLS.")] = False,
    read_receipts: Annotated[bool, typer.Option(help="Tell senders that their mail was opened.")] = True,
    file_quota: Annotated[int, typer.Option("--file-quota", min=0, help="MiB of files a user may keep.")] = 0,
    lmtp: Annotated[str, typer.Option("--lmtp", metavar="PLACE", help="HOST:PORT or path where mail comes in.")] = "",
    webhooks: Annotated[bool, typer.Option("--webhooks", help="Tell webhooks of new mail.")] = False,
    ready_fd: ReadyFd = 1,
    log_level: LogLevel = "INFO",
    log_json: LogJson = False,
) -> None:
    """Run one mailbox against a network, with its node API on a loopback port, until SIGTERM."""
    from qmail_server.service import ServeOptions, run_engine  # heavy, and no client verb needs it

    with failures():
        _logs(log_level, log_json)
        network = load_hosts(hosts)
        config = EngineConfig(
            data=str(data.resolve()),
            striping=_striping(striping, profile, len(network)),
            encryption=encryption,
            beacons=_beacons(beacons, len(network)),
            storage_fee=storage_fee,
            inbox_fee=inbox_fee,
            roots=tuple(str(folder.resolve()) for folder in allow_path or ()),
            domain=_domain(domain),
            read_receipts=read_receipts,
            file_quota=file_quota << 20,
            smtp_relay=_relay(smtp_relay, smtp_login, plain=smtp_plain),
            smtp_login=smtp_login,
            smtp_starttls=not smtp_plain,
            webhooks=webhooks,
            udp=udp,
        )
        options = ServeOptions(
            config=config,
            hosts=network,
            purse=purse,
            port=port,
            origins=tuple(map(_origin, allow_origin or ())),
            compat_open=compat_open,
            lmtp=lmtp,
            ready_fd=ready_fd,
        )
        run_engine(options)


def _logs(level: str, json: bool) -> None:
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"unknown log level {level}: DEBUG, INFO, WARNING or ERROR")
    logs.configure(level, json=json)


def _network(hosts: Path | None, nodes: int, base_port: int, host: str | None) -> tuple[Host, ...]:
    if host is not None:
        _ip(host)
    if hosts is not None:
        return load_hosts(hosts)
    if base_port + nodes - 1 > 65535:
        raise typer.BadParameter(f"{nodes} nodes from port {base_port} on pass port 65535")
    return tuple((host or "127.0.0.1", base_port + node) for node in range(nodes))


def _mailbox(text: str) -> Address:
    try:
        return parse(text, allow_bare=False)
    except AddressError as error:
        raise typer.BadParameter(f"--address {text}: {error.message} One looks like 51.254@bit.") from None


def _ip(text: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise typer.BadParameter(f"--host {text} is not an IPv4 address") from None


def _origin(text: str) -> str:
    """What a browser sends as `Origin`: anything else would be listed and never match."""
    if (found := _ORIGIN.fullmatch(text.lower())) is None or int(found["port"] or 0) > 65535:
        raise typer.BadParameter(f"--allow-origin {text} is not of the form http://localhost:5173, without a path")
    usual = {"http": 80, "https": 443}[found["scheme"]]  # browsers leave it out
    port = "" if found["port"] is None or int(found["port"]) == usual else f":{int(found['port'])}"
    return f"{found['scheme']}://{found['host']}{port}"


def _domain(text: str) -> str:
    from qmail_core.engine.accounts.rules import normal_domain  # heavy, as in `serve`

    if text in WORDS:
        raise typer.BadParameter(f"--domain {text} means mailboxes of the network")
    if normal_domain(text) is None:
        raise typer.BadParameter(f"--domain {text!r} is no host name, such as mail.example")
    return text


def _relay(place: str, login: str, *, plain: bool) -> str:
    from qmail_core.transport.smtp import LOCAL  # heavy, as in `serve`

    host, _, port = place.rpartition(":")
    if login and not place:
        raise typer.BadParameter("--smtp-login is for a relay; name it with --smtp-relay")
    if place and not (host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise typer.BadParameter(f"--smtp-relay {place} is not of the form HOST:PORT")
    if login and plain and host.strip("[]") not in LOCAL:
        raise typer.BadParameter("--smtp-plain: a password is not sent to another machine without TLS")
    return place


def _striping(text: str | None, profile: str, nodes: int) -> Striping:
    kinds = {kind.name.lower(): kind for kind in Profile}
    if profile not in kinds:
        raise typer.BadParameter(f"profile {profile} is none of {', '.join(kinds)}")
    if text is None:
        usual = striping_for(nodes)
        # the only parity that `interop` has is one server
        k, m = (usual.n - 1, 1) if kinds[profile] == Profile.INTEROP else (usual.k, usual.m)
        return Striping(kinds[profile], k, m)
    k, m = _pair(text, "+", "--striping", "20+5")
    return Striping(kinds[profile], k, m)


def _beacons(text: str | None, nodes: int) -> tuple[int, int]:
    return beacons_for(nodes) if text is None else _pair(text, ",", "--beacons", "11,14")


def _pair(text: str, sign: str, option: str, example: str) -> tuple[int, int]:
    if not (found := re.fullmatch(rf"([0-9]{{1,3}}){re.escape(sign)}([0-9]{{1,3}})", text)):
        raise typer.BadParameter(f"{option} {text} is not of the form {example}")
    return int(found[1]), int(found[2])
