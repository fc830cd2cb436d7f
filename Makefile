# Commands for people and for .ci/run. `make help` lists the targets.

DATA_DIR    ?= default.etcd
CLIENT_URL  ?= http://127.0.0.1:2379
PEER_URL    ?= http://127.0.0.1:2380
# More flags for the server: make run FLAGS='--debug --cors=*'
FLAGS       ?=
# More arguments for scripts and tests: make conformance ARGS='--seeds 1,2,3 --steps 20000', make test ARGS=--lib
ARGS        ?=
# Rounds of make crash; repetitions of make walkthrough
ROUNDS      ?= 100
WALKS       ?= 1
# Tests that make roottest leaves out, by parts of their names
SKIP        ?=
# Test programs that run at the same time in make test, and tests of each of them
TEST_JOBS    ?= 3
TEST_THREADS ?= 4
# Tests of make clustertest, selected by a part of their names: make clustertest TESTS=failover
TESTS       ?=
# Cases of make bench, groups of make growth
CASES       ?=
# Seconds for which make bars measures an idle node
IDLE_SECONDS ?= 30
# Seeds of make sim, or a single seed to show: make sim SEED=8814 NODES=5
SEEDS       ?= 500
SEED        ?=
NODES       ?=
# Leadership transfers of make sim, without faults and again with faults
HANDOVERS   ?= 1000

# make install copies both programs to DESTDIR/PREFIX/bin, and their pages, unit, alerts and dashboard to …/share. LINKS=yes also
# creates the names etcd and etcdctl.
PREFIX      ?= /usr/local
DESTDIR     ?=
LINKS       ?=
# Build for another machine; the value is a Rust target name: make dist TARGET=aarch64-unknown-linux-musl. The programs
# in a package are static.
ifneq ($(filter deb,$(MAKECMDGOALS)),)
TARGET      ?= $(shell uname -m)-unknown-linux-musl
endif
TARGET      ?=
DIST_DIR    ?= target/dist

# TLS=no builds the programs without TLS. They are smaller, and a musl target needs no C compiler.
TLS         ?=

FOR_TARGET := $(if $(filter no,$(TLS)),--no-default-features) $(if $(TARGET),--target '$(TARGET)')
RELEASE    := target/$(if $(TARGET),$(TARGET)/)release
EDGETCD    := $(RELEASE)/edgetcd
EDGETCDCTL := $(RELEASE)/edgetcdctl
export EDGETCD EDGETCDCTL

# Cluster tests that cut links or mount file systems run only for root.
AS_ROOT    := $(if $(filter 0,$(shell id -u)),--include-ignored)

# Prints the man page and the completions: an edgetcdctl that runs on this machine.
HOSTCTL    ?= $(if $(TARGET),cargo run --quiet --locked --bin edgetcdctl --,'$(EDGETCDCTL)')

# For musl targets, Rust includes a libc and a linker. TLS contains C and assembly, for which any compiler for that
# processor will do, such as Debian's gcc-aarch64-linux-gnu.
ifneq ($(findstring -musl,$(TARGET)),)
LINKER := CARGO_TARGET_$(shell echo '$(TARGET)' | tr a-z- A-Z_)_LINKER
export $(LINKER) ?= rust-lld
COMPILER := CC_$(subst -,_,$(TARGET))
export $(COMPILER) ?= $(if $(filter arm%,$(TARGET)),arm-linux-gnueabihf,$(firstword $(subst -, ,$(TARGET)))-linux-gnu)-gcc
endif

.DEFAULT_GOAL := build
.PHONY: build run test page pictures roottest smalldisk check lints conformance clients metrics crash sim bars bench clean help \
        clustertest closedtest clusterbars backuptest walkthrough clusterbench securebench growth tsan deny \
        cluster status kill pause resume restart wipe add stop export demo \
        install dist deb image wasm lab labcluster labtest

build: ## build both programs into target/release (this is what `make` does)
	cargo build --release --locked $(FOR_TARGET)

