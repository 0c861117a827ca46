"""Check that distributions hold the files of the checkout: python .ci/packed_files.py DIST...

A wheel must hold every tracked file that is its own as a regular file in its package, an sdist as a
regular file anywhere. prunus holds the package and its parts, without weights and clips, and stays
small; prunus-models holds those.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("apps", "export", "models", "runtime", "prunus/*.py", "prunus/py.typed")
WEIGHTS = ("models/weights", "apps/media/*.mp4")
PROJECT = "models/prunus_models"  # describes the other distribution
MOST_BYTES = 2_000_000  # of prunus alone


def tracked(*what: str) -> dict[str, bytes]:
    """Return the tracked files that git finds under these names, by their path in the checkout."""
    command = ["git", "ls-files", "-z", "--", *what]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return {name: (ROOT / name).read_bytes() for name in names.split("\0") if name}


def wanted(models: bool) -> dict[str, bytes]:
    """Return the files that a distribution must hold, by their path in its package."""
    if models:
        parts = ("models/", "apps/")
        return {n.split("/", 1)[1]: v for n, v in tracked(*WEIGHTS).items() if n.startswith(parts)}
    left_out = [f":(exclude){name}" for name in (*WEIGHTS, PROJECT)]
    return {n.removeprefix("prunus/"): v for n, v in tracked(*PARTS, *left_out).items()}


def packed(path: Path, package: str) -> dict[str, bytes]:
    """Return the regular files of a distribution, by their path below a package."""
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
    return {n.removeprefix(package): v for n, v in found.items() if n.startswith(package)}


def main() -> None:
    """Compare every distribution with the checkout."""
    for path in map(Path, sys.argv[1:]):
        models = path.name.startswith("prunus_models-")
        # The sdist of prunus-models has no folder of that name: its package is the whole of it.
        package = "prunus/" if not models else "prunus_models/" if path.suffix == ".whl" else ""
        files, got = wanted(models), packed(path, package)
        missing = sorted(name for name in files if name not in got)
        other = sorted(name for name in files if name in got and got[name] != files[name])
        heavy = sorted(set(wanted(True)) & set(got)) if not models else []
        if missing or other or heavy:
            words = [f"misses {n}" for n in missing[:20]] + [f"changed {n}" for n in other[:20]]
            sys.exit(f"error: {path.name}: " + "; ".join(words + [f"holds {n}" for n in heavy]))
        size = path.stat().st_size
        if not models and size >= MOST_BYTES:
            sys.exit(f"error: {path.name} has {size} bytes; expected less than {MOST_BYTES}")
        print(f"{path.name}: {size / 1e6:.2f} MB, {len(files)} files, all of them real")


if __name__ == "__main__":
    main()
