"""Owns the dashboard's npm packages: installed by the lock file, and again only when that changes.

Does not build the dashboard; the Makefile does.
"""

import hashlib
import os
import subprocess
from pathlib import Path

from cache import SetupError, say


def provide(project: Path) -> None:
    """Installs the packages that `package-lock.json` names."""
    web = project / "dashboards" / "web"
    lock = web / "package-lock.json"
    stamp = web / "node_modules" / ".gradus-lock-sha256"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("installing the dashboard's packages with npm (about 100 MB of disk)")
    # Tests use the system's Chromium.
    environment = {**os.environ, "PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1"}
    command = ["npm", "ci", "--no-audit", "--no-fund"]
    if subprocess.run(command, cwd=web, env=environment).returncode != 0:
        raise SetupError("npm could not install the dashboard's packages (see above)")
    stamp.write_text(wanted)
