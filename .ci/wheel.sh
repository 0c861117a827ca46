#!/usr/bin/env bash
# Build the sdist, a wheel from it and a wheel from the checkout: both wheels hold the same real files
# (the folders below prunus/ are links in the checkout). Install the one from the sdist with its light
# extras in a clean environment, import every module that needs nothing more, and run the command
# from outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD" work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m build --outdir "$work/dist" . >/dev/null # sdist, then a wheel from the sdist
.venv/bin/python -m build --wheel --outdir "$work/direct" . >/dev/null
.venv/bin/python .ci/packed_files.py "$work"/dist/*.tar.gz "$work"/dist/*.whl "$work"/direct/*.whl
wheel="$(ls "$work"/dist/*.whl)"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -c constraints.txt "$wheel"
cd "$work"
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime
"$work/venv/bin/pip" install -q -c "$root/constraints.txt" "$wheel[apps,web]"
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime apps
"$work/venv/bin/prunus" models
"$work/venv/bin/python" -m prunus doctor
"$work/venv/bin/pip" install -q -c "$root/constraints.txt" "$wheel[apps,export,check,eval]"
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime apps models export
echo "wheel: ok"
