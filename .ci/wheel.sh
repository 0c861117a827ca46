#!/usr/bin/env bash
# Build the wheel, install it with its light extras in a clean environment, import every module that
# needs nothing more, and run the command from outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD" work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m build --wheel --outdir "$work/dist" . >/dev/null
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -c constraints.txt "$(ls "$work"/dist/*.whl)"
cd "$work"
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime
"$work/venv/bin/pip" install -q -c "$root/constraints.txt" "$(ls "$work"/dist/*.whl)[apps]"
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime apps
"$work/venv/bin/prunus" models
"$work/venv/bin/prunus" doctor
"$work/venv/bin/pip" install -q -c "$root/constraints.txt" "$(ls "$work"/dist/*.whl)[apps,export,check,eval]"
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime apps models export
echo "wheel: ok"
