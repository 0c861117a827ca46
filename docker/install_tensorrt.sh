#!/usr/bin/env bash
# Install prunus beside the TensorRT of the base image, which stays the only TensorRT: the extra
# 'trt' is left out on purpose, so that engines match the libraries of the image.
# Run from the repository root. PIP names the pip to use; pins come from constraints.txt.
set -euo pipefail
${PIP:-pip} install --no-cache-dir -c constraints.txt ./models/prunus_models ".[apps]"
