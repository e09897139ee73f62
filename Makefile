# Everything a person does with Penstock from a checkout. `make` alone lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

# What `make run` reads: a live relay instead of the bundled recording, where the data lies, events a second.
RELAY_URL ?=
DATA ?= $(if $(RELAY_URL),data/live,data/recording)
RATE ?= 500

# What `make fuzz` runs: seconds for each target, and which target.
SECONDS ?= 60
TARGET ?=

.PHONY: help tools ui run test ui-test chart-test observability-test schema-test envtest lint fmt generate check-generated bench faults handover soak e2e fuzz image clean

help: ## Lists what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

tools: ## Installs what is missing, or says what to install
	@scripts/ensure-tools.sh

ui: tools ## Builds the dashboard's page, where Node.js is there
	@scripts/build-page.sh

run: tools ui ## Runs the whole pipeline on the bundled recording; RELAY_URL=wss://bsky.network for a live relay
	$(CARGO) build --release -p penstock
	@exec $(RELEASE)/penstock run --data "$(DATA)" --rate "$(RATE)" $(if $(RELAY_URL),--relay "$(RELAY_URL)")

test: tools ui ## Runs every test, on a Redis and a PostgreSQL of their own
	$(CARGO) test --workspace
	@scripts/ensure-tools.sh chromium
	@scripts/test-page.sh
	@scripts/test-chart.sh
	@scripts/test-rules.sh
	@scripts/test-observability.sh
	@scripts/test-schema-tool.sh

ui-test: ui ## Checks the page: types, pure parts, and itself in Chromium; PENSTOCK_BIN names the binary to run it against
	@scripts/ensure-tools.sh chromium
	@scripts/test-page.sh

chart-test: ## Renders the chart with all its values files, and applies it and the samples to a real API server, dry
	@scripts/test-chart.sh

observability-test: ## Checks alerts by promtool, and dashboards and alerts by a Prometheus that scrapes a pipeline (PENSTOCK_BIN)
	@scripts/test-rules.sh
	@scripts/test-observability.sh

schema-test: tools ## Runs the AppView's schema tool, the real drizzle-kit, on databases that Penstock shares with it
	@scripts/test-schema-tool.sh

envtest: ## Gets a Kubernetes API server for the tests: by setup-envtest, or built with Go
	@scripts/envtest.sh

lint: ## Checks format and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Formats the code
	$(CARGO) fmt --all

generate: ## Writes the generated files anew
	@scripts/generate.sh

check-generated: ## Fails where a generated file is not what its source says
	@scripts/generate.sh --check

bench: tools ## Measures the budgets, each beside its limit in the same run
	$(CARGO) build --release -p penstock -p penstock-bench
	@exec $(RELEASE)/penstock-bench

fuzz: ## Fuzzes each parser for SECONDS=60, or only TARGET=frame, car, entry or settings
	@fuzz/run.sh "$(SECONDS)" $(TARGET)

faults: tools ## Breaks everything while events flow, ten seeds; SEED=n for one, SEEDS, FAULTS, EVENTS, WORKERS, JOBS, WITHOUT=kinds
	@$(CARGO) test --package penstock --test pipeline -- --exact faults::fault_suite \
		handover::migration::the_migration_guide_leads_there_and_back_twice --ignored --nocapture

handover: tools ## Lets the system before us and ours alternate ROUNDS=200 times while events flow; SEED=n for another run
	@SEED="$(or $(SEED),1)" ROUNDS="$(or $(ROUNDS),200)" \
		$(CARGO) test --package penstock --test pipeline -- --exact handover::handover_suite \
		handover::migration::the_migration_guide_leads_there_and_back_twice --ignored --nocapture

soak: tools ## Runs for MINUTES=20 at RATE=2000 events/s with a fault EVERY=20 seconds, and shows each process' memory
	$(CARGO) build --release -p penstock
	@PENSTOCK_BIN="$(abspath $(RELEASE))/penstock" \
		$(CARGO) test --package penstock --test pipeline -- --exact faults::soak_suite --ignored --nocapture

e2e: tools ## Runs chart, operator and pipeline on a cluster with running pods, and deletes them while events flow; EVENTS=160000
	$(CARGO) build --release -p penstock
	@PENSTOCK_BIN="$(abspath $(RELEASE))/penstock" scripts/e2e.sh

image: ## Builds the container image
	docker build --tag penstock:dev .

clean: ## Removes what was built
	$(CARGO) clean
