#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# over-srt.sh send | receive HOST
#
# Sends a channel on one machine to a channel on another, as H.264 in MPEG-TS over SRT. Lost packets are sent again. Any number of
# receivers may connect to the sender, and disconnect from it, at any time.
#
#   PORT=7001      UDP port of the sender
#   LATENCY=120    milliseconds within which lost packets can be sent again
. "$(dirname "$0")/common.sh"
PORT=${PORT:-7001}
LATENCY=${LATENCY:-120}

case "${1:-} ${2:-}" in
"send ")
	need gstreamer1.0-plugins-bad srtsink mpegtsmux
	need_encoder
	check_requirements
	start_camera "$CHANNEL"
	start "The stream for receivers" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! queue ! "${encoder[@]}" ! mpegtsmux alignment=7 ! \
		srtsink "uri=srt://:$PORT?mode=listener" "latency=$LATENCY" wait-for-connection=false
	;;
"receive "?*)
	need gstreamer1.0-plugins-bad srtsrc tsdemux
	need_decoder
	check_requirements
	start "The stream from $2" gst-launch-1.0 -q srtsrc "uri=srt://$2:$PORT" "latency=$LATENCY" ! tsdemux ! h264parse ! "$decoder" ! \
		rsshmsink "channel=$CHANNEL"
	;;
*) usage ;;
esac
wait_for_end