# `sudo make install` must not need Rust for root, so it installs programs that are already built.
$(EDGETCD) $(EDGETCDCTL):
	$(MAKE) build

run: build ## run one node on 127.0.0.1:2379, data in ./default.etcd or DATA_DIR=…
	$(EDGETCD) --data-dir '$(DATA_DIR)' \
	  --listen-client-urls '$(CLIENT_URL)' --advertise-client-urls '$(CLIENT_URL)' \
	  --listen-peer-urls '$(PEER_URL)' --initial-advertise-peer-urls '$(PEER_URL)' $(FLAGS)

# These targets call the script src/scripts/run, which documents the cluster. make passes the variables on, and the
# script reads them. make must call the script without a shell in between: Ctrl-C would end that shell before the
# script.
cluster: build ## run three nodes and show their logs in colours, until Ctrl-C (N=5, FAST=1: no syncs, BASE_PORT=…, CLUSTER_DIR=…, DETACH=yes)
status: ## show the nodes of that cluster: processes, ports, folders, roles
kill: ## kill -9 one of its nodes: NODE=2, or NODE=leader
pause: ## pause a node, like a machine that hangs (NODE=2)
resume: ## continue a paused node (NODE=2)
restart: ## start a node again; stops it first if it runs (NODE=2)
wipe: ## delete a node's data and add it again as a new member (NODE=2)
add: ## add one more member and start it
stop: ## stop all its nodes; the data stays
cluster status kill pause resume restart wipe add stop:
	@src/scripts/run $@
status restart wipe add: $(EDGETCD) $(EDGETCDCTL)

export: ## write that cluster as files for systemd or compose: DIR=units (FORMAT=compose; HOSTS='IP IP IP': a machine each)
	@src/scripts/export

demo: build ## two minutes: a leader dies, a follower hangs, a node is added (DEMO_PACE=0: no pauses for the reader)
	@src/scripts/demo

# Many tests wait for a timeout and not for a processor, so more of them run at the same time than there are cores.
test: export RUST_TEST_THREADS = $(TEST_THREADS)
test: ## run all tests, or those of ARGS (TARGET=…: for a target whose programs run on this machine)
	$(if $(strip $(ARGS)),cargo test --locked $(FOR_TARGET) $(ARGS),JOBS=$(TEST_JOBS) tests/run --locked $(FOR_TARGET))

# Each of these tests documents its requirements and fails if one is missing. The cluster tests are not included.
roottest: build ## tests that need root, a tool that may be missing (README.md lists them), or the release build
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' cargo test --locked -- --ignored --skip one_seed --skip hunt --skip in_webassembly \
	  --skip with_prometheus $(addprefix --skip ,$(SKIP))

check: lints ## check format, lints, docs and tests: all must pass before a commit
	cargo fmt --check
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	$(MAKE) test

# Cargo's --all-targets are the targets that `cargo test` runs; the tests of clusters are not among them.
lints: ## run clippy on all targets, and on the programs without TLS
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test cluster --test closed -- -D warnings
	cargo clippy --locked --lib --bins --no-default-features -- -D warnings

deny: ## check the licenses, versions and sources of all dependencies (needs cargo-deny)
	cargo deny --config tests/deny.toml check licenses bans sources

conformance: build ## send the same requests to the reference etcd and to this server (ARGS=…)
	tests/conformance/run $(ARGS)

clients: build ## run common clients against the reference and this server (ARGS='--only node-etcd')
	tests/clients/run $(ARGS)

page: build ## test the page in a headless Chromium; screenshots in target/page (PAGE_BARS=yes: also the limits on time)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' tests/page/run $(ARGS)

pictures: build ## take the pictures of README again, with the tests of the page and of the lab
	$(MAKE) lab SERVE=no
	mkdir -p tests/page/pictures
	PICTURES='$(CURDIR)/tests/page/pictures' EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' tests/page/run --test-name-pattern='picture of README'
	PICTURES='$(CURDIR)/tests/page/pictures' tests/lab/page/run --test-name-pattern='picture of README'

