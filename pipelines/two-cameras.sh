#!/bin/bash
# two-cameras.sh
#
# Two cameras side by side: each is a channel of its own, and a third program puts them together.
#
#   SECOND_DEVICE=/dev/video2   the second camera; where there is none, another test picture stands in
. "$(dirname "$0")/common.sh"

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert compositor
need_screen
all_there

second=$CHANNEL-second
start_camera
DEVICE=${SECOND_DEVICE:-/dev/video2} start_camera "$second" ball
screen
# The size is given, as the compositor begins before it knows its pictures, and the window stays as large as the first of its own.
start "$shown" gst-launch-1.0 -q compositor name=both "sink_1::xpos=${SIZE%x*}" ! \
	"video/x-raw,width=$((2 * ${SIZE%x*})),height=${SIZE#*x},framerate=30/1" ! "${show[@]}" \
	rsshmsrc "channel=$CHANNEL" ! videoconvert ! both.sink_0 rsshmsrc "channel=$second" ! videoconvert ! both.sink_1
goes_on
