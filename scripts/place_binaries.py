"""Owns that the programs lie in `target/release` also when CARGO_TARGET_DIR is elsewhere.

Builds nothing.
"""

import os
import shutil
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PROGRAMS = ("gradus", "gradus-coordinator", "gradus-worker", "gradus-bench")


def main() -> int:
    """Copies the programs, each in one step, so that a running one is not disturbed."""
    built = Path(os.environ.get("CARGO_TARGET_DIR") or PROJECT / "target").resolve() / "release"
    wanted = PROJECT / "target" / "release"
    if built == wanted.resolve():
        return 0
    wanted.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        partial = wanted / f".{program}.partial-{os.getpid()}"
        shutil.copy2(built / program, partial)
        partial.replace(wanted / program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
