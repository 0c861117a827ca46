#!/usr/bin/env bash
# Check the TensorRT names that prunus uses in the real Python bindings of the oldest (JetPack 6) and
# newest versions. No GPU, no TensorRT: the bindings load over libraries that define their nine
# entry points and nothing else.  VERSIONS="10.3.0 ..." chooses others.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

entry_points="createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL
createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry
getNvOnnxParserVersion getPluginRegistry initLibNvInferPlugins"
for name in $entry_points; do echo "void *$name(void) { return 0; }"; done >"$work/stub.c"

for version in ${VERSIONS:-10.3.0 10.16.1.11 11.0.0.114 11.4.0.106}; do
  major="${version%%.*}" folder="$work/$version"
  mkdir -p "$folder/libraries"
  for library in nvinfer nvinfer_plugin nvonnxparser; do
    cc -shared -fPIC -o "$folder/libraries/lib$library.so.$major" "$work/stub.c"
  done
  # The CUDA 12 wheels reach back to 10.3; bindings are the same for CUDA 13.
  "$python" -m pip download -q --no-deps --only-binary :all: -d "$folder" \
    "tensorrt_cu12_bindings==$version" 2>/dev/null
  "$python" -m zipfile -e "$folder"/*.whl "$folder/site"
  PYTHONPATH="$folder/site" LD_LIBRARY_PATH="$folder/libraries" \
    "$python" -m prunus.export.engine.api tensorrt_bindings
done

# TensorRT-RTX needs no stand-ins: its libraries load without a driver.
"$python" -m prunus.export.engine.api tensorrt_rtx
