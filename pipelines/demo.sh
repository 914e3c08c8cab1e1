#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# demo.sh
#
# The two commands of the README: a writer publishes the camera on a channel, and a reader shows it in a window. If there is no camera,
# the writer publishes a test picture. If there is no display, the reader saves a few pictures.
. "$(dirname "$0")/common.sh"

need gstreamer1.0-plugins-base videotestsrc videorate videoconvert
need_screen
check_requirements

described="The camera"
camera=(v4l2src)
if ! [ -e "$DEVICE" ]; then
	described="A test picture, because there is no $DEVICE"
	camera=(videotestsrc is-live=true)
elif [ "$DEVICE" != /dev/video0 ]; then
	camera+=("device=$DEVICE")
fi
start "$described" gst-launch-1.0 -q "${camera[@]}" ! rsshmsink "name=$CHANNEL"
choose_display
start "$shown" gst-launch-1.0 -q rsshmsrc "name=$CHANNEL" ! "${show_channel[@]}"
wait_for_end
