#!/bin/bash
# camera-to-four-programs.sh
#
# One camera, four programs that know nothing of each other: a window, a recording in files of ten seconds, a detector (it tells how
# bright the picture is; yours goes in its place), and a stream over the network, which over-rtp.sh receives.
#
#   PORT=5004   where the stream goes on this machine
. "$(dirname "$0")/common.sh"
PORT=${PORT:-5004}

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert videoscale
need gstreamer1.0-plugins-good splitmuxsink rtph264pay udpsink
need gstreamer1.0-plugins-bad videoanalyse
need_screen
need_encoder
all_there

brightness() { sed -un 's/.*GstVideoAnalyse.*luma-average=(double)\([0-9]*\.\?[0-9]\{0,2\}\).*/The detector: brightness \1/p'; }

mkdir -p "$OUTPUT"
start_camera
screen
start "$shown" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! "${show[@]}"
start "A recording" gst-launch-1.0 -q -e rsshmsrc "channel=$CHANNEL" ! queue ! "${encoder[@]}" ! \
	splitmuxsink "location=$OUTPUT/part-%03d.mp4" max-size-time=10000000000
# max-buffers=1: it may be slow, and looks at the newest frame always.
start "A detector" gst-launch-1.0 -m rsshmsrc "channel=$CHANNEL" max-buffers=1 ! \
	videorate ! video/x-raw,framerate=1/1 ! videoconvert ! videoanalyse ! fakesink > >(brightness) 2>&1
start "A stream" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! queue ! "${encoder[@]}" ! rtph264pay config-interval=-1 ! \
	udpsink host=127.0.0.1 "port=$PORT"
goes_on
