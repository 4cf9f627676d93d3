# `make help` lists the targets. Each one first installs what it needs into .venv, or into .venv-python3.13 with
# PYTHON=python3.13.
PYTHON ?= python3
VENV := .venv$(patsubst %,-%,$(filter-out python3,$(notdir $(PYTHON))))
BIN := $(VENV)/bin
NODE := build/node/node_modules/.bin
SDK := build/sdk
# The contract as the service publishes it: with the standard parts.
CONTRACT := build/openapi.yaml
# More processes than cores, because some tests mostly wait.
PARALLEL = --numprocesses $$(($$(nproc) + 2)) --dist worksteal
SWAGGER_UI := 5.35.0
# Always keep bytecode: the tests start the same code hundreds of times.
export PYTHONDONTWRITEBYTECODE :=
# Turn off Redocly's telemetry and its search for updates.
export REDOCLY_TELEMETRY := off
export REDOCLY_SUPPRESS_UPDATE_NOTICE := true
URL ?= http://127.0.0.1:8000
EXAMPLES ?= 100
REFERENCE ?= build/docs/index.html
REPORTS ?= build/contract
SAMPLE ?= 100

.DEFAULT_GOAL := help
.PHONY: help run dev check quick test coverage pythons contract stories nightly changes mutants bench bench-scale lint lint-contract audit diff docs format generate \
  sdk sdk-python sdk-typescript sdks lock swagger-ui clean node

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: $(VENV)/runtime ## Serve the API on http://127.0.0.1:8000
	@$(BIN)/tasks-api serve

dev: $(VENV)/runtime ## Serve the API, and restart when the code or the contract changes
	@$(BIN)/tasks-api serve --reload

check: $(VENV)/development node ## Lint and run the quick tests; run it after every edit
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint quick

quick: $(VENV)/development
	$(BIN)/pytest --quiet -m "not slow" --numprocesses 2

test: $(VENV)/development node ## Run all tests; run it before you push
	$(BIN)/pytest $(PARALLEL)

coverage: $(VENV)/development node ## Run all tests and fail if a branch is not covered
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

pythons: ## Run the quick tests with each supported Python that is installed
	@for python in python3.11 python3.12 python3.13; do \
	  if $$python --version 2>/dev/null; then $(MAKE) --no-print-directory quick PYTHON=$$python || exit 1; \
	  else echo "Skipped: $$python is not installed."; fi; \
	done

contract: $(VENV)/development ## Test the deployment at URL=... against its contract (optional: KEY=..., EXAMPLES=... per operation, SEED=... to repeat a run)
	@mkdir -p $(REPORTS)
	@cp tests/contract/checks.py tests/contract/schemathesis.toml $(REPORTS)
	@test -z "$$KEY" || printf '\n[auth.openapi.ApiKey]\nbearer = "$${KEY}"\n' >> $(REPORTS)/schemathesis.toml
	@rm -f $(REPORTS)/junit.xml $(REPORTS)/har.json
	@cd $(REPORTS) && $(abspath $(BIN))/schemathesis run $(URL:/=)/openapi.yaml --max-examples $(EXAMPLES) $(if $(SEED),--seed $(SEED)) \
	  --report-junit-path $(abspath $(REPORTS))/junit.xml --report-har-path $(abspath $(REPORTS))/har.json

stories: $(CONTRACT) node ## Run the stories of tests/contract against the deployment at URL=... (optional: KEY=...)
	@! command -v npm >/dev/null || $(NODE)/redocly respect tests/contract/stories.arazzo.yaml --server tasks=$(URL:/=) $${KEY:+--input "key=$$KEY"}

nightly: $(VENV)/development node ## Run the nightly tests: fuzzing with a random seed, each Python, make changes
	@seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "Seed: $$seed"; \
	  CONTRACT_EXAMPLES=1000 CONTRACT_SEED=$$seed $(BIN)/pytest tests/conformance/test_schemathesis.py
	MODEL_EXAMPLES=2000 $(BIN)/pytest tests/models/test_schemas.py
	@$(MAKE) --no-print-directory pythons
	@$(MAKE) --no-print-directory changes

