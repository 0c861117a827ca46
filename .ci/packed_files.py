"""Check that distributions hold the files of the checkout: python .ci/packed_files.py DIST...

A wheel must hold every tracked file of the package and its parts as a regular file below
``prunus/``, an sdist as a regular file anywhere. Files that no installation needs are named in
`LEFT_OUT`.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("apps", "export", "models", "runtime", "prunus/*.py", "prunus/py.typed")
LEFT_OUT = ()


def tracked() -> dict[str, bytes]:
    """Return every tracked file of the parts, by its path in the checkout."""
    command = ["git", "ls-files", "-z", *PARTS]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = [name for name in names.split("\0") if name and name not in LEFT_OUT]
    return {name.removeprefix("prunus/"): (ROOT / name).read_bytes() for name in paths}


def packed(path: Path) -> dict[str, bytes]:
    """Return the regular files of a distribution, by their path below ``prunus/``."""
    found = {}
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if (entry.external_attr >> 16) & 0o170000 == 0o120000:
                    sys.exit(f"error: {path.name} holds a link: {entry.filename}")
                found[entry.filename] = archive.read(entry)
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    found[member.name.partition("/")[2]] = content.read()
    return {n.removeprefix("prunus/"): v for n, v in found.items() if n.startswith("prunus/")}


def main() -> None:
    """Compare every distribution with the checkout."""
    wanted = tracked()
    for path in map(Path, sys.argv[1:]):
        got = packed(path)
        missing = sorted(name for name in wanted if name not in got)
        other = sorted(name for name in wanted if name in got and got[name] != wanted[name])
        if missing or other:
            words = [f"misses {n}" for n in missing[:20]] + [f"changed {n}" for n in other[:20]]
            sys.exit(f"error: {path.name}: " + "; ".join(words))
        print(f"{path.name}: {len(wanted)} files of the parts, all of them real")


if __name__ == "__main__":
    main()
