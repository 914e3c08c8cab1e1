# SPDX-License-Identifier: MIT OR Apache-2.0
"""The Debian packages: what is in each, what each needs, and which tags of lintian it has on purpose."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import Dict, List


@dataclass(frozen=True)
class Architecture:
    """A type of machine, by the names that others have for it."""

    name: str  # Debian
    gnu: str  # uname, Python's wheels
    triplet: str  # directories of Debian, compilers
    target: str  # Rust

    @property
    def cross(self) -> bool:
        """Whether this is another type of machine than the one that builds."""
        return self.name != native()

    def tool(self, name: str) -> str:
        """The compiler, or a program of binutils, for this type of machine."""
        return f"{self.triplet}-{name}" if self.cross else name


ARCHITECTURES = {
    "amd64": Architecture("amd64", "x86_64", "x86_64-linux-gnu", "x86_64-unknown-linux-gnu"),
    "arm64": Architecture("arm64", "aarch64", "aarch64-linux-gnu", "aarch64-unknown-linux-gnu"),
}


def native() -> str:
    """Debian's name of the type of this machine."""
    return subprocess.run(["dpkg", "--print-architecture"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@dataclass(frozen=True)
class Package:
    """A Debian package. VERSION and TRIPLET in its texts are replaced."""

    section: str
    summary: str
    description: List[str]  # paragraphs
    depends: str
    # What the package has: sources, which are files below the installed tree or, with "./", of the repository,
    # by the directory that gets them.
    files: Dict[str, List[str]]
    architecture: str = "any"  # or "all": the same file for all types of machines
    fields: Dict[str, str] = field(default_factory=dict)
    # What is in control.tar beside `control`, the symbols, and the scripts in packaging/scripts.
    control: Dict[str, str] = field(default_factory=dict)
    # Tags of lintian that the package has on purpose, with the reason for each.
    overrides: Dict[str, str] = field(default_factory=dict)


# The crates whose programs and libraries are in the packages.
CRATES = ["gst-plugin-rsshm", "rsshm-capi", "rsshm-cli"]

# The version of the library that brought each node of capi/rsshm.map.
NODES = {"RSSHM_0": "0.1.0"}

MAINTAINER = "rsshm developers <rsshm@users.noreply.github.com>"

# Debian 11 has these versions, and it builds the packages. Debian 13 has renamed the package of GLib.
LIBC = "libc6 (>= 2.31), libgcc-s1 (>= 4.2)"
GSTREAMER = (
    "libglib2.0-0t64 (>= 2.66) | libglib2.0-0 (>= 2.66), libgstreamer1.0-0 (>= 1.18), libgstreamer-plugins-base1.0-0 (>= 1.18)"
)

LIBRARY = "usr/lib/TRIPLET"
PLUGIN = f"{LIBRARY}/gstreamer-1.0/libgstrsshm.so"
MODULES = "usr/lib/python3/dist-packages"

NO_ITP = "The package comes from the project itself, so Debian has no bug about its first upload."

C_SUMMARY = "frames in shared memory, for programs in C and C++"
C_DESCRIPTION = (
    "One program writes frames into a named channel in POSIX shared memory, and any number of other programs read them there "
    "without a copy."
)

PACKAGES = {
    "gstreamer1.0-rsshm": Package(
        section="video",
        summary="GStreamer plugin for frames in shared memory",
        description=[
            "The element rsshmsink publishes the frames of a pipeline on a named channel in POSIX shared memory. rsshmsrc "
            "reads them in any number of other programs, in place and without a copy. There is no daemon and no socket.",
            "A program may start first, stop or be killed at any time, and the others continue.",
        ],
        depends=f"{LIBC}, {GSTREAMER}",
        files={
            f"{LIBRARY}/gstreamer-1.0": [PLUGIN],
            "usr/share/doc/PACKAGE": ["./README.md"],
        },
        fields={"Multi-Arch": "same", "Suggests": "gstreamer1.0-tools, rsshm"},
    ),
    "librsshm0": Package(
        section="libs",
        summary=C_SUMMARY,
        description=[
            f"{C_DESCRIPTION} The library needs no GStreamer and no daemon, and exchanges frames with the GStreamer elements "
            "rsshmsink and rsshmsrc and with the Python package rsshm.",
        ],
        depends=LIBC,
        files={LIBRARY: [f"{LIBRARY}/librsshm.so.0", f"{LIBRARY}/librsshm.so.VERSION"]},
        fields={"Multi-Arch": "same"},
        control={"triggers": "activate-noawait ldconfig\n", "shlibs": "librsshm 0 librsshm0 (>= VERSION)\n"},
    ),
    "librsshm-dev": Package(
        section="libdevel",
        summary=f"{C_SUMMARY} (development files)",
        description=[
            C_DESCRIPTION,
            "This package has the headers rsshm.h for C and rsshm.hpp for C++, the static library, the description for "
            "pkg-config, an introduction and examples.",
        ],
        depends="librsshm0 (= REVISION)",
        files={
            LIBRARY: [f"{LIBRARY}/librsshm.so", f"{LIBRARY}/librsshm.a"],
            f"{LIBRARY}/pkgconfig": [f"{LIBRARY}/pkgconfig/rsshm.pc"],
            "usr/include": ["usr/include/rsshm.h", "usr/include/rsshm.hpp"],
            "usr/share/doc/PACKAGE": ["./docs/C.md", "./capi/examples"],
        },
        fields={"Multi-Arch": "same", "Suggests": "pkgconf | pkg-config"},
    ),
    "python3-rsshm": Package(
        architecture="all",
        section="python",
        summary="frames in shared memory, as NumPy arrays",
        description=[
            "A program gets the frames of a camera that another program reads, as NumPy arrays in shared memory, without a "
            "copy. It also publishes pictures, such as those of a detector. The package needs no GStreamer and no daemon, and "
            "exchanges frames with the GStreamer elements rsshmsink and rsshmsrc.",
        ],
        depends="python3:any (>= 3.9~), python3-numpy (>= 1:1.19), librsshm0 (>= VERSION)",
        files={
            f"{MODULES}/rsshm": ["./python/rsshm/*.py", "./python/rsshm/py.typed"],
            f"{MODULES}/rsshm-VERSION.dist-info": ["METADATA"],
            "usr/share/doc/PACKAGE": ["./python/README.md", "./python/examples"],
        },
        fields={"Suggests": "python3-opencv"},
    ),
    "rsshm": Package(
        section="video",
        summary="command line tool for frames in shared memory",
        description=[
            "A channel carries the frames of one program, such as a camera's, to any number of other programs in POSIX shared "
            "memory. This tool lists channels and their readers, measures rates and delays, saves pictures, shows them in the "
            "terminal, checks that frames arrive, and finds what is wrong on a machine. It needs no GStreamer.",
            "With GStreamer, systemd publishes the cameras of the machine: the unit rsshm-camera@video0 belongs to the device "
            "/dev/video0.",
        ],
        depends=f"{LIBC}, adduser",
        files={
            "usr/bin": ["usr/bin/rsshm"],
            "usr/share/man/man1": ["usr/share/man/man1/*.1"],
            "usr/share/bash-completion/completions": ["usr/share/bash-completion/completions/rsshm"],
            "usr/share/zsh/vendor-completions": ["usr/share/zsh/vendor-completions/_rsshm"],
            "usr/share/fish/vendor_completions.d": ["usr/share/fish/vendor_completions.d/rsshm.fish"],
            # Debian 11 also reads these directories, whether /lib is a link or not.
            "usr/lib/systemd/system": ["./packaging/systemd/rsshm-*"],
            "usr/lib/sysusers.d": ["./packaging/sysusers.d/rsshm.conf"],
            "usr/lib/tmpfiles.d": ["./packaging/tmpfiles.d/rsshm.conf"],
            "usr/lib/udev/rules.d": ["./packaging/udev/70-rsshm-camera.rules"],
            "usr/share/doc/PACKAGE": ["./docs/CLI.md", "./docs/SERVICE.md"],
            "usr/share/doc/PACKAGE/examples": ["./packaging/examples/video0.conf", "./packaging/systemd/device.conf"],
        },
        fields={"Suggests": "gstreamer1.0-rsshm, gstreamer1.0-tools, gstreamer1.0-plugins-good, python3-rsshm"},
        control={"triggers": f"interest-noawait /{PLUGIN}\n"},
    ),
}
