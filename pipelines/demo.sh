#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# demo.sh
#
# One camera, two programs: a writer publishes the camera on a channel, and a reader shows it in a window. If there is no camera, the
# writer publishes a test picture. If there is no display, the reader saves a few pictures. A third program prints live figures.
. "$(dirname "$0")/common.sh"

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert
need gstreamer1.0-plugins-bad fpsdisplaysink
need_screen
check_requirements

figures() {
	sed -un 's/.*last-message = rendered: \([0-9]*\), dropped: \([0-9]*\), current: \([0-9.]*\), average: .*/\1 frames received, \3 per second, \2 dropped as late/p'
}

start_camera "$CHANNEL"
choose_display
start "$shown" gst-launch-1.0 -q rsshmsrc "name=$CHANNEL" ! "${show[@]}"
start "Another reader: live figures" gst-launch-1.0 -v rsshmsrc "name=$CHANNEL" ! fpsdisplaysink video-sink=fakesink text-overlay=false \
	fps-update-interval=1000 > >(figures) 2>&1
wait_for_end
