#!/usr/bin/env bash
# Install prunus for a machine without a GPU: ONNX Runtime and OpenVINO. Run from the repository root.
# PIP names the pip to use; pins come from constraints.txt.
set -euo pipefail
${PIP:-pip} install --no-cache-dir -c constraints.txt ./models/prunus_models ".[apps,openvino]"
