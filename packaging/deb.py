# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes the Debian packages of packaging/table.py, and the documents that each has."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import textwrap
import time
from pathlib import Path
from typing import List

from table import CRATES, MAINTAINER, NO_ITP, NODES, PACKAGES, Architecture, Package

MIT = "MIT"
APACHE = "Apache-2.0"
COPYRIGHT = re.compile(r"^[\s#*]*(Copyright (?:\(c\)|©|\d{4}).*?)[\s*]*$", re.IGNORECASE | re.MULTILINE)


def compress(source: Path, destination: Path) -> None:
    """gzip, without the name of the file and the time."""
    with source.open("rb") as plain, destination.open("wb") as file, gzip.GzipFile("", "wb", 9, file, 0) as packed:
        shutil.copyfileobj(plain, packed)


class Builder:
    """What all packages of one type of machine have in common."""

    def __init__(
        self, root: Path, tree: Path, work: Path, output: Path, machine: Architecture, version: str, epoch: int, metadata: str
    ) -> None:
        self.root, self.tree, self.work, self.output, self.machine = root, tree, work, output, machine
        self.version, self.revision, self.epoch = version, f"{version}-1", epoch
        self.metadata = json.loads(metadata)

    def build_all(self) -> None:
        self.work.joinpath("copyright").write_text(self.copyright())
        self.work.joinpath("changelog").write_text(self.changelog())
        self.tree.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: rsshm\nVersion: {self.version}\nSummary: {PACKAGES['python3-rsshm'].summary}\n"
            "Requires-Python: >=3.9\nRequires-Dist: numpy (>=1.19)\n"
        )
        for name, package in PACKAGES.items():
            # The packages for all types of machines come from the first of these.
            if package.architecture == "any" or not self.machine.cross:
                self.build(name, package)

    def text(self, text: str, name: str) -> str:
        values = {"PACKAGE": name, "VERSION": self.version, "REVISION": self.revision, "TRIPLET": self.machine.triplet}
        return re.sub("|".join(values), lambda word: values[word.group()], text)

    def build(self, name: str, package: Package) -> None:
        stage = self.work / name
        control = stage / "DEBIAN"
        control.mkdir(parents=True)
        for directory, sources in package.files.items():
            for source in sources:
                self.copy(self.text(source, name), stage / self.text(directory, name))
        self.documents(name, package, stage)

        files = sorted(path for path in stage.rglob("*") if not path.is_dir() or path.is_symlink())
        files = [path for path in files if control not in path.parents]
        sums = [(hashlib.md5(path.read_bytes()).hexdigest(), path) for path in files if not path.is_symlink()]
        control.joinpath("md5sums").write_text("".join(f"{md5}  {path.relative_to(stage)}\n" for md5, path in sums))
        for file, text in package.control.items():
            control.joinpath(file).write_text(self.text(text, name))
        for script in self.root.joinpath("packaging/scripts").glob(f"{name}.p*"):
            shutil.copy(script, control / script.suffix[1:])
        if name == "librsshm0":
            control.joinpath("symbols").write_text(self.symbols())
        control.joinpath("control").write_text(self.control(name, package, files))

        for path in [stage, *stage.rglob("*")]:
            if not path.is_symlink():
                # git keeps no other permissions than the right to execute, and those of a checkout depend on the umask.
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (self.epoch, self.epoch), follow_symlinks=False)
        # Debian 11 reads xz, and not zstd, which is the default of Ubuntu's dpkg.
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(stage), str(self.output)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(self.epoch)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)

    def copy(self, source: str, directory: Path) -> None:
        base, pattern = (self.root, source[2:]) if source.startswith("./") else (self.tree, source)
        found = sorted(base.glob(pattern))
        if not found:
            raise SystemExit(f"packaging/build: {base / pattern} is missing")
        directory.mkdir(parents=True, exist_ok=True)
        for path in found:
            if path.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "build")
                shutil.copytree(path, directory / path.name, ignore=ignored)
            elif "/man/" in str(directory):
                compress(path, directory / f"{path.name}.gz")
            else:
                shutil.copy(path, directory / path.name, follow_symlinks=False)

    def documents(self, name: str, package: Package, stage: Path) -> None:
        """What each package has: copyright, changelogs, and the overrides of lintian."""
        directory = stage / "usr/share/doc" / name
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.work / "copyright", directory)
        compress(self.work / "changelog", directory / "changelog.Debian.gz")
        compress(self.root / "CHANGELOG.md", directory / "changelog.gz")
        overrides = {"initial-upload-closes-no-bugs": NO_ITP, **package.overrides}
        lines = [f"# {reason}\n{name}: {tag}\n" for tag, reason in overrides.items()]
        directory = stage / "usr/share/lintian/overrides"
        directory.mkdir(parents=True)
        directory.joinpath(name).write_text("".join(lines))

    def control(self, name: str, package: Package, files: List[Path]) -> str:
        any_machine = package.architecture == "any"
        # As dpkg-gencontrol counts: files by their size in KiB, everything else by 1.
        size = sum(1 if path.is_symlink() else (path.stat().st_size + 1023) // 1024 for path in files)
        size += len({parent for path in files for parent in path.relative_to(self.work / name).parents})
        fields = {
            "Package": name,
            "Source": "rsshm",
            "Version": self.revision,
            "Architecture": self.machine.name if any_machine else "all",
            "Maintainer": MAINTAINER,
            "Installed-Size": str(size),
            "Depends": package.depends,
            **{key: value for key, value in package.fields.items() if key != "Multi-Arch"},
            "Section": package.section,
            "Priority": "optional",
            **{key: value for key, value in package.fields.items() if key == "Multi-Arch"},
            "Homepage": next(p["repository"] for p in self.metadata["packages"] if p["name"] == "rsshm-channel"),
        }
        if name == "rsshm":
            del fields["Source"]
        paragraphs = ["\n".join(textwrap.wrap(text, 78, break_on_hyphens=False)) for text in package.description]
        description = "\n.\n".join(paragraphs).replace("\n", "\n ")
        lines = "".join(f"{key}: {value}\n" for key, value in fields.items())
        return self.text(lines, name) + f"Description: {package.summary}\n {description}\n"

    def symbols(self) -> str:
        """Which version of the library has brought each function. The version script has their nodes."""
        lines, node = ["librsshm.so.0 librsshm0 #MINVER#", "* Build-Depends-Package: librsshm-dev"], ""
        exported = []
        for line in self.root.joinpath("capi/rsshm.map").read_text().splitlines():
            begin, symbol = re.match(r"(RSSHM_\w+) \{", line), re.match(r" +(rsshm_\w+);", line)
            if begin:
                node = begin.group(1)
                if node not in NODES:
                    raise SystemExit(f"packaging/build: NODES in packaging/table.py has no version for {node}")
                exported.append(f"{node}@{node} {NODES[node]}")
            elif symbol:
                exported.append(f"{symbol.group(1)}@{node} {NODES[node]}")
        return "\n".join(lines + [f" {symbol}" for symbol in sorted(exported)]) + "\n"

    def changelog(self) -> str:
        """CHANGELOG.md in Debian's format. What has no version yet belongs to this one."""
        text = self.root.joinpath("CHANGELOG.md").read_text()
        date = time.strftime("%a, %d %b %Y 00:00:00 +0000", time.gmtime(self.epoch))
        written = []
        for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
            heading, _, body = section.partition("\n")
            found = re.match(r"\[(\d[^]]*)\](?: - (\d{4}-\d\d-\d\d))?", heading)
            version = found.group(1) if found else self.version
            when = date
            if found and found.group(2):
                when = time.strftime("%a, %d %b %Y 00:00:00 +0000", time.strptime(found.group(2), "%Y-%m-%d"))
            entries = re.findall(r"^- (.*)$", body, re.MULTILINE)
            if not entries:
                continue
            # Debian's format has no links.
            plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", entry).replace("`", "") for entry in entries]
            wrap = textwrap.TextWrapper(78, initial_indent="  * ", subsequent_indent="    ", break_on_hyphens=False)
            changes = "\n".join(wrap.fill(entry) for entry in plain)
            written.append(f"rsshm ({version}-1) unstable; urgency=medium\n\n{changes}\n\n -- {MAINTAINER}  {when}\n")
        return "\n".join(written)

    def copyright(self) -> str:
        """The licences of the project and of each crate that is linked into its programs, in Debian's format."""
        mit = self.root.joinpath("LICENSE-MIT").read_text()
        notice = COPYRIGHT.search(mit)
        assert notice
        permission = mit[mit.index("Permission is hereby") :]
        homepage = next(p["repository"] for p in self.metadata["packages"] if p["name"] == "rsshm-channel")
        written = [
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
            f"Upstream-Name: rsshm\nSource: {homepage}",
            f"Files: *\nCopyright: {notice.group(1)}\nLicense: {MIT} or {APACHE}",
            "Files: rust/library/*\nCopyright: The Rust Project Developers (see https://thanks.rust-lang.org)\n"
            f"License: {MIT} or {APACHE}\nComment: The standard library of Rust is linked into the programs.",
        ]
        for crate in self.linked():
            directory = Path(crate["manifest_path"]).parent
            texts = [
                path.read_text(errors="replace") for path in sorted(directory.glob("*")) if re.match("LICEN|COPY", path.name)
            ]
            notices = {line for text in texts for line in COPYRIGHT.findall(text)} or set(crate["authors"])
            who = "\n           ".join(sorted(notices) or [f"The authors of {crate['name']}"])
            written.append(f"Files: crates/{crate['name']}/*\nCopyright: {who}\nLicense: {licence(crate)}")
        body = permission.strip().replace("\n\n", "\n.\n").replace("\n", "\n ")
        written.append(f"License: {MIT}\n {body}")
        written.append(f"License: {APACHE}\n On Debian systems, the text is in /usr/share/common-licenses/{APACHE}.")
        return "\n\n".join(written) + "\n"

    def linked(self) -> List[dict]:
        """The crates of others that the programs are linked with, in the order of their names."""
        packages = {package["id"]: package for package in self.metadata["packages"]}
        nodes = {node["id"]: node for node in self.metadata["resolve"]["nodes"]}
        wanted = [key for key, package in packages.items() if package["name"] in CRATES]
        found = set()
        while wanted:
            key = wanted.pop()
            macro = any("proc-macro" in target["kind"] for target in packages[key]["targets"])
            if key in found or macro:
                continue
            found.add(key)
            for dependency in nodes[key]["deps"]:
                if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                    wanted.append(dependency["pkg"])
        return sorted((packages[key] for key in found if packages[key]["source"]), key=lambda crate: crate["name"])


def licence(crate: dict) -> str:
    """The licence that the project chose from those that a crate offers."""
    offered = re.split(r" OR |/", crate["license"] or "")
    for chosen in (MIT, APACHE):
        if chosen in offered:
            return chosen
    raise SystemExit(f"packaging/build: the licence of {crate['name']}, {crate['license']}, has no text in packaging/deb.py")
