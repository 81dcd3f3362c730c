"""Owns the Python with PyTorch that the training benchmark compares with: a virtual environment.

Does nothing where BENCH_PYTHON names another one. Exit 2: it cannot be made here, with the reason.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
REQUIREMENTS = PROJECT / "bench" / "pytorch" / "requirements.txt"
FOLDER = PROJECT / "target" / "bench" / "venv"
# Written last, so that half an environment is made again.
MARKER = FOLDER / "requirements.sha256"
# The requirements pin wheels of this Python.
PYTHON = (3, 11)
GIGABYTES = 9.0


def main() -> int:
    """Makes the environment unless it is there."""
    if os.environ.get("BENCH_PYTHON"):
        return 0
    pinned = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if MARKER.is_file() and MARKER.read_text() == pinned:
        return 0
    if problem := what_is_missing():
        print(f"bench: {problem}", file=sys.stderr)
        print("bench: or let BENCH_PYTHON name a Python with torch 2.11", file=sys.stderr)
        return 2
    shutil.rmtree(FOLDER, ignore_errors=True)
    venv.create(FOLDER, with_pip=True)
    if subprocess.run(install_command(), env=environment()).returncode != 0:
        print("bench: pip could not install PyTorch (see above)", file=sys.stderr)
        return 2
    MARKER.write_text(pinned)
    return 0


def what_is_missing() -> str | None:
    """Why the environment cannot be made, if it cannot."""
    if sys.version_info[:2] != PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return f"PyTorch's wheels are pinned for Python {wanted}: run make with PYTHON=python{wanted}"
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(FOLDER.parent).free / 1e9
    if free < GIGABYTES:
        return f"PyTorch needs {GIGABYTES} GB free in {FOLDER.parent}, which has {free:.1f} GB"
    return None


def install_command() -> list[str]:
    """The call of the new environment's own pip."""
    command = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--require-hashes"]
    return [*command, "--requirement", str(REQUIREMENTS)]


def environment() -> dict[str, str]:
    """pip unpacks in its temporary folder: /tmp is small memory on some machines."""
    scratch = FOLDER / "tmp"
    scratch.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(scratch)}


if __name__ == "__main__":
    sys.exit(main())
