#!/usr/bin/env bash
# Judge what .ci/release.sh made: .ci/wheel.sh FOLDER
#
# The wheel that was made from the sdist and one from the checkout hold the same real files (the
# folders below prunus/ are links in the checkout). Install the first with its light extras in a clean
# environment, import every module that needs nothing more, and run the command from outside the
# checkout: with the weights from the same folder, and without them.
set -euo pipefail
dist="$(realpath "$1")"
cd "$(dirname "$0")/.."
root="$PWD" work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" wheel -q --no-deps -w "$work/direct" .
wheel="$(ls "$dist"/prunus-*.whl)"
python3 .ci/packed_files.py "$dist"/*.whl "$dist"/*.tar.gz "$work"/direct/*.whl
"$work/venv/bin/pip" install -q -c constraints.txt "$wheel"
cd "$work"
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime
"$work/venv/bin/pip" install -q -c "$root/constraints.txt" --find-links "$dist" 'prunus[apps,web,weights]'
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime apps
"$work/venv/bin/prunus" models
"$work/venv/bin/python" -m prunus doctor
clip="$("$work/venv/bin/python" -c 'from prunus.apps.common.media import *; print(bundled(PEDESTRIANS))')"
case "$clip" in "$work"/venv/*/prunus_models/media/*) ;; *) echo "error: the clip is $clip" && exit 1 ;; esac
"$work/venv/bin/prunus" run pose --source "$clip" --max-frames 2 --sink null: --quiet --json >"$work/run.json"
grep -q '"frames": 2' "$work/run.json"
"$work/venv/bin/pip" uninstall -q -y prunus-models
code=0 && "$work/venv/bin/prunus" run pose --source synthetic: --sink null: 2>"$work/said" || code=$?
[ "$code" = 3 ] && grep -qF "pip install 'prunus[weights]'" "$work/said" || { cat "$work/said" && exit 1; }
"$work/venv/bin/pip" install -q -c "$root/constraints.txt" "$wheel[command,export,check,eval]"
"$work/venv/bin/python" "$root/.ci/import_all.py" runtime apps models export
echo "wheel: ok"
