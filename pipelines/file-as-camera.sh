#!/bin/bash
# file-as-camera.sh FILE
#
# A file stands in for a camera: at its own speed, over and over. Programs that read the channel need forward-eos=false, or end with
# the file; between two rounds they wait for a moment. Without a gap, for as many rounds as there are names:
#
#   gst-play-1.0 --gapless --videosink="videoconvert ! rsshmsink channel=cam0" FILE FILE FILE
. "$(dirname "$0")/common.sh"
film=${1:-}

need gstreamer1.0-plugins-base decodebin videoconvert
need_screen
all_there
if ! [ -r "$film" ]; then
	echo "$0: which file? (--help says more)" >&2
	exit 1
fi

screen
start "$shown" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" forward-eos=false ! "${show[@]}"
while time_is_left; do
	start "The file" gst-launch-1.0 -q filesrc "location=$film" ! decodebin ! videoconvert ! rsshmsink "channel=$CHANNEL"
	while time_is_left && kill -0 "${processes[-1]}" 2>/dev/null; do sleep 0.1; done
	if time_is_left; then wait "${processes[-1]}"; fi
done
