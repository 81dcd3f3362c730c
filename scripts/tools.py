"""Owns the check for what must be on the machine, and the programs that tests need on top.

Installs nothing but cargo-nextest (by cargo), Chromium and PostgreSQL (by apt-get, as root or in CI).
"""

import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from cache import SetupError, say

# The floors of Cargo.toml (`rust-version`) and of dashboards/web/package.json (`engines`).
CARGO_FLOOR = (1, 94)
NODE_FLOOR = (20, 19)
NEXTEST_VERSION = "0.9.143"
# Debian packages that only tests need, with the path that shows each is there.
DEBIAN_PACKAGES = {"chromium": "/usr/bin/chromium", "postgresql": "/usr/lib/postgresql/*/bin/initdb"}


def missing() -> list[str]:
    """One line per missing tool, saying what to install."""
    return [*missing_rust(), *missing_compiler(), *missing_pip(), *missing_node()]


def missing_rust() -> Iterator[str]:
    """Cargo, of the version that the workspace asks for."""
    if not at_least("cargo", CARGO_FLOOR):
        floor = dotted(CARGO_FLOOR)
        yield f"cargo {floor} or newer: install Rust with rustup, or run `rustup update stable`"


def missing_compiler() -> Iterator[str]:
    """A C++ compiler and linker, for libtorch's bindings and SQLite."""
    if not (shutil.which("c++") or shutil.which("g++")):
        yield "a C++ compiler: install Debian's `build-essential`, or g++ of another system"


def missing_pip() -> Iterator[str]:
    """pip, which downloads libtorch and the demo text; `setup.py` has checked Python itself."""
    if run_quietly(sys.executable, "-m", "pip", "--version") is None:
        yield "pip for python3: install Debian's `python3-pip`, or run `python3 -m ensurepip`"


def missing_node() -> Iterator[str]:
    """Node and npm, which build the dashboard."""
    floor = dotted(NODE_FLOOR)
    if not at_least("node", NODE_FLOOR):
        yield f"node {floor} or newer: install Node.js {NODE_FLOOR[0]} LTS or newer"
    if run_quietly("npm", "--version") is None:
        yield "npm: install Debian's `npm`, or a Node.js that brings it"


def at_least(tool: str, floor: tuple[int, int]) -> bool:
    """Whether `tool --version` names a version of at least `floor`."""
    match = re.search(r"(\d+)\.(\d+)", run_quietly(tool, "--version") or "")
    return match is not None and (int(match[1]), int(match[2])) >= floor


def dotted(version: tuple[int, int]) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))


def run_quietly(*command: str) -> str | None:
    """The command's output, or None if it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def provide_nextest() -> None:
    """Installs the test runner, unless any version of it is there."""
    if run_quietly("cargo", "nextest", "--version") is not None:
        return
    say(f"installing cargo-nextest {NEXTEST_VERSION} (about five minutes on two cores)")
    command = ["cargo", "install", "cargo-nextest", "--locked", "--version", NEXTEST_VERSION]
    if subprocess.run(command).returncode != 0:
        raise SetupError(f"cargo could not install cargo-nextest; try `{' '.join(command)}`")


def provide_debian_packages() -> None:
    """Installs what tests need from Debian where we may; elsewhere says how (those tests skip)."""
    wanted = [name for name, path in DEBIAN_PACKAGES.items() if not glob.glob(path)]
    if not wanted:
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *wanted]
    may_install = os.geteuid() == 0 or os.environ.get("CI") == "true"
    if may_install and shutil.which("apt-get"):
        say(f"installing {', '.join(wanted)} with apt-get, for tests")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=environment)
        if subprocess.run([*install, "-qq"], env=environment).returncode == 0:
            return
    say(f"{', '.join(wanted)} is not there; tests that need it skip. To have them run:")
    say(f"  sudo {' '.join(install)}")
