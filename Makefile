# What a person types, and what .ci/run types as well. `make help` lists it.

DATA_DIR    ?= default.etcd
CLIENT_URL  ?= http://127.0.0.1:2379
PEER_URL    ?= http://127.0.0.1:2380
# Further flags for the server: make run FLAGS='--debug --cors=*'
FLAGS       ?=
# Further words for scripts and tests: make conformance ARGS='--seeds 1,2,3 --steps 20000', make test ARGS=--lib
ARGS        ?=
# Rounds of make crash; how often make walkthrough is walked
ROUNDS      ?= 100
WALKS       ?= 1
# Tests of make clustertest, by a part of their names: make clustertest TESTS=failover
TESTS       ?=
# Seeds of make sim, or the one to show: make sim SEED=8814 NODES=5
SEEDS       ?= 500
SEED        ?=
NODES       ?=
# Handovers of make sim, in good weather and again in bad
HANDOVERS   ?= 1000

# make install puts both programs into DESTDIR/PREFIX/bin, and what a shell and man(1) need into …/share; with
# LINKS=yes they are etcd and etcdctl as well
PREFIX      ?= /usr/local
DESTDIR     ?=
LINKS       ?=
# Another machine than this one, by Rust's name for it: make dist TARGET=aarch64-unknown-linux-musl
TARGET      ?=
DIST_DIR    ?= target/dist

FOR_TARGET := $(if $(TARGET),--target '$(TARGET)')
RELEASE    := target/$(if $(TARGET),$(TARGET)/)release
EDGETCD    := $(RELEASE)/edgetcd
EDGETCDCTL := $(RELEASE)/edgetcdctl
export EDGETCD EDGETCDCTL

# Tests of the clusters that cut links or mount file systems run for root only.
AS_ROOT    := $(if $(filter 0,$(shell id -u)),--include-ignored)

# What prints the man page and the completions: edgetcdctl as it runs here.
HOSTCTL    ?= $(if $(TARGET),cargo run --quiet --locked --bin edgetcdctl --,'$(EDGETCDCTL)')

# For musl targets Rust has a libc and a linker of its own, so that nothing else is needed for them.
ifneq ($(findstring -musl,$(TARGET)),)
LINKER := CARGO_TARGET_$(shell echo '$(TARGET)' | tr a-z- A-Z_)_LINKER
export $(LINKER) ?= rust-lld
endif

.DEFAULT_GOAL := build
.PHONY: build run test roottest smalldisk check lints conformance clients metrics crash sim bars bench clean help \
        clustertest clusterbars backuptest walkthrough clusterbench tsan \
        cluster status kill pause resume restart wipe add stop demo \
        install dist

build: ## build both programs into target/release (this is what `make` does)
	cargo build --release --locked $(FOR_TARGET)

# `sudo make install` must not need a Rust of root's: what is built already is taken as it is.
$(EDGETCD) $(EDGETCDCTL):
	$(MAKE) build

run: build ## run one node on 127.0.0.1:2379, data in ./default.etcd or DATA_DIR=…
	$(EDGETCD) --data-dir '$(DATA_DIR)' \
	  --listen-client-urls '$(CLIENT_URL)' --advertise-client-urls '$(CLIENT_URL)' \
	  --listen-peer-urls '$(PEER_URL)' --initial-advertise-peer-urls '$(PEER_URL)' $(FLAGS)

# The script behind these says what a cluster is: src/cluster/run. It reads the variables itself, which make
# passes on; it is called without a shell between, which a Ctrl-C would end before it.
cluster: build ## three nodes, their logs in colours, until Ctrl-C (N=5, BASE_PORT=…, CLUSTER_DIR=…, DETACH=yes)
status: ## the nodes of that cluster: processes, ports, folders, and who leads
kill: ## kill -9 a node of it: NODE=2, or NODE=leader
pause: ## stop a node in its tracks, as a machine that hangs (NODE=2)
resume: ## let it go on (NODE=2)
restart: ## start a node again, or end and start it (NODE=2)
wipe: ## take a node's data away, and let it come back as a new member (NODE=2)
add: ## add one more member to it, and start it
stop: ## end all its nodes; the data stays
cluster status kill pause resume restart wipe add stop:
	@src/cluster/run $@
status restart wipe add: $(EDGETCD) $(EDGETCDCTL)

demo: build ## two minutes: a leader dies, and what the others do (DEMO_PACE=0 does not wait for a reader)
	@src/cluster/demo

test: ## run all tests, or those of ARGS (TARGET=… for a target whose programs run here)
	cargo test --locked $(FOR_TARGET) $(ARGS)

# Each of these tests says what it needs, and fails where that is missing. The tests of the clusters are not among them.
roottest: build ## tests that need root, a tool that may be missing (README.md lists them), or the release build
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' cargo test --locked -- --ignored

check: lints ## format, lints, docs and tests: what must pass before a commit
	cargo fmt --check
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	cargo test --locked

# Cargo's --all-targets are those that `cargo test` runs; the clusters are not among them.
lints: ## clippy, on everything
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test cluster -- -D warnings

conformance: build ## drive the reference etcd and this server with the same requests (ARGS=…)
	tests/conformance/run $(ARGS)

clients: build ## the clients people have, against the reference and this server (ARGS='--only node-etcd')
	tests/clients/run $(ARGS)

metrics: build ## what /metrics says: a strict reader, each number's cause, promtool
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' cargo test --locked --test metrics -- --nocapture

crash: build ## a hundred rounds of kill -9 under 16 writers (ROUNDS=…)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' CRASH_ROUNDS=$(ROUNDS) cargo test --locked --test crash

