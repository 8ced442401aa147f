"""Posting to URLs that somebody typed, without becoming their hands inside this network.

A name is resolved once, every address it has must be a public one, and the connection goes to the address that was
looked at; TLS still checks the name. No redirects, no proxies, ten seconds, and little of the answer is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from qmail_core.config import EngineConfig
from qmail_core.errors import ConnectError, Forbidden, NodeTimeout, TransportError, UsageError

_TIMEOUT = 10.0  # seconds for everything
_MOST = 64 * 1024  # bytes of an answer
_PORTS = {"http": 80, "https": 443}
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class WebPoster:
    """A Poster; `loopback` allows this machine as well, for tests."""

    def __init__(self, *, loopback: bool = False) -> None:
        self._loopback = loopback

    def check(self, url: str) -> None:
        """See Poster."""
        place_of(url)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """See Poster."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await self._post(url, body, headers)
        except TimeoutError:
            raise NodeTimeout("no answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransportError(f"{type(error).__name__}") from None

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        scheme, host, port = place_of(url)
        address = await self._resolve(host, port)
        name = host if _PORTS[scheme] == port else f"{host}:{port}"
        target = httpx.URL(url).copy_with(host=str(address))
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=_TIMEOUT) as client,
            client.stream(
                "POST",
                target,
                content=body,
                headers={**headers, "Host": name, "Accept-Encoding": "identity"},
                extensions={"sni_hostname": host},
            ) as answer,
        ):
            size = 0
            async for chunk in answer.aiter_raw(4096):
                size += len(chunk)
                if size > _MOST:
                    break
            return answer.status_code

    async def _resolve(self, host: str, port: int) -> IpAddress:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            raise ConnectError("the name of the server is not known") from None
        addresses = [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in found]
        if not addresses or not all(is_public(address, loopback=self._loopback) for address in addresses):
            raise Forbidden("the server is not at a public address")
        return addresses[0]


def poster_of(config: EngineConfig) -> WebPoster | None:
    """The poster of an engine's settings; None: webhooks are switched off."""
    return WebPoster(loopback=config.webhooks_loopback) if config.webhooks else None


def place_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL one may post to; UsageError if it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError("must be a valid uri") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UsageError("must be a valid uri with a scheme matching the http|https pattern")
    if parts.username is not None or parts.password is not None:
        raise UsageError("must not hold a user name or a password")
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]


def is_public(address: IpAddress, *, loopback: bool = False) -> bool:
    """Whether an address is one of the public network; addresses within addresses never are."""
    if loopback and address.is_loopback:
        return True
    if address.version == 6 and (address.ipv4_mapped or address.sixtofour or address.teredo or address.is_site_local):
        return False
    if any(address in network for network in _NAT64):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
