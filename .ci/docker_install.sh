#!/usr/bin/env bash
# Run the install lines of the CPU image in a scratch environment, as its Dockerfile does.
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
PIP="$work/venv/bin/pip" bash docker/install_cpu.sh
"$work/venv/bin/prunus" doctor
