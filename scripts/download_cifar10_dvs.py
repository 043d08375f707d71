"""Fetch CIFAR10-DVS (Li et al. 2017), ten archives, and unpack them into <root>/<class>/.

    python scripts/download_cifar10_dvs.py <root> [<class> ...]

What is there already is kept: an archive that broke off is continued, a whole one is checked, unpacked, and deleted
once its thousand recordings are there; one whose md5 sum is another even then is deleted. Needs Python alone.
"""

import argparse
import hashlib
import re
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

# class: (file at figshare, md5 of the archive); the md5 sums are those SpikingJelly lists
ARCHIVES = {
    "airplane": (7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
    "automobile": (7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
    "bird": (7712794, "a9c207c91c55b9dc2002dc21c684d785"),
    "cat": (7712812, "52c63c677c2b15fa5146a8daf4d56687"),
    "deer": (7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    "dog": (7712818, "f379ebdf6703d16e0a690782e62639c3"),
    "frog": (7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
    "horse": (7712851, "e7cbbf77bec584ffbf913f00e682782a"),
    "ship": (7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
    "truck": (7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
}
ADDRESS = "https://ndownloader.figshare.com/files/{}"
ZIP = b"PK"  # how an archive begins
BLOCK = 1 << 20  # bytes at a time
TIMEOUT = 60  # seconds without a byte
PER_CLASS = 1000  # recordings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=lambda root: Path(root).expanduser(), help="folder for the class folders")
    parser.add_argument("classes", nargs="*", choices=[*ARCHIVES, []], metavar="class", help="only these classes")
    options = parser.parse_args(arguments)
    try:
        options.root.mkdir(parents=True, exist_ok=True)
        for name in options.classes or ARCHIVES:
            obtain(options.root, name, *ARCHIVES[name])
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # URLError and HTTPError are OSErrors
        print(f"error: {error}; run the command again to go on", file=sys.stderr)
        return 1
    return 0


def obtain(root: Path, name: str, number: int, md5: str) -> None:
    """Bring one class into root/<name>/."""
    names = [f"cifar10_{name}_{i}.aedat" for i in range(PER_CLASS)]
    if all((root / name / file).is_file() for file in names):
        print(f"{name}: complete")
        return
    archive = root / f"{name}.zip"
    if not archive.exists() or checksum(archive) != md5:
        part = root / f"{name}.zip.part"
        if archive.exists():  # it broke off, or was put there and is another
            archive.replace(part)
        fetch(ADDRESS.format(number), part)
        if checksum(part) != md5:
            part.unlink()
            raise ValueError(f"{part} did not match its md5 sum {md5} and was removed")
        part.rename(archive)
    unpack(archive, root / name, names)
    archive.unlink()
    print(f"{name}: {PER_CLASS} recordings")


def fetch(url: str, path: Path) -> None:
    """Download `url` to `path`, going on behind the bytes that are there.

    What is there stays until more of an archive has arrived than it holds: an answer that is none, such as a page that
    says what is wrong, replaces nothing.
    """
    have = path.stat().st_size if path.exists() else 0
    try:
        answer = urlopen(Request(url, headers={"Range": f"bytes={have}-"} if have else {}), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and have:  # nothing lies behind them: the file is whole
            return
        raise URLError(f"{url}: {error}") from None
    goes_on = answer.status == 206  # 200: the server starts over
    if goes_on and start_of(answer) not in (None, have):
        raise ValueError(f"{url} went on behind byte {start_of(answer)}, {path} ends at {have}")
    to = path if goes_on else path.with_name(f"{path.name}.new")
    arrived, expected = 0, 1
    try:
        with answer, to.open("ab" if goes_on else "wb") as file:
            expected = max(file.tell() + int(answer.headers.get("Content-Length", 0)), 1)
            while block := answer.read(BLOCK):
                if file.tell() == 0 and not block.startswith(ZIP):
                    raise ValueError(f"{url} sent no archive but {block[:40]!r}; nothing was replaced")
                file.write(block)
                arrived = file.tell()
                print(f"\r{path.name}: {file.tell() / 1e6:.0f} of {expected / 1e6:.0f} MB", end="", flush=True)
            print()
    finally:
        if not goes_on:
            to.replace(path) if arrived > have or arrived >= expected else to.unlink()
    if not arrived or arrived < expected:
        raise ValueError(f"{path} broke off: {arrived} of {expected} bytes came")


def start_of(answer: Any) -> int | None:
    """Where a part of a file begins, if the server says so: of "bytes 100-199/200" 100."""
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def unpack(archive: Path, folder: Path, names: list[str]) -> None:
    """Unpack exactly the recordings, wherever in the archive they lie, each whole or not at all."""
    with zipfile.ZipFile(archive) as packed:
        members = {Path(member.filename).name: member for member in packed.infolist() if not member.is_dir()}
        if missing := [name for name in names if name not in members]:
            raise ValueError(f"{archive} lacks {len(missing)} recordings, the first is {missing[0]}")
        folder.mkdir(exist_ok=True)
        for name in names:
            part = folder / f".{name}.part"
            part.write_bytes(packed.read(members[name]))
            part.replace(folder / name)


if __name__ == "__main__":
    sys.exit(main())
