"""Owns the order of `make setup`: check the tools, then provide what build, demo and tests need.

Run again, it needs no network and takes seconds. Exit 2: something is missing, each with one line.
"""

import argparse
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PYTHON_FLOOR = (3, 10)


def main() -> int:
    """Sets up this clone."""
    parser = argparse.ArgumentParser(description="Sets up this clone of Gradus.")
    only_tests = "leave out what only tests need"
    parser.add_argument("--without-tests", action="store_true", help=only_tests)
    arguments = parser.parse_args()
    if sys.version_info < PYTHON_FLOOR:
        print("setup: missing python3 3.10 or newer: install it", file=sys.stderr)
        return 2
    # Only now: the modules use the syntax of that Python.
    import cache
    import tools

    missing = tools.missing()
    for line in missing:
        print(f"setup: missing {line}", file=sys.stderr)
    if missing:
        return 2
    try:
        with cache.lock():
            provide(with_tests=not arguments.without_tests)
    except (cache.SetupError, OSError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    return 0


def provide(with_tests: bool) -> None:
    """Everything in the order in which it is likely to fail."""
    import cache
    import demo_text
    import libtorch
    import local_files
    import tools
    import web

    place = libtorch.provide()
    local_files.write(PROJECT, place)
    demo_text.provide(PROJECT)
    web.provide(PROJECT)
    if with_tests:
        tools.provide_nextest()
        tools.provide_debian_packages()
    cache.say(f"ready (libtorch {libtorch.VERSION} in {place})")


if __name__ == "__main__":
    sys.exit(main())
