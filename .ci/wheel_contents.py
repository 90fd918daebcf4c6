"""Fails if a file of the packages is missing from a wheel, or should not be in it.

Usage: ``wheel_contents.py WHEEL SOURCE``. A forgotten pattern in ``package-data`` shows
up only on machines without the source tree; this looks for it.
"""

import pathlib
import sys
import zipfile

PACKAGES = ("jeff", "hwsim", "pallas_kernels")


def main(wheel: str, source: str) -> int:
    """Prints the differences and returns the exit code."""
    root = pathlib.Path(source)
    expected = {
        file.relative_to(root).as_posix()
        for package in PACKAGES
        for file in (root / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        size = sum(info.compress_size for info in archive.infolist())
    for name in sorted(expected - held):
        print(f"not in the wheel: {name}")
    for name in sorted(held - expected):
        print(f"only in the wheel: {name}")
    print(f"{len(held)} files, {size / 1e6:.1f} MB")
    return 0 if held == expected else 1


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
