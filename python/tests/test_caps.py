# SPDX-License-Identifier: MIT OR Apache-2.0
"""What GStreamer takes for fixed caps is published, and everything else is refused at the writer."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator, List, Tuple

import pytest
from helpers import Channel, Process, frames_of, gst, gst_environment, peer, python, records

import rsshm

Start = Callable[..., Process]

TABLE = Path(__file__).resolve().parents[2] / "testkit" / "caps-texts.tsv"


def rows(kind: str) -> Iterator[Tuple[str, str]]:
    for line in TABLE.read_text().split("\n"):
        columns = line.split("\t")
        if columns[0] == kind:
            yield columns[1], columns[2]


FIXED: List[Tuple[str, str]] = list(rows("fixed"))
REFUSED: List[Tuple[int, str]] = [(int(position), text) for position, text in rows("refused")]
# Only system memory is shared with a pipeline.
SHARED = [(text, rsshm.caps.parse(text)) for text, _ in FIXED if "GLMemory" not in text]


def test_table_has_both_kinds() -> None:
    assert len(FIXED) > 50 and len(REFUSED) > 80


def test_canonical_form_of_caps_means_the_same() -> None:
    for text, canonical in FIXED:
        given, same = rsshm.caps.parse(text), rsshm.caps.parse(canonical)
        assert given.media and (given.media, given.fields, given.layout) == (same.media, same.fields, same.layout), text


def test_writer_refuses_other_caps_with_position(channel: Channel) -> None:
    for position, text in REFUSED:
        with pytest.raises(ValueError, match=f"at byte {position} there is"):
            rsshm.Writer(channel.name, caps=text)
        channel.assert_gone()
    with rsshm.Writer(channel.name, caps="a/b") as writer:
        for position, text in REFUSED:
            with pytest.raises(rsshm.FormatError, match=f"at byte {position} there is"):
                writer.set_format(caps=text)
        assert writer.write(b"x") == 1


def test_writer_refuses_what_is_not_text(channel: Channel) -> None:
    for caps in ("a/b,c=\ud800", 5, b"a/b"):
        with pytest.raises(ValueError, match="caps"):
            rsshm.Writer(channel.name, caps=caps)  # type: ignore[arg-type]


def test_deep_nesting_is_refused(channel: Channel) -> None:
    for opening, closing in (("<", ">"), ("[x,y=", "]"), ("(GstCaps)[x,y=", "]"), ("[x(a:B),y=", "]")):
        with pytest.raises(rsshm.FormatError, match="fewer nested"):
            rsshm.Writer(channel.name, caps=f"a/b,c={opening * 3000}1{closing * 3000}")


def test_fields_have_the_values_that_gstreamer_reads() -> None:
    caps = rsshm.caps.parse('video/x-raw,format="NV12",width=(i)0x40,height=48,framerate=(fraction)30,a=1,a=yes,b="5 \\"x"')
    assert (caps.format, caps.width, caps.height, caps.fps) == ("NV12", 64, 48, 30)
    assert caps.fields["a"] == "true" and caps.fields["b"] == '5 "x'
    assert caps.layout is not None


def test_pipeline_reads_each_text_of_python(channel: Channel, start: Start, tmp_path: Path) -> None:
    file = tmp_path / "frames"
    reader = start(gst(f"rsshmsrc name={channel.name} ! filesink location={file}"), env=gst_environment())
    given = b""
    with rsshm.Writer(channel.name, caps="a/b", lossless=True) as writer:
        assert writer.wait_for_reader(20)
        for count, (text, caps) in enumerate(SHARED):
            if "streamheader" in text:
                continue  # rsshmsrc passes on the headers before the frame
            frame = bytes([count]) * (caps.layout.size if caps.layout else 64)
            writer.set_format(caps=text, frame_size=len(frame))
            writer.write(frame)
            given += frame
    reader.wait_ok()
    assert file.read_bytes() == given


def test_peers_read_each_text_of_rust(channel: Channel, start: Start) -> None:
    for text, caps in SHARED[::5]:
        frame = bytes(caps.layout.size if caps.layout else 64)
        writer = start(peer("write", channel.name, text, "lossless"))
        reader = start(python("read_data", channel.name))
        writer.wait_ok(records([frame]))
        assert frames_of(reader.wait_ok()) == [frame]


def test_rust_writer_names_position(channel: Channel, start: Start) -> None:
    for position, text in REFUSED[::8]:
        writer = start(peer("write", channel.name, text))
        out, _ = writer.process.communicate(records([b"x"]), timeout=20)
        assert writer.process.returncode != 0 and not out
        assert f"at byte {position} there is" in writer.error_output()
