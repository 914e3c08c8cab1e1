#!/usr/bin/python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""rtsp-server.py PORT PATH PIPELINE: serves a pipeline at rtsp://HOST:PORT/PATH. The script over-rtsp.sh starts it."""

import signal
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

port, path, pipeline = sys.argv[1:]
Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(pipeline)
# All clients share one pipeline, and so one encoder.
factory.set_shared(True)
server = GstRtspServer.RTSPServer()
server.set_service(port)
server.get_mount_points().add_factory(path, factory)
if not server.attach(None):
    sys.exit(f"cannot listen on port {port}")
loop = GLib.MainLoop()
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, loop.quit)
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, loop.quit)
loop.run()
