"""The stubs of the native modules say what the modules are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = ("qmail_core._gf256", "qmail_core._framing")


def test_stubs_match_the_built_kernels() -> None:
    allowlist = str(ROOT / "requirements" / "stubtest-allowlist.txt")
    command = [sys.executable, "-m", "mypy.stubtest", *MODULES, "--allowlist", allowlist]
    path = os.pathsep.join([str(ROOT), str(ROOT / "server")])
    env = {**os.environ, "PYTHONPATH": path, "MYPYPATH": str(ROOT / "server")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
