"""The import contracts of pyproject.toml hold, and the kernels, which import-linter cannot read, keep to themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
OURS = re.compile(r"^\s*(?:from|import|cimport)\s+(qmail_\w+)", re.MULTILINE)


def test_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("source", sorted((ROOT / "ext").glob("*.pyx")), ids=lambda path: path.name)
def test_kernels_import_nothing_of_ours(source: Path) -> None:
    assert not OURS.findall(source.read_text(encoding="utf-8"))


def test_c_kernels_do_not_know_python() -> None:
    for source in (ROOT / "ext").glob("*.[ch]"):
        assert not re.search(r'#\s*include\s*[<"]Python\.h', source.read_text(encoding="utf-8")), source.name
