# SPDX-License-Identifier: MIT OR Apache-2.0
"""The ctypes structures match the Rust crate. A test of that crate compares docs/PROTOCOL.md with it."""

from __future__ import annotations

import ctypes
import json
import subprocess

from helpers import TARGET

from rsshm import layout


def layout_of_the_crate() -> dict:
    return json.loads(subprocess.check_output([str(TARGET / "examples" / "layout")]))


def test_structures_match_the_crate() -> None:
    for name, wanted in layout_of_the_crate()["structures"].items():
        structure = getattr(layout, name)
        fields = {
            field: [getattr(structure, field).offset, getattr(structure, field).size]
            for field, *_ in structure._fields_
            if not field.startswith("_")
        }
        assert (ctypes.sizeof(structure), fields) == (wanted["size"], wanted["fields"]), name


def test_constants_match_the_crate() -> None:
    wanted = layout_of_the_crate()["constants"]
    assert {name: getattr(layout, name) for name in wanted} == wanted
