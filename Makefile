# Everything a person does with Penstock from a checkout. `make` alone lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

# What `make run` reads: a live relay instead of the bundled recording, where the data lies, events a second, further arguments.
# RELAY_URL counts on make's own command line only: in the environment it is meant for other programs.
ifneq ($(origin RELAY_URL),command line)
RELAY_URL :=
endif
ARGS ?=
DATA ?= $(if $(RELAY_URL),data/live,data/recording)
RATE ?= 500

# What `make fuzz` runs: seconds for each target, and which target.
SECONDS ?= 60
TARGET ?=

.PHONY: help tools ui run test ui-test situations screenshots chart-test observability-test schema-test envtest lint fmt generate check-generated bench faults handover loud soak e2e fuzz image clean outages matrix chaos heal-chaos images sbom kstatus-test pds repo-memory

help: ## Lists the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

tools: ## Installs missing tools, or says what to install
	@scripts/ensure-tools.sh

ui: tools ## Builds the dashboard's page, if Node.js is installed
	@scripts/build-page.sh

run: tools ui ## Runs the whole pipeline on the bundled recording; RELAY_URL=wss://bsky.network for a live relay, ARGS="--for 5m" for more
	$(CARGO) build --release -p penstock
	@exec $(RELEASE)/penstock run --data "$(DATA)" --rate "$(RATE)" $(if $(RELAY_URL),--relay "$(RELAY_URL)") $(ARGS)

test: tools ui ## Runs every test, each with its own Redis and PostgreSQL
	$(CARGO) test --workspace --no-fail-fast
	@scripts/ensure-tools.sh chromium
	@scripts/test-page.sh
	@scripts/test-chart.sh
	@scripts/test-rules.sh
	@scripts/test-observability.sh
	@scripts/test-schema-tool.sh
	@scripts/test-kstatus.sh

ui-test: ui ## Checks the page: types, unit tests, and in Chromium; PENSTOCK_BIN is the binary to test against
	@scripts/ensure-tools.sh chromium
	@scripts/test-page.sh

situations: ui ## Kills, freezes and restarts each part under the page, which must say so in time; SHOTS=folder keeps screenshots
	$(CARGO) build -p penstock
	@scripts/ensure-tools.sh chromium
	@cd crates/dashboard/ui && PENSTOCK_SITUATIONS=all PENSTOCK_SHOTS="$(if $(SHOTS),$(abspath $(SHOTS)))" \
		PENSTOCK_BIN="$${PENSTOCK_BIN:-$(abspath $(or $(CARGO_TARGET_DIR),target)/debug/penstock)}" node --test tests/situations.test.mjs

screenshots: ui ## Makes docs/images anew, from a demo in Chromium; DASHBOARD=http://127.0.0.1:8000 for one that runs
	$(if $(DASHBOARD),,$(CARGO) build --release -p penstock)
	@scripts/ensure-tools.sh chromium
	@cd crates/dashboard/ui && DASHBOARD="$(DASHBOARD)" PENSTOCK_BIN="$${PENSTOCK_BIN:-$(abspath $(RELEASE)/penstock)}" node scripts/screenshots.mjs

matrix: ## Runs the tests on every server that Debian's suites have (target/matrix/table.md); SERVERS="redis-8 valkey-9" for some
	@scripts/matrix.sh $(SERVERS)

chart-test: ## Renders the chart with all its values files, and dry-runs it and the samples against a real API server
	@scripts/test-chart.sh

observability-test: ## Checks alerts with promtool, and alerts and dashboards with a Prometheus scraping a pipeline (PENSTOCK_BIN)
	@scripts/test-rules.sh
	@scripts/test-observability.sh

schema-test: tools ## Runs the AppView's schema tool (the real drizzle-kit) on databases shared with Penstock
	@scripts/test-schema-tool.sh

kstatus-test: tools ## Lets kstatus (Helm's --wait, Flux) and Argo CD's script judge a pipeline in each phase
	@scripts/test-kstatus.sh

pds: tools ## Runs pipelines for MINUTES=5 on the real servers of npm, while accounts write, move, rotate keys and go; SEED=n for another run
	@$(CARGO) test --package penstock --test pipeline -- --exact pds::suite::pds_suite pds::healing::healing_suite --ignored --nocapture

envtest: ## Gets a Kubernetes API server for the tests, with setup-envtest or built with Go
	@scripts/envtest.sh

