# SPDX-License-Identifier: MIT OR Apache-2.0
"""The package's view of the C library: its structures and constants are those of the header, and it is found or asked for."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple, Type

import pytest
from helpers import ROOT, Channel, Process

import rsshm
from rsshm import _library, _stream

Start = Callable[..., Process]
HEADER = ROOT / "capi" / "include" / "rsshm.h"
PACKAGE = Path(rsshm.__file__).parent
CONSTANTS = {
    **{name: f"RSSHM_{name}" for name in ("OK", "TIMEOUT", "EOS", "NO_WRITER", "WOKEN", "DROPPED", "EVICTED", "NOTHING")},
    **{name: f"RSSHM_{name}" for name in ("EVENT", "E_STATE", "TIME_NONE", "TIME_NOW", "MAX_PLANES", "READ_ONLY", "COPY")},
    **{name: f"RSSHM_{name}" for name in ("EVENTS", "LOSSLESS", "SPARE", "KEEP", "FRAME_FD", "FD_DMABUF")},
    **{name: f"RSSHM_FRAME_{name}" for name in ("IN_PLACE", "KEYFRAME", "DISCONTINUITY")},
}


def compiled(source: str, target: Path, *options: str) -> Path:
    path = target.with_suffix(".c")
    path.write_text(source)
    command = ["cc", "-I", str(HEADER.parent), "-o", str(target), str(path), *options]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return target


def structures() -> Iterator[Tuple[str, Type[ctypes.Structure]]]:
    """The structures of the package, each with the name that it has in C."""
    for value in vars(_library).values():
        name = re.match(r"(rsshm_\w+)\.", getattr(value, "__doc__", None) or "")
        if name and isinstance(value, type) and issubclass(value, ctypes.Structure):
            yield name[1], value


def printed_by_c(tmp_path: Path) -> Dict[str, int]:
    """The sizes, offsets and constants of the header, as a C program prints them."""
    expressions = [f"sizeof({name})" for name, _ in structures()]
    expressions += [f"offsetof({name}, {field})" for name, found in structures() for field, *_ in found._fields_]
    expressions += CONSTANTS.values()
    lines = [f'printf("%llu %s\\n", (unsigned long long)({text}), "{text}");' for text in expressions]
    source = "#include <stdio.h>\n#include <rsshm.h>\nint main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n"
    out = subprocess.run([str(compiled(source, tmp_path / "print"))], check=True, stdout=subprocess.PIPE).stdout.decode()
    return {text: int(value) for value, text in (line.split(" ", 1) for line in out.splitlines())}


def test_structures_are_those_of_the_header(tmp_path: Path) -> None:
    printed = printed_by_c(tmp_path)
    assert len(list(structures())) >= 12
    for name, structure in structures():
        assert ctypes.sizeof(structure) == printed[f"sizeof({name})"], name
        for field, *_ in structure._fields_:
            assert getattr(structure, field).offset == printed[f"offsetof({name}, {field})"], (name, field)


def test_frame_info_is_read_as_it_is() -> None:
    """The package reads all fields of this structure at once, by their places."""
    info = _library.FrameInfo()
    for index, (field, *_) in enumerate(info._fields_[1:-1], 1):
        if field not in ("caps", "format"):
            setattr(info, field, index)
    info.planes[2].stride = -7
    values = _stream.UNPACK.unpack(info)
    places = {name.lower(): value for name, value in vars(_stream).items() if name.isupper() and isinstance(value, int)}
    del places["max_addresses"]
    assert len(places) >= 14
    names = [field for field, *_ in info._fields_]
    for name, place in places.items():
        if name != "caps":
            assert name in names[place] and values[place] == place, name
    assert values[_stream.PLANES[2] + 1] == -7 and len(values) == len(names) - 1 + 4 * _library.MAX_PLANES


def test_constants_are_those_of_the_header(tmp_path: Path) -> None:
    printed = printed_by_c(tmp_path)
    for name, text in CONSTANTS.items():
        assert getattr(_library, name) & (1 << 64) - 1 == printed[text], name


def test_each_error_of_the_header_has_an_exception() -> None:
    errors = dict(re.findall(r"^#define RSSHM_E_(\w+) \((-\d+)\)", HEADER.read_text(), re.M))
    assert len(errors) >= 15
    # These have no class of their own.
    for name in ("STATE", "NO_MEMORY", "INTERNAL"):
        assert int(errors.pop(name)) not in _library._ERRORS
    assert {int(number) for number in errors.values()} == set(_library._ERRORS)


def imported(package: Path, library_path: str = "") -> Tuple[int, str]:
    """What happens if a program imports the package from this directory."""
    done = subprocess.run(
        [sys.executable, "-c", "import rsshm; print(rsshm._library._NAME)"],
        cwd=str(package),
        env={**os.environ, "PYTHONPATH": "", "LD_LIBRARY_PATH": library_path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    return done.returncode, done.stdout.decode()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package without its library."""
    shutil.copytree(PACKAGE, tmp_path / "package" / "rsshm", ignore=shutil.ignore_patterns("librsshm*", "__pycache__"))
    return tmp_path / "package"


