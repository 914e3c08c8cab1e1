#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# camera-to-four-programs.sh
#
# One camera in four independent programs: a window, a recording in files of ten seconds, a detector, and a stream over the network.
# The detector prints the brightness of the picture; put your own in its place. The script over-rtp.sh receives the stream.
#
#   PORT=5004   UDP port of this machine to which the stream is sent
. "$(dirname "$0")/common.sh"
PORT=${PORT:-5004}

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert videoscale
need gstreamer1.0-plugins-good splitmuxsink rtph264pay udpsink
need gstreamer1.0-plugins-bad videoanalyse
need_screen
need_encoder
check_requirements

brightness() { sed -un 's/.*GstVideoAnalyse.*luma-average=(double)\([0-9]*\.\?[0-9]\{0,2\}\).*/The detector: brightness \1/p'; }

mkdir -p "$OUTPUT"
start_camera "$CHANNEL"
choose_display
start "$shown" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! "${show[@]}"
start "A recording" gst-launch-1.0 -q -e rsshmsrc "channel=$CHANNEL" ! queue ! "${encoder[@]}" ! \
	splitmuxsink "location=$OUTPUT/part-%03d.mp4" max-size-time=10000000000
# With max-buffers=1, a slow detector skips frames and always gets the newest frame.
start "A detector" gst-launch-1.0 -m rsshmsrc "channel=$CHANNEL" max-buffers=1 ! \
	videorate ! video/x-raw,framerate=1/1 ! videoconvert ! videoanalyse ! fakesink > >(brightness) 2>&1
start "A stream" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! queue ! "${encoder[@]}" ! rtph264pay config-interval=-1 ! \
	udpsink host=127.0.0.1 "port=$PORT"
wait_for_end
