# What a person types, and what .ci/run types as well. `make help` lists it.

DATA_DIR    ?= default.etcd
CLIENT_URL  ?= http://127.0.0.1:2379
PEER_URL    ?= http://127.0.0.1:2380
# Further flags for the server: make run FLAGS='--debug --cors=*'
FLAGS       ?=
# Further words for the scripts: make conformance ARGS='--seeds 1,2,3 --steps 20000'
ARGS        ?=
# Rounds of make crash
ROUNDS      ?= 100

EDGETCD := target/release/edgetcd

.DEFAULT_GOAL := build
.PHONY: build run test check conformance clients crash bars bench clean help

build: ## build both programs into target/release (this is what `make` does)
	cargo build --release --locked

run: build ## run one node on 127.0.0.1:2379, data in ./default.etcd or DATA_DIR=…
	$(EDGETCD) --data-dir '$(DATA_DIR)' \
	  --listen-client-urls '$(CLIENT_URL)' --advertise-client-urls '$(CLIENT_URL)' \
	  --listen-peer-urls '$(PEER_URL)' --initial-advertise-peer-urls '$(PEER_URL)' $(FLAGS)

test: ## run all tests
	cargo test --locked

check: ## format, lints, docs and tests: what must pass before a commit
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	cargo test --locked

conformance: build ## drive the reference etcd and this server with the same requests (ARGS=…)
	tests/conformance/run $(ARGS)

clients: build ## etcdctl and python-etcd against the reference and this server
	tests/clients/run $(ARGS)

crash: build ## a hundred rounds of kill -9 under 16 writers (ROUNDS=…)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' CRASH_ROUNDS=$(ROUNDS) cargo test --locked --test crash

bars: build ## the limits on time, memory and size, held by the release build
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' IDLE_SECONDS=30 \
	  cargo test --locked --test lifecycle --test hostile --test full_disk --test watching --test golden

bench: build ## measure this server and the reference side by side (ARGS=…)
	bench/run $(ARGS)

clean: ## remove what was built (data directories stay)
	cargo clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
