# The two commands of the README are `make demo` and `make test`; both install what they need (Debian, Ubuntu).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := build

CARGO ?= $(or $(shell command -v cargo),$(HOME)/.cargo/bin/cargo)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

BUILD_PACKAGES := gcc libc6-dev pkgconf libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
RUN_PACKAGES := gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-x
DEMO_PACKAGES := gstreamer1.0-plugins-bad
# What the tests of the screen need, and those of the camera.
SCREEN_PACKAGES := xvfb xdotool
CAMERA_PACKAGES := xz-utils $(SCREEN_PACKAGES)
TEST_PACKAGES := gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-plugins-base-apps $(SCREEN_PACKAGES) \
	python3-gi gir1.2-gst-rtsp-server-1.0 iproute2 strace util-linux procps
# Debian's own Python, whose OpenCV knows GStreamer; what Debian has not comes from pip into target/.
PYTHON_PACKAGES := python3 python3-venv python3-numpy python3-opencv
PYTHON := $(CURDIR)/target/python/bin/python

# Installs those of the packages named after it that are missing.
define install_missing
	missing=()
	for package in $(1); do
		dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package")
	done
	if [ "$${#missing[@]}" -gt 0 ]; then
		echo "Installing $${missing[*]}"
		$(SUDO) apt-get update -qq
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null
	fi
	command -v "$(CARGO)" >/dev/null || { echo "Rust is missing: install it with rustup, or the packages cargo and rustc (1.92 or later)" >&2; exit 1; }
endef

.PHONY: build
build: ## builds the plugin: target/plugin/libgstrsshm.so
	@$(call install_missing,$(BUILD_PACKAGES))
	$(CARGO) build --release --locked
	# Into a folder of its own: GStreamer searches all below GST_PLUGIN_PATH, and target/release is full of libraries.
	install -D -m 644 target/release/libgstrsshm.so target/plugin/libgstrsshm.so

.PHONY: demo
demo: build ## one program shows what another one captures; Ctrl-C ends it
	@$(call install_missing,$(RUN_PACKAGES) $(DEMO_PACKAGES))
	GST_PLUGIN_PATH="$$PWD/target/plugin$${GST_PLUGIN_PATH:+:$$GST_PLUGIN_PATH}" exec pipelines/demo.sh

.PHONY: test
test: ## all checks and tests
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES) $(PYTHON_PACKAGES))
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features fuzzing --locked -- -D warnings
	RUSTFLAGS="--cfg rsshm_loom" $(CARGO) test --package rsshm-channel --test loom_pins --release --locked --target-dir target/loom
	$(CARGO) test --workspace --doc --locked
	$(MAKE) --no-print-directory test-python
	$(MAKE) --no-print-directory test-camera
	$(MAKE) --no-print-directory instructions
	if $(CARGO) nextest --version >/dev/null 2>&1; then
		$(CARGO) nextest run --workspace --locked
	else
		$(CARGO) test --workspace --locked --all-targets -- --test-threads=2
	fi

.PHONY: instructions
instructions: ## counts what a frame costs in instructions, and fails when it is much more than it was
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) valgrind)
	$(CARGO) test --release --locked --test instructions -- --nocapture

.PHONY: test-camera
test-camera: ## the tests with a real camera device, in a small virtual machine
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(CAMERA_PACKAGES))
	status=0
	tests/camera/prepare || status=$$?
	if [ "$$status" = 77 ]; then exit 0; fi
	[ "$$status" = 0 ]
	$(CARGO) test --locked --test camera
	# No backtraces: emulated, they take longer than the tests.
	RUST_BACKTRACE=0 CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$$PWD/tests/camera/vm $$PWD/tests/camera/each" \
		$(CARGO) test --locked --test camera -- $(CAMERA_TESTS)

