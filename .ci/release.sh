#!/usr/bin/env bash
# Make what a release uploads: .ci/release.sh OUT [--upload]
#
# Of prunus and of prunus-models an sdist and a wheel made from it, a bill of materials (CycloneDX) of
# what `prunus[apps,weights]` installs from them, and SHA-256 sums of all. Nothing leaves this machine without
# --upload, which also wants the version in CHANGELOG.md to have a date and a tag; credentials are
# twine's (TWINE_USERNAME, TWINE_PASSWORD).
set -euo pipefail
fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2 && exit 2; }
[ $# -ge 1 ] && [ $# -le 2 ] && [ "${1#-}" = "$1" ] || fail "Got '$*'; expected a folder, and perhaps --upload." "Example: .ci/release.sh dist"
out="$(realpath -m "$1")" upload="${2:-}"
[ -z "$upload" ] || [ "$upload" = --upload ] || fail "Got $upload; expected --upload or nothing." "Leave it out."
cd "$(dirname "$0")/.."
[ -z "$(git status --porcelain)" ] || fail "The checkout has changes." "Commit them, or take a fresh clone."
[ ! -e "$out" ] || [ -z "$(ls -A "$out")" ] || fail "$out is not empty." "Give a new folder."
version="$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' prunus/__init__.py)"
heading="$(sed -n 's/^## //p' CHANGELOG.md | head -1)"
[ "${heading%% *}" = "$version" ] || fail "CHANGELOG.md begins with '$heading'; the version is $version." "Write what is new."
if [ -n "$upload" ]; then
  [[ "$heading" =~ ^[^\ ]+\ \([0-9]{4}-[0-9]{2}-[0-9]{2}\)$ ]] || fail "CHANGELOG.md says '$heading'." "Give the release its date."
  git tag --points-at HEAD | grep -qxF "v$version" || fail "This commit has no tag v$version." "git tag v$version"
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install -q -c constraints.txt build twine cyclonedx-bom
"$work/tools/bin/python" -m build --outdir "$work/dist" . >/dev/null
"$work/tools/bin/python" -m build --outdir "$work/dist" models/prunus_models >/dev/null
python3 .ci/packed_files.py "$work"/dist/*
"$work/tools/bin/twine" check --strict "$work"/dist/*
python3 -m venv "$work/user"
"$work/user/bin/pip" install -q -c constraints.txt --find-links "$work/dist" "$(ls "$work"/dist/prunus-*.whl)[apps,weights]"
"$work/tools/bin/cyclonedx-py" environment "$work/user" --output-reproducible --output-file "$work/dist/prunus-$version.cdx.json"
python3 - "$work/dist/prunus-$version.cdx.json" "$version" <<'PY'
import json, sys
parts = {c["name"]: c["version"] for c in json.load(open(sys.argv[1]))["components"]}
missing = {"prunus", "prunus-models", "numpy", "onnxruntime", "opencv-python-headless", "av"} - set(parts)
assert not missing and parts["prunus"] == parts["prunus-models"] == sys.argv[2], (missing, parts)
print(f"bill of materials: {len(parts)} packages")
PY
(cd "$work/dist" && sha256sum -- * >SHA256SUMS)
mkdir -p "$out" && cp "$work"/dist/* "$out"
cat "$out/SHA256SUMS"
[ -z "$upload" ] || "$work/tools/bin/twine" upload "$out"/*.tar.gz "$out"/*.whl
echo "release $version: ${upload:-not uploaded}"
