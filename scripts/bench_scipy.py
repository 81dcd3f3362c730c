"""Owns the Python with SciPy that the fit benchmark compares with: a virtual environment.

Does nothing where BENCH_PYTHON names another one. Where it cannot be made the benchmark runs without its peer.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
REQUIREMENTS = PROJECT / "bench" / "scipy" / "requirements.txt"
FOLDER = PROJECT / "target" / "bench" / "scipy-venv"
# Written last, so that half an environment is made again.
MARKER = FOLDER / "requirements.txt"


def main() -> int:
    """Makes the environment unless it is there."""
    wanted = REQUIREMENTS.read_text()
    if os.environ.get("BENCH_PYTHON") or (MARKER.is_file() and MARKER.read_text() == wanted):
        return 0
    venv.create(FOLDER, with_pip=True, clear=True)
    command = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--no-input"]
    command += ["--disable-pip-version-check", "--requirement", str(REQUIREMENTS)]
    if subprocess.run(command).returncode != 0:
        print("bench: pip could not install SciPy (see above); its columns stay empty", file=sys.stderr)
        return 0
    MARKER.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