.PHONY: test-python
test-python: ## the Python package's alone
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES) $(PYTHON_PACKAGES))
	# The peers on the other side: the plugin, and the Rust examples.
	$(CARGO) build --workspace --lib --examples --locked
	if ! "$(PYTHON)" -c 'import pytest, posix_ipc, mypy' 2>/dev/null; then
		/usr/bin/python3 -m venv --clear --system-site-packages target/python
		"$(PYTHON)" -m pip install --quiet --disable-pip-version-check pytest posix_ipc mypy
	fi
	cd python
	"$(PYTHON)" -m mypy
	"$(PYTHON)" -m pytest

.PHONY: bench
bench: build ## compares with other ways between two programs, 5 minutes: make bench BENCH='--help'
	@$(call install_missing,$(RUN_PACKAGES) gstreamer1.0-plugins-bad)
	$(CARGO) build --release --locked --package rsshm-bench
	# A registry of its own: programs that look for plugins elsewhere rewrite the user's.
	export GST_REGISTRY="$$PWD/target/bench-registry.bin"
	GST_PLUGIN_PATH="$$PWD/target/plugin$${GST_PLUGIN_PATH:+:$$GST_PLUGIN_PATH}" exec target/release/rsshm-bench $(BENCH)

.PHONY: bench-channel
bench-channel: ## times the single steps of the protocol, without GStreamer
	@$(call install_missing,$(BUILD_PACKAGES))
	$(CARGO) bench --locked --package rsshm-channel --bench steps -- $(BENCH)

# How long the three that follow take, about, for each thing that they try.
SECONDS := 60

.PHONY: reliability
reliability: ## what docs/RELIABILITY.md promises, tried for longer, in release: make reliability SECONDS=60
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES))
	export RSSHM_TEST_SECONDS="$$(( ($(SECONDS) + 9) / 10 ))" RSSHM_SOAK_SECONDS=$(SECONDS)
	$(CARGO) test --release --locked --package rsshm-channel --test semaphore --test hostile --test perms --test space \
		--test limits --test many --test containers -- --nocapture --test-threads=1
	$(CARGO) test --release --locked --test hostile -- --nocapture --test-threads=1

.PHONY: fuzz
fuzz: ## fuzzes what reads the bytes of others: make fuzz SECONDS=60
	@$(call install_missing,$(BUILD_PACKAGES) g++)
	cd fuzz
	export LSAN_OPTIONS="suppressions=$$PWD/lsan.supp" ASAN_OPTIONS=fast_unwind_on_malloc=0
	for target in segment frames seats metas events caps; do
		if $(CARGO) +nightly fuzz --version >/dev/null 2>&1; then
			mkdir -p "corpus/$$target"
			$(CARGO) +nightly fuzz run "$$target" "corpus/$$target" "seeds/$$target" -- -max_total_time=$(SECONDS) -print_final_stats=1
		else
			$(CARGO) run --quiet --release --locked --package rsshm-fuzz-loops -- "$$target" $(SECONDS)
		fi
	done
	# A fuzzer ends without giving back what it has.
	rm -f /dev/shm/rsshm-fuzz-* /dev/shm/sem.rsshm-fuzz-*

.PHONY: chaos
chaos: ## kills and stops programs at all instants and checks what the others get: make chaos SECONDS=600 SEED=1
	@$(call install_missing,$(BUILD_PACKAGES))
	RSSHM_CHAOS_SECONDS=$(SECONDS) RSSHM_CHAOS_SEED=$(SEED) $(CARGO) test --locked --test chaos -- --ignored --exact --nocapture a_long_run

.PHONY: install
install: build ## puts the plugin where GStreamer looks for it
	$(SUDO) install -D -m 644 target/plugin/libgstrsshm.so "$(DESTDIR)$$(pkg-config --variable=pluginsdir gstreamer-1.0)/libgstrsshm.so"

.PHONY: uninstall
uninstall: ## removes it
	$(SUDO) rm -f "$(DESTDIR)$$(pkg-config --variable=pluginsdir gstreamer-1.0)/libgstrsshm.so"

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
