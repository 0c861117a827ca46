#!/usr/bin/env bash
# Install prunus on JetPack 6 (Python 3.10), beside JetPack's own TensorRT 10.3.
# Run from the repository root. PIP names the pip to use; pins come from constraints.txt.
set -euo pipefail
${PIP:-pip} install --no-cache-dir -c constraints.txt ./models/prunus_models ".[apps]"
