#!/bin/bash
# over-srt.sh send | receive HOST
#
# From a channel on one machine to a channel on another, as H.264 in MPEG-TS over SRT: what is lost is sent again. The sender waits
# for receivers, which connect to it; any number may, and each may come and go.
#
#   PORT=7001      of the sender
#   LATENCY=120    milliseconds there are to send again what was lost
. "$(dirname "$0")/common.sh"
PORT=${PORT:-7001}
LATENCY=${LATENCY:-120}

case "${1:-} ${2:-}" in
"send ")
	need gstreamer1.0-plugins-bad srtsink mpegtsmux
	need_encoder
	all_there
	start_camera
	start "The stream for others" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! queue ! "${encoder[@]}" ! mpegtsmux alignment=7 ! \
		srtsink "uri=srt://:$PORT?mode=listener" "latency=$LATENCY" wait-for-connection=false
	;;
"receive "?*)
	need gstreamer1.0-plugins-bad srtsrc tsdemux
	need_decoder
	all_there
	start "The stream of $2" gst-launch-1.0 -q srtsrc "uri=srt://$2:$PORT" "latency=$LATENCY" ! tsdemux ! h264parse ! "$decoder" ! \
		rsshmsink "channel=$CHANNEL"
	;;
*) usage ;;
esac
goes_on
