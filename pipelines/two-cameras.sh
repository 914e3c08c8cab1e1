#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# two-cameras.sh
#
# Two cameras side by side: each camera has its own channel, and a third program combines them in one picture.
#
#   SECOND_DEVICE=/dev/video2   the second camera (if it does not exist, another test picture is used)
. "$(dirname "$0")/common.sh"

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert compositor
need_screen
check_requirements

second=$CHANNEL-second
start_camera "$CHANNEL"
DEVICE=${SECOND_DEVICE:-/dev/video2} start_camera "$second" ball
choose_display
# The size is given here because the compositor starts before it knows the size of its inputs. The window keeps the size of the
# compositor's first picture.
start "$shown" gst-launch-1.0 -q compositor name=both "sink_1::xpos=${SIZE%x*}" ! \
	"video/x-raw,width=$((2 * ${SIZE%x*})),height=${SIZE#*x},framerate=30/1" ! "${show[@]}" \
	rsshmsrc "channel=$CHANNEL" ! videoconvert ! both.sink_0 rsshmsrc "channel=$second" ! videoconvert ! both.sink_1
wait_for_end