metrics: build ## test /metrics, and the alerts and the dashboard in a Prometheus (needs Debian's prometheus)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' cargo test --locked --test metrics -- --nocapture --include-ignored

crash: build ## run a hundred rounds of kill -9 under 16 writers (ROUNDS=…)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' CRASH_ROUNDS=$(ROUNDS) cargo test --locked --test crash

sim: ## simulate whole clusters under a seeded scheduler (SEEDS=…, NODES=3|5; SEED=… shows one)
	$(if $(NODES),NODES=$(NODES)) $(if $(SEED),SEED=$(SEED),SEEDS=$(SEEDS)) HANDOVERS=$(HANDOVERS) \
	  cargo test --quiet --locked --profile sim --test sim -- --nocapture \
	  $(if $(SEED),--ignored one_seed,no_promise_breaks handovers::)

# The library is built with the same profile as the native run, so both check the same assertions.
WASM_TARGET := wasm32-unknown-unknown

wasm: SEEDS = 40
wasm: ## build the simulator for WebAssembly and compare its runs in Node with native ones (SEEDS=…)
	rustup target list --installed | grep -qx $(WASM_TARGET) || rustup target add $(WASM_TARGET)
	cargo clippy --locked --lib --target $(WASM_TARGET) -- -D warnings
	cargo rustc --locked --lib --crate-type cdylib --profile sim --target $(WASM_TARGET)
	SEEDS=$(SEEDS) WASM='$(CURDIR)/target/$(WASM_TARGET)/sim/edgetcd.wasm' \
	  cargo test --quiet --locked --profile sim --test sim -- --nocapture --ignored in_webassembly

# One file with the program (the library for WebAssembly, packed) and the page. Its rules can be switched off.
lab: ## build target/lab.html, the simulator in a browser, and serve it at 127.0.0.1:2390 (SERVE=no: only build)
	rustup target list --installed | grep -qx $(WASM_TARGET) || rustup target add $(WASM_TARGET)
	cargo rustc --locked --lib --crate-type cdylib --profile lab --target $(WASM_TARGET)
	src/lab/page/build target/$(WASM_TARGET)/lab/edgetcd.wasm target/lab.html
ifneq ($(SERVE),no)
	cargo run --locked --bin edgetcd-lab -- target/lab.html
endif

labcluster: build ## run real nodes with handles in a browser, at 127.0.0.1:2390 (ARGS='--members 5 --record DIR')
	$(RELEASE)/edgetcd-lab cluster $(ARGS)

labtest: ## play the lab's runs in WebAssembly (needs Node), and use its page in a headless Chromium
	$(MAKE) lab SERVE=no
	WASM='$(CURDIR)/target/$(WASM_TARGET)/lab/edgetcd.wasm' \
	  cargo test --locked --profile sim --test lab -- --nocapture --ignored in_webassembly
	tests/lab/page/run

tsan: ## run tests with real threads, and clusters, under ThreadSanitizer (needs rust-src)
	tests/tsan/run

bars: build ## check the limits on time, memory and size with the release build
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' IDLE_SECONDS=$(IDLE_SECONDS) EXPIRING_KEYS=100000 EXPIRING_AFTER_S=40 \
	  cargo test --locked --test lifecycle --test hostile --test watching --test golden

smalldisk: build ## test disks of 8 to 400 MB with 200,000 writes per case, none refused (needs root; five minutes)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' SMALL_DISKS=8,24,64,400 SMALL_VALUES=100,500,10000,100000,1048576 SMALL_WRITES=200000 \
	  cargo test --locked --test small_disk -- --ignored --nocapture

# Clusters of three and more processes, in few and short rounds. make clusterbars runs the full number. Tests that cut
# links need root and iproute2.
clustertest: build ## test clusters of real processes: faults, members, histories (TESTS=…; as root also cut links and full disks)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' cargo test --locked --test cluster -- --nocapture $(AS_ROOT) $(TESTS)