changes: $(VENV)/development node ## Follow the recipes for adopters in copies of the project, and list the tests that fail
	$(BIN)/python -m tests.tools.changes

mutants: $(VENV)/development node ## Plant generated defects one at a time, and list those that no test finds (optional: SAMPLE=..., SEED=..., ONLY=files)
	$(BIN)/python -m tests.tools.mutants --sample $(SAMPLE) --seed "$(SEED)" $(ONLY)

bench: $(VENV)/benchmark build/service build/core ## Compare the speed of the service with others, in 15 minutes (optional: ONLY=sqlite, postgresql, clients or service)
	@! command -v npm >/dev/null || $(MAKE) --silent build/benchmark/installed
	$(BIN)/python -m tests.benchmarks $(ONLY)

bench-scale: $(VENV)/benchmark build/service ## Compare one worker with two, on SQLite and PostgreSQL, in four minutes
	$(BIN)/python -m tests.benchmarks.scaling

lint: $(CONTRACT) node ## Check style, types, the generated models, the contract and the workflows
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/datamodel-codegen --check
	$(BIN)/openapi-spec-validator openapi.yaml $(CONTRACT)
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory lint-contract

audit: $(VENV)/development ## Search the installed packages for known vulnerabilities
	@$(BIN)/python -m tests.tools.audit

lint-contract: $(CONTRACT)
	$(NODE)/redocly lint --config tests/redocly.yaml $(CONTRACT) tests/contract/stories.arazzo.yaml
	$(NODE)/spectral lint --fail-severity hint $(CONTRACT)

diff: $(VENV)/development node ## Compare the contract with its last release, or with BASE=tag-or-file
	@$(BIN)/python -m tests.tools.diff $(BASE)

docs: $(CONTRACT) node ## Build the API reference as one HTML file, build/docs/index.html
	@! command -v npm >/dev/null || $(NODE)/redocly build-docs --config tests/redocly.yaml --template docs/reference.hbs $(CONTRACT) \
	  --inlineBundle --output $(REFERENCE)

format: $(VENV)/development ## Format the code and apply automatic fixes
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

generate: $(VENV)/development ## Generate models/schemas.py from openapi.yaml
	$(BIN)/datamodel-codegen

sdk: sdk-python node ## Generate clients for Python and TypeScript into build/sdk
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory sdk-typescript

sdk-python: $(CONTRACT)
	rm -rf $(SDK)/python
	mkdir -p $(SDK)
	PATH="$(abspath $(BIN)):$$PATH" openapi-python-client generate --path $(CONTRACT) --config tests/sdk/python.yaml --meta pdm \
	  --output-path $(SDK)/python --fail-on-warning

# When npm links a folder, it does not install the folder's dependencies. So copy them, which the compiler needs too.
sdk-typescript: $(CONTRACT) build/node/installed
	rm -rf $(SDK)/typescript
	mkdir -p $(SDK)
	cp -r tests/sdk/typescript $(SDK)/typescript
	mkdir $(SDK)/typescript/node_modules
	cp -r build/node/node_modules/openapi-fetch build/node/node_modules/openapi-typescript-helpers $(SDK)/typescript/node_modules
	npm pkg set --prefix $(SDK)/typescript \
	  version=$$($(BIN)/python -c 'import yaml; print(yaml.safe_load(open("openapi.yaml"))["info"]["version"])')
	$(NODE)/openapi-typescript $(CONTRACT) --default-non-nullable=false --output $(SDK)/typescript/schema.ts
	$(NODE)/tsc --project $(SDK)/typescript

sdks: $(VENV)/sdks $(CONTRACT) node ## Generate clients in seven languages with openapi-generator, compile them, and call the service with them
	$(BIN)/pytest tests/sdk -m sdks --numprocesses 2 --basetemp=build/sdks

