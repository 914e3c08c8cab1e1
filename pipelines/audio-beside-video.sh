#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# audio-beside-video.sh
#
# Sound beside the picture. One program publishes picture and sound on two channels. Another program combines them again, in sync,
# and records them to talk.mkv in the directory OUTPUT. To play the recording: gst-play-1.0 recordings/talk.mkv
#
#   MICROPHONE=autoaudiosrc    the element that records sound (default: a test tone)
. "$(dirname "$0")/common.sh"

need gstreamer1.0-plugins-base videotestsrc audiotestsrc timeoverlay videoconvert audioconvert opusenc
need gstreamer1.0-plugins-good matroskamux
need_encoder
check_requirements

camera=(videotestsrc is-live=true ! "$caps,framerate=30/1" ! timeoverlay)
if [ -e "$DEVICE" ]; then camera=(v4l2src "device=$DEVICE" ! "$caps"); fi
read -ra microphone <<<"${MICROPHONE:-audiotestsrc is-live=true wave=ticks}"
sound=$CHANNEL-sound

mkdir -p "$OUTPUT"
start "Camera and microphone" gst-launch-1.0 -q "${camera[@]}" ! queue ! rsshmsink "channel=$CHANNEL" \
	"${microphone[@]}" ! audioconvert ! queue ! rsshmsink "channel=$sound"
start "A recording of both" gst-launch-1.0 -q -e matroskamux name=both ! filesink "location=$OUTPUT/talk.mkv" \
	rsshmsrc "channel=$CHANNEL" ! queue ! "${encoder[@]}" ! queue ! both. \
	rsshmsrc "channel=$sound" ! queue ! audioconvert ! audioresample ! opusenc ! queue ! both.
wait_for_end
