#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# still-picture.sh [FILE]
#
# A still picture of the camera, as a PNG file (default: still.png). If the channel has no writer, the script starts the camera for
# the picture.
. "$(dirname "$0")/common.sh"
file=${1:-still.png}

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert
need gstreamer1.0-plugins-good pngenc
check_requirements

start_camera "$CHANNEL"
start "The picture" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" num-buffers=1 connection-timeout=10 ! videoconvert ! pngenc ! \
	filesink "location=$file"
wait "${processes[-1]}"
echo "Saved $file"
