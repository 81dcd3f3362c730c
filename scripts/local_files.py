"""Owns the untracked file that tells cargo what set-up found: `.cargo/config.toml`.

Decides nothing; an unchanged file keeps its time, so that nothing is built again for it.
"""

import json
from pathlib import Path

HEADER = "# Written by `make setup`; not tracked.\n"


def write(project: Path, libtorch: Path) -> None:
    """Writes the file for this clone; by cargo's rule a LIBTORCH in the environment goes first."""
    # TOML's basic strings are escaped like JSON's.
    text = f"{HEADER}[env]\nLIBTORCH = {json.dumps(str(libtorch))}\n"
    write_if_changed(project / ".cargo" / "config.toml", text)


def write_if_changed(path: Path, text: str) -> None:
    """Leaves an equal file alone."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