def test_system_library_is_used_if_package_has_none(package: Path, tmp_path: Path) -> None:
    system = tmp_path / "system"
    system.mkdir()
    shutil.copy(_library._NAME, system / _library.SONAME)
    assert imported(package, str(system)) == (0, f"{_library.SONAME}\n")
    shutil.copy(_library._NAME, package / "rsshm" / _library.SONAME)
    assert imported(package, str(system)) == (0, f"{package}/rsshm/{_library.SONAME}\n")


def test_missing_library_is_an_error_that_says_how_to_get_it(package: Path) -> None:
    if ctypes.util.find_library("rsshm"):
        # The loader would find the installed library.
        (package / "rsshm" / _library.SONAME).write_bytes(b"no library")
    code, text = imported(package)
    assert code != 0
    for part in ("ImportError", "librsshm.so.0", "wheel", "librsshm0", "make install-capi"):
        assert part in text, text


def test_old_library_is_an_error_that_says_what_it_lacks(package: Path, tmp_path: Path) -> None:
    source = "unsigned rsshm_abi(void) { return %d; }\n"
    for abi, words in ((_library.ABI - 1, f"but this package needs {_library.ABI}"), (_library.ABI, "has no function rsshm_")):
        shutil.move(str(compiled(source % abi, tmp_path / "old", "-shared", "-fPIC")), package / "rsshm" / _library.SONAME)
        code, text = imported(package)
        assert code != 0 and "ImportError" in text and words in text and "librsshm0" in text, text


def test_errors_name_the_channel_and_not_the_function(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (4, 4)), pytest.raises(rsshm.Busy) as caught:
        rsshm.Writer(channel.name, (4, 4))
    assert str(caught.value).startswith(f"channel {channel.name} ") and "rsshm_" not in str(caught.value)


def test_library_refuses_structures_of_another_size(channel: Channel) -> None:
    options: Any = _library.ReaderOptions()
    for size in (0, 4, ctypes.sizeof(options) - 1):
        options.struct_size = size
        with pytest.raises(rsshm.BadOption, match="rsshm_reader_options"):
            _library.open_handle(_library.reader_open, channel.name, options)


SUBINTERPRETER = '''
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = f"""
import sys
sys.path[:] = {sys.path!r}
try:
    import numpy
except ImportError:
    print("NumPy refuses")
else:
    import rsshm
    with rsshm.Writer({sys.argv[1]!r}, caps="a/b") as writer, rsshm.Reader({sys.argv[1]!r}, timeout=5) as reader:
        writer.write(b"x")
        print(reader.read().data.tobytes())
"""
interpreters.run_string(interpreters.create(), code)
'''


def test_subinterpreter_writes_and_reads(channel: Channel, start: Start) -> None:
    reading = start([sys.executable, "-c", SUBINTERPRETER, channel.name], env={"PYTHONPATH": str(PACKAGE.parent)})
    out = reading.wait_ok().decode()
    if out == "NumPy refuses\n":
        pytest.skip("this NumPy cannot be imported in a subinterpreter")
    assert out == "b'x'\n"
    channel.assert_gone()
