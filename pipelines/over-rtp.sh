#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# over-rtp.sh send HOST | receive
#
# Sends a channel on one machine to a channel on another, as H.264 in RTP over UDP. This has the least delay, but lost packets are not
# sent again.
#
#   PORT=5004      UDP port of the receiver
#   LATENCY=100    milliseconds that the receiver waits for late packets
. "$(dirname "$0")/common.sh"
PORT=${PORT:-5004}

need gstreamer1.0-plugins-good rtph264pay rtph264depay rtpjitterbuffer udpsink udpsrc
case "${1:-} ${2:-}" in
"send "?*)
	need_encoder
	check_requirements
	start_camera "$CHANNEL"
	start "The stream to $2" gst-launch-1.0 -q rsshmsrc "channel=$CHANNEL" ! queue ! "${encoder[@]}" ! \
		rtph264pay config-interval=-1 pt=96 ! udpsink "host=$2" "port=$PORT"
	;;
"receive ")
	need_decoder
	check_requirements
	start "The stream from another machine" gst-launch-1.0 -q udpsrc "port=$PORT" \
		caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96 ! \
		rtpjitterbuffer "latency=${LATENCY:-100}" ! rtph264depay ! h264parse ! "$decoder" ! rsshmsink "channel=$CHANNEL"
	;;
*) usage ;;
esac
wait_for_end
