# The commands of the project. Each makes the environment it needs; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.demo-ready
# Where builds of torch without CUDA lie (about 5 GB less to fetch), for machines without a GPU:
# make demo TORCH_INDEX_URL=... The default index has the build with CUDA alone.
TORCH_INDEX_URL ?=

.PHONY: help demo test test-vllm check coverage bench kernels tiny clean

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

# What is fetched, how large and how far is shown by uv, which also fetches side by side. It does not read
# pip's configuration: an index that is configured there is handed on.
define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): $(1). The first time fetches torch and what it needs (README: sizes)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@index=$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	export UV_LINK_MODE=copy VIRTUAL_ENV=$(VENV); \
	if [ -n "$(TORCH_INDEX_URL)" ]; then \
	  $(BIN)/uv pip install -c constraints.txt --index-url "$(TORCH_INDEX_URL)" torch; \
	fi && $(BIN)/uv pip install -c constraints.txt $(1)
endef

$(READY): pyproject.toml tools/pyproject.toml constraints.txt
	$(call install,-e .[dev] -e tools)
	@touch $@ $(DEMO_READY)

# A demonstration needs no linters, no type checker and no test servers.
$(DEMO_READY): pyproject.toml tools/pyproject.toml constraints.txt
	$(call install,-e . -e tools)
	@touch $@

demo: $(DEMO_READY) ## Stream scripted conversations through the real worker, on this machine alone
	@$(BIN)/moderation-worker demo $(ARGS)

test: $(READY) ## Run every test, with a real Kafka and a real S3 API where their tools are present
	@$(BIN)/python -m pytest $(ARGS)

test-vllm: $(READY) ## Hold the judge to a real vLLM server on this CPU; the first time fetches about 6 GB
	@$(BIN)/python -m pytest tests/vllm/agreement.py $(ARGS)

check: $(READY) ## Format, lint and strict types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

coverage: $(READY) ## Which lines the fast tests run, by file
	@$(BIN)/python -m coverage run --source worker -m pytest -q -m 'not kafka and not slow' $(ARGS)
	@$(BIN)/python -m coverage report --skip-covered --sort cover

bench: $(READY) ## Measure the pipeline, the judge and its engine; prints tables of ratios
	@$(BIN)/python -m tests.support.with_kafka $(BIN)/moderation-worker bench pipeline
	@$(BIN)/python -m tests.support.with_kafka $(BIN)/moderation-worker bench memory
	@$(BIN)/moderation-worker bench judge
	@$(BIN)/moderation-worker bench engine --rounds 1

kernels: $(READY) ## Compile every CUDA kernel for every architecture; needs no GPU
	@$(BIN)/python -m moderation_tools.kernels $(ARGS)

tiny: $(READY) ## Make the demonstration checkpoint from nothing, then evaluate it
	@# A thread that waits sleeps: while it spins, any other load makes a step several times as long.
	@OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 $(BIN)/python -m moderation_tools.training.tiny build --out build/tiny $(ARGS)
	@$(BIN)/python -m moderation_tools.training.tiny evaluate build/tiny

clean: ## Remove everything these commands made
	rm -rf $(VENV) .tools .cache .demo build dist
