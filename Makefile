# Two commands do everything: `make demo` and `make test`. Needs Python 3.10+ and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# What the suite and the demo use. TensorRT-RTX builds real engines without a GPU (a wheel of 91 MiB).
# The plugin's compiler is larger (189 MiB): make plugin-deps, then its tests run as well.
EXTRAS ?= apps,audio,clips,export,check,fleet,openvino,eval,dev,trt-rtx
comma  := ,
STAMP  := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

# Kept byte code: the suite starts hundreds of interpreters.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all soak fuzz lint bench gpu docs docs-deps wheel train-deps plugin-deps judge-deps batch-deps triton-deps peer-deps mutate mutate-deps picture clean venv

demo: $(STAMP)
	$(BIN)/python -m prunus.apps.demo.demo

# One worker a core, at most eight; a file's tests stay together, since they share what they export.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test: $(STAMP)
	$(PYTEST) -m "not slow and not gpu" -rs

test-all: $(STAMP)
	$(PYTEST) -m "not gpu"

# Live runs at twice their load, with troubles planted meanwhile: make soak SECONDS=3600.
SECONDS ?= 600
soak: $(STAMP)
	$(BIN)/python tests/soak/soak.py --seconds $(SECONDS)

# Faults planted in FILES (default: what differs from main in runtime/ and export/verify), judged by
# the mirrored tests of each; with SAMPLE=200 that many of all faults of both parts, drawn by SEED=1.
mutate: mutate-deps
	$(BIN)/python tests/mutate.py $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(FILES)

# Hostile input for every reader, as long as you like: make fuzz EXAMPLES=1000000.
EXAMPLES ?= 20000
fuzz: $(STAMP)
	PRUNUS_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -m fuzz --durations=0 -o faulthandler_timeout=0

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy -p prunus

bench: $(STAMP)
	$(BIN)/python -m benchmarks.pose.speed

gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu.suite

# The documentation as a site: open site/index.html. A link that leads nowhere ends it.
docs: docs-deps
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

# prunus and prunus-models; pip install --find-links dist 'prunus[apps,weights]' takes both.
wheel: $(STAMP)
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist models/prunus_models

# The picture of parts and folders, from the code.
picture: $(STAMP)
	$(BIN)/python docs/draw_architecture.py

# The renderer of synthetic people. Without its own dependencies: Warp is optional and large.
train-deps: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps anny
	$(BIN)/python -m pip install -q -c constraints.txt roma trimesh pyyaml moderngl pillow scikit-image

# The compiler of the TensorRT plugin's kernels, and TensorRT's headers. Without its own dependencies:
# the package is wanted for its headers alone.
plugin-deps: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[plugin]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps kernel-lens

# Judges of speech: PESQ is compiled on the spot. Resemblyzer lends its weights alone. Opus's decoders
# that enhance run in Node, where there is one. And the library that results convert to.
judge-deps: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[eval-audio,supervision]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps resemblyzer
	! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix $(VENV) @wasm-audio-decoders/opus-ml@0.0.3

docs-deps: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'

# Ray Data and Parquet, 140 MB: tests of `prunus batch` skip without them.
batch-deps: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[batch]'

# NVIDIA Triton's server with its Python back end alone, as the wheel of PyTriton has it, in an
# environment of its own: that wheel's back end takes arrays of numpy 1 alone. OpenCV's wheel runs
# with that, although it asks for numpy 2.
TRITON ?= .triton
triton-deps: $(STAMP)
	test -x $(TRITON)/bin/python || $(BIN)/python -m venv $(TRITON)
	$(TRITON)/bin/python -m pip install -q numpy==1.26.4
	$(TRITON)/bin/python -m pip install -q --no-deps nvidia-pytriton==0.7.0 -e .
	$(TRITON)/bin/python -m pip install -q -c constraints.txt --no-deps opencv-python-headless onnxruntime flatbuffers packaging protobuf
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[triton]'

# Peers of benchmarks/separation/speed.py: their dependencies would bring torchaudio, and are not used.
peer-deps: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt requests transformers
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps asteroid asteroid-filterbanks

# Not among the extras: fifteen packages for one command.
mutate-deps: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt cosmic-ray

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) $(TRITON) build dist site demo *.egg-info models/prunus_models/build models/prunus_models/*.egg-info .pytest_cache .mypy_cache .ruff_cache
