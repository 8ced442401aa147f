"""The import contracts of pyproject.toml hold, and the kernels, which import-linter cannot read, keep to themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = re.compile(r"^\s*(?:from|import|cimport)\s+(qmail_\w+)", re.MULTILINE)


def test_import_contracts_hold() -> None:
    # in a process of its own, because the linter disables every logger it finds
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("source", sorted((ROOT / "ext").glob("*.pyx")), ids=lambda path: path.name)
def test_kernels_import_nothing_of_ours(source: Path) -> None:
    assert not OURS.findall(source.read_text(encoding="utf-8"))


def test_c_kernels_do_not_know_python() -> None:
    for source in (ROOT / "ext").glob("*.[ch]"):
        assert not re.search(r'#\s*include\s*[<"]Python\.h', source.read_text(encoding="utf-8")), source.name
