"""The ctypes structures are those of the Rust crate, which docs/PROTOCOL.md is held to as well."""

from __future__ import annotations

import ctypes
import json
import subprocess

from helpers import TARGET

from rsshm import layout


def emitted() -> dict:
    return json.loads(subprocess.check_output([str(TARGET / "examples" / "layout")]))


def test_structures_are_those_of_the_crate() -> None:
    for name, wanted in emitted()["structures"].items():
        structure = getattr(layout, name)
        fields = {
            field: [getattr(structure, field).offset, getattr(structure, field).size]
            for field, *_ in structure._fields_
            if not field.startswith("_")
        }
        assert (ctypes.sizeof(structure), fields) == (wanted["size"], wanted["fields"]), name


def test_constants_are_those_of_the_crate() -> None:
    wanted = emitted()["constants"]
    assert {name: getattr(layout, name) for name in wanted} == wanted
