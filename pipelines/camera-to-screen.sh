#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# camera-to-screen.sh
#
# The camera in a window: one program captures the camera, and another shows it. To get a second window on the same camera, start the
# script again in another terminal.
. "$(dirname "$0")/common.sh"

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert
need_screen
check_requirements

start_camera "$CHANNEL"
choose_display
start "$shown" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! "${show_channel[@]}"
wait_for_end