sim: ## whole clusters under a seeded scheduler (SEEDS=…, NODES=3|5; SEED=… shows one)
	$(if $(NODES),NODES=$(NODES)) $(if $(SEED),SEED=$(SEED),SEEDS=$(SEEDS)) HANDOVERS=$(HANDOVERS) \
	  cargo test --quiet --locked --profile sim --test sim -- --nocapture \
	  $(if $(SEED),one_seed,no_promise_breaks handovers::)

tsan: ## tests with real threads, and clusters, under ThreadSanitizer (needs rust-src)
	tests/tsan/run

bars: build ## the limits on time, memory and size, held by the release build
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' IDLE_SECONDS=30 EXPIRING_KEYS=100000 EXPIRING_AFTER_S=40 \
	  cargo test --locked --test lifecycle --test hostile --test watching --test golden

smalldisk: build ## disks of 8 to 400 MB, 200,000 writes to each case, none refused (needs root; five minutes)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' SMALL_DISKS=8,24,64,400 SMALL_VALUES=100,500,10000,100000,1048576 SMALL_WRITES=200000 \
	  cargo test --locked --test small_disk -- --ignored --nocapture

# Three nodes and more, as processes. Few and short rounds; make clusterbars has those of the bars.
# Tests that cut links need root and iproute2.
clustertest: build ## clusters of real processes: faults, members, histories (TESTS=…; root cuts links and fills disks, too)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' cargo test --locked --test cluster -- --nocapture $(AS_ROOT) $(TESTS)

clusterbars: build ## the same, as long and as often as the bars ask for (half an hour)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' TIME_BARS=yes FAILOVER_ROUNDS=20 NEMESIS_SECONDS=60 CATCH_UP_WRITES=200000 \
	  LINK_PATTERNS=64 LINK_HOLD_MS=5000 REMOVED_SECONDS=60 ISOLATED_MS=60000 CROSSED_SECONDS=30 \
	  ADDED_SECONDS=30 STALE_ROUNDS=20 MINORITY_PUTS=1000000 IDLE_SECONDS=30 SLOW_MB=100 ROLLING_ROUNDS=20 \
	  cargo test --locked --test cluster -- --nocapture $(AS_ROOT) $(TESTS)

backuptest: build ## backup and restore on 1, 3 and 5 nodes with 100,000 keys
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' BACKUP_KEYS=100000 BACKUP_KILLS=20 \
	  cargo test --locked --test backup -- --nocapture --test-threads=1 $(TESTS)

walkthrough: build ## the commands of the first day, on three nodes, with Debian's etcdctl (WALKS=10)
	for walk in $$(seq $(WALKS)); do \
	  tests/walkthrough/walkthrough.py --server '$(CURDIR)/$(EDGETCD)' --ctl 'env ETCDCTL_API=2 etcdctl' || exit 1; \
	done

clusterbench: build ## measure three nodes and the reference's three side by side (ARGS=…)
	bench/cluster $(ARGS)

bench: build ## measure this server and the reference side by side (ARGS=…)
	bench/run $(ARGS)

# pages FOLDER: the man page and the completions, where man(1) and the shells look for them.
define pages
	install -d '$(1)/man/man1' '$(1)/bash-completion/completions' '$(1)/zsh/site-functions' '$(1)/fish/vendor_completions.d'
	$(HOSTCTL) man >'$(1)/man/man1/edgetcdctl.1'
	$(HOSTCTL) completion bash >'$(1)/bash-completion/completions/edgetcdctl'
	$(HOSTCTL) completion zsh >'$(1)/zsh/site-functions/_edgetcdctl'
	$(HOSTCTL) completion fish >'$(1)/fish/vendor_completions.d/edgetcdctl.fish'
	chmod 644 $(foreach page,man/man1/edgetcdctl.1 bash-completion/completions/edgetcdctl zsh/site-functions/_edgetcdctl \
	  fish/vendor_completions.d/edgetcdctl.fish,'$(1)/$(page)')
endef

# A link is made where nothing is. An etcd that is there already stays, and that is an error.
install: $(EDGETCD) $(EDGETCDCTL) ## copy what is built to PREFIX=/usr/local (LINKS=yes: as etcd and etcdctl, too)
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 '$(EDGETCD)' '$(EDGETCDCTL)' '$(DESTDIR)$(PREFIX)/bin'
	$(call pages,$(DESTDIR)$(PREFIX)/share)
ifeq ($(LINKS),yes)
	cd '$(DESTDIR)$(PREFIX)/bin' && { [ "$$(readlink etcd)" = edgetcd ] || ln -s edgetcd etcd; }
	cd '$(DESTDIR)$(PREFIX)/bin' && { [ "$$(readlink etcdctl)" = edgetcdctl ] || ln -s edgetcdctl etcdctl; }
endif

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
DIST    = edgetcd-$(VERSION)-$(or $(TARGET),$(shell rustc -vV | sed -n 's/^host: //p'))

# Laid out as PREFIX is, so that it can be unpacked there.
dist: build ## a tarball of both programs, stripped, for this machine or for TARGET=…
	rm -rf '$(DIST_DIR)/$(DIST)'
	install -d '$(DIST_DIR)/$(DIST)/bin'
	install -m 755 '$(EDGETCD)' '$(EDGETCDCTL)' '$(DIST_DIR)/$(DIST)/bin'
	cp LICENSE README.md '$(DIST_DIR)/$(DIST)'
	$(call pages,$(DIST_DIR)/$(DIST)/share)
	tar -C '$(DIST_DIR)' --owner=0 --group=0 -czf '$(DIST_DIR)/$(DIST).tar.gz' '$(DIST)'
	@ls -l '$(DIST_DIR)/$(DIST).tar.gz'

clean: ## remove what was built (data directories stay)
	cargo clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