lock: $(VENV)/development ## Update the locked versions of all dependencies
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --group build -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --extra all --group build -c requirements.lock -o requirements-all.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --extra all --group build --group dev -c requirements-all.lock -o requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --group benchmark -c requirements-dev.lock -o requirements-benchmark.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --group sdks -c requirements-dev.lock -o requirements-sdks.lock
	@! command -v npm >/dev/null || for folder in tests/node tests/benchmarks/applications/node; do \
	  npm update --prefix $$folder --package-lock-only --ignore-scripts --no-audit --no-fund; done

swagger-ui: ## Update the vendored Swagger UI to the version in the Makefile (needs npm)
	mkdir -p build
	cd build && npm pack --silent swagger-ui-dist@$(SWAGGER_UI) && tar xzf swagger-ui-dist-$(SWAGGER_UI).tgz
	cd build/package && cp LICENSE NOTICE favicon-32x32.png swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt \
	  swagger-ui.css ../../handlers/documentation/swagger_ui/

clean: ## Remove everything that the targets created, but no databases
	rm -rf .venv .venv-python* build dist

$(CONTRACT): openapi.yaml handlers/contract/standard.yaml $(wildcard handlers/contract/*.py) | $(VENV)/development
	@mkdir -p build
	@$(BIN)/tasks-api contract > $@.$$$$ && mv $@.$$$$ $@

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Twice quiet: errors only, since pip's warnings about its own configuration would hide the output of the targets.
$(VENV)/runtime: requirements.lock pyproject.toml | $(VENV)/python
	@echo "Installing the service into $(VENV) ..."
	@$(BIN)/pip install -qq --require-hashes -r requirements.lock
	@$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/development: requirements-dev.lock $(VENV)/runtime | build/json-schema-tests
	@echo "Installing the development tools into $(VENV) ..."
	@$(BIN)/pip install -qq --require-hashes -r requirements-dev.lock
	@touch $@

# The JSON Schema Test Suite, from the source archive of jsonschema. Its package on npm has no Draft 2020-12.
build/json-schema-tests: requirements-dev.lock | $(VENV)/runtime
	@rm -rf $@
	@mkdir -p $@
	@sed -n '/^jsonschema==/,/[^\\]$$/p' requirements-dev.lock > $@/requirements.txt
	@$(BIN)/pip download -qq --no-deps --no-binary jsonschema --require-hashes --dest $@ -r $@/requirements.txt
	@tar xzf $@/jsonschema-*.tar.gz --directory $@ --strip-components=2 --wildcards '*/json/tests'
	@touch $@

# Only the runtime dependencies: some packages load more code if others are installed.
build/service: requirements-all.lock
build/core: requirements.lock
build/service build/core: pyproject.toml
	$(PYTHON) -m venv --clear $@
	$@/bin/pip install -qq --require-hashes -r $(filter %.lock,$^)
	$@/bin/pip install -qq --no-deps --no-build-isolation -e .
	touch $@

# Skip the targets that need Node if it is not installed, but fail in CI.
node:
	@if command -v npm >/dev/null; then $(MAKE) --silent build/node/installed; \
	  else echo "Skipped, since Node is not installed: linting the contract, its reference, the SDK for TypeScript, the stories."; \
	  test -z "$$CI"; fi

build/node/installed: tests/node/package.json tests/node/package-lock.json
	mkdir -p build/node
	cp tests/node/package.json tests/node/package-lock.json build/node
	npm ci --prefix build/node --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	touch $@

build/benchmark/installed: $(addprefix tests/benchmarks/applications/node/,package.json package-lock.json)
	mkdir -p build/benchmark
	cp $^ build/benchmark
	npm ci --prefix build/benchmark --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	touch $@

$(VENV)/benchmark: requirements-benchmark.lock $(VENV)/development
	$(BIN)/pip install -qq --require-hashes -r requirements-benchmark.lock
	touch $@

$(VENV)/sdks: requirements-sdks.lock $(VENV)/development
	$(BIN)/pip install -qq --require-hashes -r requirements-sdks.lock
	touch $@