closedtest: build ## test clusters with TLS and users: rights, certificates, secrets, strangers (TESTS=…)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' cargo test --locked --test closed -- $(TESTS)

clusterbars: build ## the same tests with the full durations and repetitions (half an hour)
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' TIME_BARS=yes FAILOVER_ROUNDS=20 NEMESIS_SECONDS=60 CATCH_UP_WRITES=200000 \
	  LINK_PATTERNS=64 LINK_HOLD_MS=5000 REMOVED_SECONDS=60 ISOLATED_MS=60000 CROSSED_SECONDS=30 \
	  ADDED_SECONDS=30 STALE_ROUNDS=20 MINORITY_PUTS=1000000 IDLE_SECONDS=30 SLOW_MB=100 ROLLING_ROUNDS=20 \
	  cargo test --locked --test cluster -- --nocapture $(AS_ROOT) $(TESTS)

backuptest: build ## test backup and restore on 1, 3 and 5 nodes with 100,000 keys
	EDGETCD_SERVER='$(CURDIR)/$(EDGETCD)' BACKUP_KEYS=100000 BACKUP_KILLS=20 \
	  cargo test --locked --test backup -- --nocapture --test-threads=1 $(TESTS)

walkthrough: build ## run the commands of a first session on three nodes with Debian's etcdctl, without TLS and with it (WALKS=10)
	for walk in $$(seq $(WALKS)); do for tls in '' --tls; do \
	  tests/walkthrough/walkthrough.py $$tls --server '$(CURDIR)/$(EDGETCD)' --ctl 'env ETCDCTL_API=2 etcdctl' || exit 1; \
	done; done

clusterbench: build ## measure three nodes against three nodes of the reference: rates, memory, failover (ARGS=…)
	bench/run --cases 'cluster failover' $(ARGS)

securebench: build ## measure what TLS and access control cost here and in the reference (ARGS=…)
	bench/secure $(ARGS)

bench: build ## measure this server against the reference (CASES='get put': some cases; ARGS=--list shows them)
	bench/run $(if $(CASES),--cases '$(CASES)') $(ARGS)

growth: build ## measure how the cost grows with keys, values, connections, watches, members (CASES='keys width')
	bench/run --growth '$(CASES)' $(ARGS)

