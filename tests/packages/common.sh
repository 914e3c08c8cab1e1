# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What the checks of the packages have in common. They read this file in the directory of the repository.

export DEBIAN_FRONTEND=noninteractive
files=$PWD/target/packages
machine=$(dpkg --print-architecture)
names=(gstreamer1.0-rsshm librsshm0 librsshm-dev python3-rsshm rsshm)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
work=$(mktemp -d)
chmod 755 "$work"
new=() old=()

fail() {
	echo "FAILED: $*" >&2
	ls -l /dev/shm >&2
	jobs -l >&2
	exit 1
}
passed() { echo "$*: passed"; }
# A command whose output is shown only if it fails.
quietly() { "$@" >"$work/output" 2>&1 || { cat "$work/output" >&2; fail "$*"; }; }
apt() { quietly apt-get -y --no-install-recommends "$@"; }
# expect TEXT COMMAND...: the command prints the text within 20 s. Whether it then ends does not matter.
expect() {
	local text=$1 tries=0 ended='' program
	shift
	# Here, because the child may be late, and the file has what the command before has printed.
	: >"$work/output"
	stdbuf -oL "$@" >"$work/output" 2>&1 &
	program=$!
	until grep -q -- "$text" "$work/output"; do
		if [ -n "$ended" ] || [ "$tries" -ge 200 ]; then
			cat "$work/output" >&2
			fail "no '$text' in what $* printed"
		fi
		kill -0 "$program" 2>/dev/null || ended=yes
		tries=$((tries + 1))
		sleep 0.1
	done
	# The shell lets its children ignore SIGINT.
	kill "$program" 2>/dev/null || true
	wait "$program" || true
}

# Packages of an earlier version: the same files with a lower number.
lower() {
	local package tree=$work/tree
	for package in "${new[@]}"; do
		rm -rf "$tree"
		dpkg-deb --raw-extract "$package" "$tree"
		sed -i "/^Version:\|^Depends:/s/\b${version//./\\.}\b/0.0.1/" "$tree/DEBIAN/control"
		quietly dpkg-deb --root-owner-group --build "$tree" "$work/old"
	done
}

install_dependencies() {
	local package needed
	for package in "${new[@]}"; do
		# The dependencies on each other are left out.
		needed=$(dpkg-deb --field "$package" Depends | sed -E 's/(, )?librsshm0 \([^)]*\)//')
		[ -z "$needed" ] || apt satisfy "$needed"
	done
}

for name in "${names[@]}"; do
	new+=("$files/${name}_$version-1_$machine.deb")
	[ -e "${new[-1]}" ] || new[-1]=$files/${name}_$version-1_all.deb
	[ -e "${new[-1]}" ] || fail "$name is not built"
	old+=("$work/old/$(basename "${new[-1]/$version/0.0.1}")")
done
mkdir "$work/old"
