#!/bin/bash
# still-picture.sh [FILE]
#
# What the camera sees now, as a PNG file (still.png): of the channel's writer or, when there is none, of a camera that is started for
# that.
. "$(dirname "$0")/common.sh"
file=${1:-still.png}

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert
need gstreamer1.0-plugins-good pngenc
all_there

start_camera
start "The picture" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" num-buffers=1 connection-timeout=10 ! videoconvert ! pngenc ! \
	filesink "location=$file"
wait "${processes[-1]}"
echo "$file is there"
