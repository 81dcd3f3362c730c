"""Owns the cache folders that all clones share: their names, and that each appears whole or not.

Knows nothing of what is put into them.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


class SetupError(Exception):
    """Something the user can put right; the message says how."""


def say(line: str) -> None:
    """Prints one line of progress at once, so that a log shows what is slow."""
    print(f"setup: {line}", flush=True)


def root() -> Path:
    """The folder of Gradus in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gradus"


def folder(name: str, requirements: Path, recipe: int) -> Path:
    """The folder for what `requirements` pins, as unpacked by the given version of our recipe."""
    pinned = requirements.read_bytes() + f"\nrecipe {recipe}\n".encode()
    return root() / f"{name}-{hashlib.sha256(pinned).hexdigest()[:12]}"


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Holds back a second set-up of the same user until this one is through."""
    root().mkdir(parents=True, exist_ok=True)
    with open(root() / "setup.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is running; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(target: Path, fill: Callable[[Path], None]) -> None:
    """Makes `target` by `fill`ing a sibling and renaming it; call it under the lock."""
    for leftover in target.parent.glob(f"{target.name}.partial-*"):
        shutil.rmtree(leftover)
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
    try:
        fill(partial)
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def pip_download(requirements: Path, into: Path, *options: str) -> None:
    """Downloads what `requirements` pins, checked against its hashes, and installs nothing."""
    scratch = into / "tmp"
    scratch.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
    command += ["--no-cache-dir", "--no-deps", "--require-hashes", "--dest", str(into)]
    command += [*options, "--requirement", str(requirements)]
    if not sys.stdout.isatty():
        command.append("--quiet")
    # pip unpacks in its temporary folder: /tmp is small memory on some machines.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    if subprocess.run(command, env=environment).returncode != 0:
        raise SetupError(f"pip could not download what {requirements.name} names (see above)")


def need_disk(what: str, gigabytes: float) -> None:
    """Refuses a download that would fill the disk of the cache."""
    root().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root()).free / 1e9
    if free < gigabytes:
        message = f"{what} needs {gigabytes:.1f} GB free in {root()}, which has {free:.1f} GB"
        raise SetupError(message + "; free some, or set XDG_CACHE_HOME to a folder on another disk")
