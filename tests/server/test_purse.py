"""Purse files, and minting: nothing is overwritten, nothing is readable by others, a cut-short mint can be finished."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from qmail_server import service
from qmail_server.purse import Purse, load_purse, save_purse

from qmail_core.errors import ConfigError
from qmail_core.model import Address, Coin
from qmail_core.store.node import NodeStore
from tests.syncs import Syncs

NODES = 3
MONEY = (Coin(Address(0, 7), bytes(48)), Coin(Address(-1, 8), bytes(48)))
PURSE = Purse(NODES, Coin(Address(1, 42), bytes(range(48))), MONEY)


def test_purse_both_ways_and_private(tmp_path: Path) -> None:
    path = tmp_path / "purse"
    save_purse(path, PURSE)
    assert load_purse(path) == PURSE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PURSE.identity.ans.hex() not in repr(PURSE)
    with pytest.raises(ConfigError, match="File exists"):
        save_purse(path, PURSE)


def test_a_purse_is_durable_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    save_purse(tmp_path / "purse", PURSE)
    assert syncs.names == [str(tmp_path / "purse"), str(tmp_path)]


def test_a_purse_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "purse"
    save_purse(path, PURSE)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="mode must be 0600"):
        load_purse(path)


@pytest.mark.parametrize(
    "change",
    [
        {"qmail_purse": 2},
        {"nodes": 4},
        {"nodes": -1},
        {"extra": 1},
        {"identity": {"denomination": 1, "serial": 0, "ans": "00" * 48}},
        {"identity": {"denomination": 200, "serial": 1, "ans": "00" * 48}},
        {"identity": {"denomination": 1, "serial": 1, "ans": "zz" * 48}},
        {"coins": [1]},
    ],
)
def test_a_malformed_purse_is_refused_without_quoting_it(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "purse"
    save_purse(path, PURSE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError) as caught:
        load_purse(path)
    assert "zz" not in caught.value.message
    assert PURSE.identity.ans.hex() not in caught.value.message


def test_other_files_are_not_purses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_purse(tmp_path / "none")
    path = tmp_path / "purse"
    path.write_bytes(b"\xff not JSON")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="is not a purse file"):
        load_purse(path)


def selector(address: Address) -> bytes:
    return address.denomination.to_bytes(1, "big") + address.serial.to_bytes(4, "big")


def known(folder: Path, coin: Coin) -> list[bool]:
    """Which nodes know a coin with its secret."""
    found = []
    for node in range(NODES):
        store = NodeStore(folder / f"{node:02}")
        found.append(store.an(selector(coin.address)) == coin.an(node))
        store.close()
    return found


def test_mint_makes_coins_every_node_knows(tmp_path: Path) -> None:
    first = service.mint(tmp_path, NODES, Address(1, 42), 3, 2, tmp_path / "a.purse")
    second = service.mint(tmp_path, NODES, Address(0, service.FIRST_SERIAL + 3), 2, 0, tmp_path / "b.purse")
    assert first == load_purse(tmp_path / "a.purse")
    assert sum(coin.value for coin in first.coins) == 23
    coins = [first.identity, *first.coins, second.identity, *second.coins]
    assert all(all(known(tmp_path, coin)) for coin in coins)
    assert len({coin.address for coin in coins}) == len(coins)
    with pytest.raises(ConfigError, match="mailbox 42@byte exists already"):
        service.mint(tmp_path, NODES, Address(1, 42), 0, 0, tmp_path / "c.purse")
    assert not (tmp_path / "c.purse").exists()


def test_a_mint_that_was_cut_short_is_finished_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(service, "_record", crash)
    with pytest.raises(KeyboardInterrupt):
        service.mint(tmp_path, NODES, Address(1, 42), 2, 0, tmp_path / "purse")
    monkeypatch.undo()
    purse = load_purse(tmp_path / "purse")
    assert not any(known(tmp_path, purse.identity))
    for _ in range(2):
        assert service.record(tmp_path, tmp_path / "purse") == purse
        assert all(known(tmp_path, purse.identity))


def test_coins_in_use_are_not_recorded_again(tmp_path: Path) -> None:
    purse = service.mint(tmp_path, NODES, Address(1, 42), 1, 0, tmp_path / "purse")
    store = NodeStore(tmp_path / "01")
    store.set_ans([(selector(purse.coins[0].address), bytes(16))])
    store.commit()
    store.close()
    with pytest.raises(ConfigError, match="in use"):
        service.record(tmp_path, tmp_path / "purse")


def test_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = service.load_token(path)
    assert len(token) >= 32
    assert service.load_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="may be read by others"):
        service.load_token(path)
    path.chmod(0o600)
    path.write_text("")
    with pytest.raises(ConfigError, match="holds no token"):
        service.load_token(path)
