#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# over-rtsp.sh send | receive HOST
#
# Sends a channel on one machine to a channel on another, as H.264 over RTSP. Many other programs can receive RTSP too:
# `gst-play-1.0 rtsp://HOST:8554/cam0`, VLC, and recorders for surveillance cameras.
#
#   PORT=8554      TCP port of the sender
#   LATENCY=100    milliseconds that the receiver waits for late packets
#   REMOTE=cam0    name of the sender's channel, if it differs from the receiver's
. "$(dirname "$0")/common.sh"
PORT=${PORT:-8554}

case "${1:-} ${2:-}" in
"send ")
	need gstreamer1.0-plugins-good rtph264pay
	need_encoder
	if ! /usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")' 2>/dev/null; then
		echo "missing: the RTSP server library for Python" >&2
		missing+=(python3-gi gir1.2-gst-rtsp-server-1.0)
	fi
	check_requirements
	start_camera "$CHANNEL"
	start "The stream for receivers" /usr/bin/python3 "$here/rtsp-server.py" "$PORT" "/$CHANNEL" \
		"( rsshmsrc channel=$CHANNEL ! queue ! ${encoder[*]} ! rtph264pay name=pay0 config-interval=-1 pt=96 )"
	;;
"receive "?*)
	need gstreamer1.0-plugins-good rtspsrc rtph264depay
	need_decoder
	check_requirements
	start "The stream from $2" gst-launch-1.0 -q rtspsrc "location=rtsp://$2:$PORT/${REMOTE:-$CHANNEL}" protocols=tcp \
		"latency=${LATENCY:-100}" ! rtph264depay ! h264parse ! "$decoder" ! rsshmsink "channel=$CHANNEL"
	;;
*) usage ;;
esac
wait_for_end
