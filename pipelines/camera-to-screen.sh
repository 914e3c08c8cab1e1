#!/bin/bash
# camera-to-screen.sh
#
# The camera in a window: one program captures, another shows. Start the script a second time elsewhere for a second window on the
# same camera.
. "$(dirname "$0")/common.sh"

need gstreamer1.0-plugins-base videotestsrc timeoverlay videoconvert
need_screen
all_there

start_camera
screen
start "$shown" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! "${show[@]}"
goes_on