lint: ## Checks formatting, clippy with warnings denied, links in the manual, and that no files import each other in a circle
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@scripts/find-circles.pl --self-test
	@scripts/find-circles.pl
	@scripts/check-links.pl --self-test

fmt: ## Formats the code
	$(CARGO) fmt --all

generate: ## Regenerates the generated files
	@scripts/generate.sh

check-generated: ## Fails if a generated file is out of date
	@scripts/generate.sh --check

bench: tools ## Measures the budgets, each against its limit in the same run
	$(CARGO) build --release -p penstock -p penstock-bench
	@exec $(RELEASE)/penstock-bench

fuzz: ## Fuzzes each parser for SECONDS=60, or only TARGET=frame, car, proof, repo, entry, settings, document or export
	@fuzz/run.sh "$(SECONDS)" $(TARGET)

faults: tools ## Injects faults under load, ten seeds; SEED=n for one, SEEDS, FAULTS, EVENTS, WORKERS, JOBS, WITHOUT=kinds
	@$(CARGO) test --package penstock --test pipeline -- --exact faults::fault_suite \
		handover::migration::the_migration_guide_leads_there_and_back_twice --ignored --nocapture

handover: tools ## Alternates between the previous system and Penstock ROUNDS=200 times under load; SEED=n for another run
	@SEED="$(or $(SEED),1)" ROUNDS="$(or $(ROUNDS),200)" \
		$(CARGO) test --package penstock --test pipeline -- --exact handover::handover_suite \
		handover::migration::the_migration_guide_leads_there_and_back_twice --ignored --nocapture

loud: tools ## Measures how much one flooding repo delays others: LOUD=20000 events/s next to OTHERS=400, PART=15 seconds each
	$(CARGO) build --release -p penstock
	@PENSTOCK_BIN="$(abspath $(RELEASE))/penstock" \
		$(CARGO) test --package penstock --test pipeline -- --exact loud::loud_suite --ignored --nocapture

repo-memory: ## Reads a repo of a million records in a process of its own, which may take 128 MiB
	@$(CARGO) test --package penstock-repo --test memory -- --exact a_million_records_take_128_mib --ignored --nocapture

outages: tools ## Kills and freezes each server for a minute, and counts the log lines of each service
	@$(CARGO) test --package penstock --test pipeline -- --exact outages::outage_suite --ignored --nocapture

soak: tools ## Runs for MINUTES=20 at RATE=2000 events/s with a fault EVERY=20 seconds, and reports each process's memory
	$(CARGO) build --release -p penstock
	@PENSTOCK_BIN="$(abspath $(RELEASE))/penstock" \
		$(CARGO) test --package penstock --test pipeline -- --exact faults::soak_suite --ignored --nocapture

e2e: tools ## Runs chart, operator and pipeline on a cluster with running pods, and deletes them while events flow; EVENTS=160000
	$(CARGO) build --release -p penstock
	@PENSTOCK_BIN="$(abspath $(RELEASE))/penstock" scripts/e2e.sh

chaos: tools ## Deletes pods without end, takes the operator and the API server away, changes and spoils things, and counts; EVENTS, SEED
	$(CARGO) build --release -p penstock
	@PENSTOCK_BIN="$(abspath $(RELEASE))/penstock" scripts/e2e.sh chaos

heal-chaos: ## Kills healers and PostgreSQL and takes hosts away 100 times during a backfill of 2,000 repos, reads one of 10^6 records beside hosts that fail, and counts; KILLS, REPOS, RECORDS, SEED
	@PENSTOCK_HEAL_REPOS=$(or $(REPOS),2000) PENSTOCK_KILLS=$(or $(KILLS),100) PENSTOCK_HEAL_RECORDS=$(or $(RECORDS),1000000) $(CARGO) test -p penstock-heal --test healing -- --exact \
		kills::a_backfill_is_complete_whatever_is_killed_and_little_is_fetched_twice \
		hosts::whatever_hosts_do_is_named_and_they_are_left_alone_and_the_others_go_on --nocapture --test-threads=1

image: ## Builds the container image for this machine's processor
	docker build --tag penstock:dev .

images: ## Builds the container image for amd64 and arm64 and pushes it as IMAGE=registry/name:tag; needs Docker's buildx
	docker buildx build --platform linux/amd64,linux/arm64 --provenance=mode=max --tag "$(IMAGE)" --push .

sbom: ## Writes what the image is made of to target/sbom, as CycloneDX; installs cargo-cyclonedx into target/tools once
	@scripts/sbom.sh

clean: ## Removes build output
	$(CARGO) clean
