#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# file-as-camera.sh FILE
#
# A file as a camera: the file is played at its own speed, again and again. Programs that read the channel end with the file, unless
# they have forward-eos=false. Between two rounds there is a short gap. To play without gaps, name the file once for each round:
#
#   gst-play-1.0 --gapless --videosink="videoconvert ! rsshmsink channel=cam0" FILE FILE FILE
. "$(dirname "$0")/common.sh"
film=${1:-}

need gstreamer1.0-plugins-base decodebin videoconvert
need_screen
check_requirements
if ! [ -r "$film" ]; then
	echo "$0: FILE is missing or not readable (see --help)" >&2
	exit 1
fi

choose_display
start "$shown" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" forward-eos=false ! "${show[@]}"
while time_is_left; do
	start "The file" gst-launch-1.0 -q filesrc "location=$film" ! decodebin ! videoconvert ! rsshmsink "channel=$CHANNEL"
	while time_is_left && kill -0 "${processes[-1]}" 2>/dev/null; do sleep 0.1; done
	if time_is_left; then wait "${processes[-1]}"; fi
done
