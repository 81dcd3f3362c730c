"""Owns where libtorch comes from: the user's own by LIBTORCH, or the pinned wheel in the cache.

Builds nothing and writes nothing outside the cache; what cargo is told is in `local_files`.
"""

import os
import platform
import re
import shutil
import zipfile
from pathlib import Path, PurePosixPath

import cache
from cache import SetupError, say

# tch 0.24 is made for this version exactly; the two move together (see Cargo.toml).
VERSION = "2.11.0"
REQUIREMENTS = Path(__file__).with_name("libtorch-requirements.txt")
# To be raised whenever the unpacking below changes, so that old folders are left alone.
RECIPE = 1
# No Python part is kept, so the tag does not matter, but it picks the wheel that was hashed.
PIP_OPTIONS = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
PIP_OPTIONS += [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 25, 17)]
KEPT_LIBRARIES = re.compile(r"(libtorch_cpu|libc10|libgomp|libcudart|libcupti)\.so[.0-9]*")
# While unpacking: the wheels (0.55 GB) beside their content (0.5 GB); afterwards only the content.
DISK_GIGABYTES = 1.3
VERSION_MACRO = re.compile(r'^#define TORCH_VERSION[\s\\]+"([^"]+)"', re.MULTILINE)


def provide() -> Path:
    """The folder with libtorch's `lib` and `include`, made if it is not there."""
    own = os.environ.get("LIBTORCH")
    if own:
        return checked(Path(own).resolve())
    target = cache.folder(f"libtorch-{VERSION}", REQUIREMENTS, RECIPE)
    if not target.is_dir():
        require_x86_64_linux()
        say(f"libtorch {VERSION}: a download of 0.55 GB, half a minute to ten by the network;")
        say(f"  {DISK_GIGABYTES} GB of disk while unpacking, 0.5 GB after")
        cache.need_disk(f"libtorch {VERSION}", DISK_GIGABYTES)
        cache.build(target, fill)
    return checked(target)


def require_x86_64_linux() -> None:
    """The pinned wheels exist for one platform."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        here = f"{platform.system()} on {platform.machine()}"
        message = f"the pinned libtorch is for Linux on x86_64, and this is {here}"
        raise SetupError(f"{message}; set LIBTORCH to a libtorch {VERSION} of your own")


def fill(partial: Path) -> None:
    """Downloads the wheels into `partial`, keeps what is linked or loaded, and drops the rest."""
    wheels = partial / "wheels"
    cache.pip_download(REQUIREMENTS, wheels, *PIP_OPTIONS)
    for wheel in sorted(wheels.glob("*.whl")):
        unpack(wheel, partial)
        wheel.unlink()
    shutil.rmtree(wheels)
    # The wheel's libtorch.so asks for every CUDA library; a linker script asks for the CPU's alone.
    (partial / "lib" / "libtorch.so").write_text("INPUT(libtorch_cpu.so libc10.so)\n")


def unpack(wheel: Path, into: Path) -> None:
    """Writes the kept members of one wheel below `into`."""
    say(f"unpacking {wheel.name}")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            place = kept_as(PurePosixPath(member.filename))
            if place is None or member.is_dir():
                continue
            target = into / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as file:
                while block := source.read(1 << 20):
                    file.write(block)


def kept_as(member: PurePosixPath) -> PurePosixPath | None:
    """Where a wheel's member goes below our folder, or None for what is not kept."""
    parts = member.parts
    if parts[:2] == ("torch", "include"):
        return PurePosixPath(*parts[1:])
    if member.parent.name == "lib" and KEPT_LIBRARIES.fullmatch(member.name):
        return PurePosixPath("lib", member.name)
    if ".dist-info" in parts[0] and "licen" in str(member).lower():
        return PurePosixPath("licenses", parts[0].split("-")[0], member.name)
    return None


def checked(libtorch: Path) -> Path:
    """Refuses a folder that is no libtorch, or another version of it."""
    found = version_of(libtorch)
    if found is None:
        raise SetupError(f"{libtorch} is no libtorch: its include/torch has no version header")
    if found != VERSION:
        message = f"{libtorch} is libtorch {found}, and exactly {VERSION} is needed"
        raise SetupError(f"{message}; unset LIBTORCH to let set-up fetch it")
    if not (libtorch / "lib" / "libtorch_cpu.so").exists():
        raise SetupError(f"{libtorch} has no lib/libtorch_cpu.so")
    return libtorch


def version_of(libtorch: Path) -> str | None:
    """TORCH_VERSION of the headers; the wheel has no `build-version` for torch-sys to check."""
    for header in ("torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"):
        path = libtorch / "include" / header
        match = VERSION_MACRO.search(path.read_text()) if path.exists() else None
        if match:
            return match.group(1).split("+")[0]
    return None
