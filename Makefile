PYTHON ?= python3
VENV ?= .venv
# CPU build of torch. With an NVIDIA GPU: make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BIN = $(VENV)/bin

.PHONY: help demo test long slow browser gpu gpu-check oldest audit lint docs bench peers clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

# Torch is installed first and alone, so that only torch is looked up in its own index.
$(VENV)/.base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --retries 1 --no-deps --extra-index-url $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(BIN)/pip install --quiet -e ".[docs]"
	touch $@

demo: $(VENV)/.base  ## encode with `small`, train `mini` on data/, score it before and after, write a report
	$(BIN)/simcse train data/sentences.txt --preset mini-unsup --dev data/sts.tsv --max-steps 20 --set evaluation.every=5 --output demo/unsup --overwrite
	$(BIN)/simcse train data/nli.csv --model demo/unsup --preset mini-sup --dev data/sts.tsv --set evaluation.every=5 --epochs 6 --output demo/encoder --overwrite
	$(BIN)/simcse eval demo/encoder --before mini --tasks data/sts.tsv --report demo/report
	$(BIN)/simcse encode small data/sentences.txt --output demo/vectors.npy --overwrite

test: $(VENV)/.dev  ## run the fast tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

long: $(VENV)/.dev  ## run the tests that take several seconds each
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "long and not slow"

slow: $(VENV)/.dev  ## run the tests that take minutes
	$(BIN)/pytest -m slow

browser: $(VENV)/.dev  ## run the tests in Chromium, which must be installed
	$(BIN)/pip install --quiet -e ".[browser]"
	$(BIN)/pytest -m browser -rs tests/evaluation tests/serve

gpu: $(VENV)/.dev  ## run the tests that need a GPU
	$(BIN)/pytest -m gpu tests/gpu

# Not in the virtual environment, whose torch may be a CPU build: PYTHON must have torch with CUDA.
gpu-check:  ## test and measure on a GPU in 6 minutes (WHEELS=folder of packages, GPU_CHECK=options)
	$(PYTHON) evaluation/speed/gpu_check.py $(if $(WHEELS),--wheels $(WHEELS)) $(GPU_CHECK)

# Warnings are not errors here: old releases use functions that newer packages have deprecated.
oldest:  ## run the fast tests with the lowest versions of pyproject.toml (TORCH=torch==2.7.0 for torch's)
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/pip install --quiet --no-deps --extra-index-url $(TORCH_INDEX) "$(TORCH)"
	$(PYTHON) tests/lower_bounds.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet -e ".[dev]" -c .venv-oldest/constraints.txt
	OMP_NUM_THREADS=1 .venv-oldest/bin/pytest -n 2 -o filterwarnings=

audit: $(VENV)/.base  ## list known vulnerabilities of the installed packages (queries PyPI)
	$(PYTHON) -m venv --clear .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --path $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

lint: $(VENV)/.dev  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Not --quiet, which hides the warnings that --strict counts.
docs: $(VENV)/.docs  ## build the documentation into build/site: strict, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.dev  ## compare the speed with sentence-transformers: an hour (BENCH=--quick: minutes)
	$(BIN)/python evaluation/speed/bench.py $(BENCH)

peers: $(VENV)/.dev  ## install optional parts of bench: ONNX and OpenVINO, for sentence-transformers too
	$(BIN)/pip install --quiet -e ".[onnx,openvino]"
	evaluation/speed/peers.sh $(PYTHON) $(TORCH) $(TORCH_INDEX)

clean:  ## remove everything that make creates
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-audit demo