# pages FOLDER: installs the man page and the completions where man(1) and the shells look for them, the alerts, the
# dashboard, and the settings of the service.
define pages
	install -d '$(1)/man/man1' '$(1)/bash-completion/completions' '$(1)/zsh/site-functions' '$(1)/fish/vendor_completions.d'
	$(HOSTCTL) man >'$(1)/man/man1/edgetcdctl.1'
	$(HOSTCTL) completion bash >'$(1)/bash-completion/completions/edgetcdctl'
	$(HOSTCTL) completion zsh >'$(1)/zsh/site-functions/_edgetcdctl'
	$(HOSTCTL) completion fish >'$(1)/fish/vendor_completions.d/edgetcdctl.fish'
	chmod 644 $(foreach page,man/man1/edgetcdctl.1 bash-completion/completions/edgetcdctl zsh/site-functions/_edgetcdctl \
	  fish/vendor_completions.d/edgetcdctl.fish,'$(1)/$(page)')
	install -d '$(1)/edgetcd/systemd' '$(1)/edgetcd/prometheus' '$(1)/edgetcd/grafana'
	install -m 644 src/packaging/prometheus/*.yml '$(1)/edgetcd/prometheus'
	install -m 644 src/packaging/grafana/edgetcd.json '$(1)/edgetcd/grafana'
	install -m 644 src/packaging/systemd/edgetcd.env '$(1)/edgetcd/systemd'
	sed 's|^ExecStart=.*|ExecStart=$(PREFIX)/bin/edgetcd|' src/packaging/systemd/edgetcd.service \
	  >'$(1)/edgetcd/systemd/edgetcd.service'
	chmod 644 '$(1)/edgetcd/systemd/edgetcd.service'
endef

# A link is only created if the name is free. If an etcd is already installed there, it stays, and make fails.
install: $(EDGETCD) $(EDGETCDCTL) ## copy the built programs to PREFIX=/usr/local (LINKS=yes: also as etcd and etcdctl)
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 '$(EDGETCD)' '$(EDGETCDCTL)' '$(DESTDIR)$(PREFIX)/bin'
	$(call pages,$(DESTDIR)$(PREFIX)/share)
ifeq ($(LINKS),yes)
	cd '$(DESTDIR)$(PREFIX)/bin' && { [ "$$(readlink etcd)" = edgetcd ] || ln -s edgetcd etcd; }
	cd '$(DESTDIR)$(PREFIX)/bin' && { [ "$$(readlink etcdctl)" = edgetcdctl ] || ln -s edgetcdctl etcdctl; }
endif

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
DIST    = edgetcd-$(VERSION)-$(or $(TARGET),$(shell rustc -vV | sed -n 's/^host: //p'))

# The tarball has the layout of PREFIX, so that users can unpack it there.
dist: build ## make a tarball of both programs, stripped, for this machine or for TARGET=…
	rm -rf '$(DIST_DIR)/$(DIST)'
	install -d '$(DIST_DIR)/$(DIST)/bin'
	install -m 755 '$(EDGETCD)' '$(EDGETCDCTL)' '$(DIST_DIR)/$(DIST)/bin'
	cp LICENSE README.md '$(DIST_DIR)/$(DIST)'
	$(call pages,$(DIST_DIR)/$(DIST)/share)
	tar -C '$(DIST_DIR)' --owner=0 --group=0 -czf '$(DIST_DIR)/$(DIST).tar.gz' '$(DIST)'
	@ls -l '$(DIST_DIR)/$(DIST).tar.gz'

# Debian's name of the processor of TARGET.
DEB_ARCH_x86_64  := amd64
DEB_ARCH_aarch64 := arm64
DEB_ARCH_armv7   := armhf
DEB_ARCH_i686    := i386
DEB_ARCH          = $(DEB_ARCH_$(firstword $(subst -, ,$(TARGET))))
DEB               = $(DIST_DIR)/edgetcd_$(VERSION)_$(DEB_ARCH).deb

deb: build ## make a Debian package with static programs: for this machine, or TARGET=aarch64-unknown-linux-musl
	@[ -n '$(DEB_ARCH)' ] || { echo 'Debian has no name for TARGET=$(TARGET) here. Known: x86_64-, aarch64-, armv7-, i686-…' >&2; exit 1; }
	rm -rf '$(DIST_DIR)/deb-$(DEB_ARCH)'
	$(MAKE) install DESTDIR='$(abspath $(DIST_DIR))/deb-$(DEB_ARCH)' PREFIX=/usr LINKS= TARGET='$(TARGET)'
	src/packaging/deb/build '$(DIST_DIR)/deb-$(DEB_ARCH)' '$(VERSION)' '$(DEB_ARCH)' '$(DEB)'
	rm -r '$(DIST_DIR)/deb-$(DEB_ARCH)'
	@ls -l '$(DEB)'

# OCI's name of the processor of a target.
OCI_ARCH_x86_64  := amd64
OCI_ARCH_aarch64 := arm64
OCI_ARCH_armv7   := arm/v7
OCI_ARCH_i686    := 386
TARGETS          ?= $(shell uname -m)-unknown-linux-musl
IMAGE             = $(DIST_DIR)/edgetcd-$(VERSION)-image.tar

image: ## make an OCI archive with static programs: for this machine, or TARGETS='x86_64-unknown-linux-musl aarch64-…'
	$(foreach target,$(TARGETS),$(MAKE) build TARGET='$(target)' && )true
	src/packaging/image/build '$(IMAGE)' '$(VERSION)' \
	  $(foreach target,$(TARGETS),'$(OCI_ARCH_$(firstword $(subst -, ,$(target))))=target/$(target)/release')
	@ls -l '$(IMAGE)'

clean: ## remove the built files (data directories stay)
	cargo clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
