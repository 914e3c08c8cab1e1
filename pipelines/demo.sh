#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# demo.sh
#
# The two commands of the README: a writer publishes the camera on a channel, and a reader shows it in a window. If there is no camera,
# the writer publishes a test picture. If there is no display, the reader saves a few pictures. In a terminal, rsshm top then shows the
# channel and its reader, until q or Ctrl-C. RSSHM names the program rsshm, if it is not on the PATH.
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
rsshm=$(command -v "${RSSHM:-rsshm}" || true)
if ! [ -t 0 ] || ! [ -t 1 ]; then rsshm=; fi
if [ -n "$rsshm" ]; then
	# The programs must not write on the screen of rsshm top. What they say is printed at the end.
	log=$(mktemp)
	trap 'finish; cat "$log"; rm -f "$log"' EXIT
	exec 4>>"$log" 5>&4
else
	exec 4>&1 5>&2
fi
start "$described" gst-launch-1.0 -q "${camera[@]}" ! rsshmsink "name=$CHANNEL" >&4 2>&5
choose_display
start "$shown" gst-launch-1.0 -q rsshmsrc "name=$CHANNEL" ! "${show_channel[@]}" >&4 2>&5
if [ -n "$rsshm" ]; then
	printf 'Who reads it:\n  rsshm top %s\n' "$CHANNEL"
	"$rsshm" wait "$CHANNEL" --for reader --timeout 10s
	"$rsshm" top ${RUN_SECONDS:+-n "$RUN_SECONDS"} "$CHANNEL"
else
	wait_for_end
fi
