"""Run a bench by name: `python -m bench NAME [--json]`, `python -m bench --list`, `python -m bench report [JSON ...]`.

Each bench module says at its head what it measures and against what. The JSON form is the same for all:
{"bench", "machine", "rows": [{"what", "value", "unit", "peer", "ratio", "goal", "holds"}]}. A row may have more fields:
"roof" is our share of what no code can exceed, "limit" names the roof that explains why a goal does not hold.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from bench import report
from qmail_core import _gf256


def names() -> list[str]:
    """Benches there are, by file name."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "isa": _gf256.isa,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """A table for people."""
    for row in rows:
        ratio = f"{row['ratio']:8.2f}x {row['peer']}" if row.get("ratio") else ""
        goal = "" if row.get("goal") is None else f"  goal {row['goal']}  {'holds' if row['holds'] else 'MISSED'}"
        roof = f"  {row['roof']:.2f} of roof" if "roof" in row else ""
        limit = f", at the {row['limit']}" if "limit" in row else ""
        print(f"{row['what']:<44} {row['value']:>12.3f} {row['unit']:<6} {ratio}{roof}{goal}{limit}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", nargs="?", choices=[*names(), "report"])
    parser.add_argument("results", nargs="*", help="for report: files of JSON; without any, all benches are run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--size", type=int, metavar="MIB", help="transfer, fanout: MiB of the large file")
    parser.add_argument("--list", action="store_true", help="name the benches")
    args = parser.parse_args()
    if args.list or args.name is None:
        print("\n".join(names()))
        return 0
    if args.name == "report":
        report.write(report.collect(args.results, names()))
        return 0
    sized = {} if args.size is None else {"size": args.size << 20}
    rows = list(importlib.import_module(f"bench.bench_{args.name}").rows(**sized))
    if args.json:
        json.dump({"bench": args.name, "machine": machine(), "rows": rows}, sys.stdout, indent=1)
        print()
    else:
        print(machine())
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
