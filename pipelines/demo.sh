#!/bin/bash
# demo.sh
#
# One camera, two programs: a writer publishes the camera (a test picture where there is none) on the channel cam0, a
# reader shows it in a window. Without a display the reader saves a few pictures. A third program prints live figures.
#
#   DEMO_SECONDS=10             ends after so long (default: at Ctrl-C, or after 10 s when nobody can press it)
#   DEMO_CHANNEL=cam0           another channel
#   DEMO_PICTURES=demo-pictures where pictures go
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac

channel=${DEMO_CHANNEL:-cam0}
pictures=${DEMO_PICTURES:-demo-pictures}
display=${DISPLAY:-}${WAYLAND_DISPLAY:-}
seconds=${DEMO_SECONDS:-}
if [ -z "$seconds" ] && ! [ -t 0 ]; then seconds=10; fi

exec 3>&1
processes=()
finish() {
	trap - EXIT INT TERM
	for pid in "${processes[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
	for pid in "${processes[@]}"; do wait "$pid" 2>/dev/null || true; done
	left=$(find /dev/shm -maxdepth 1 \( -name "$channel" -o -name "sem.$channel" \) | wc -l)
	echo "Stopped. Files of the channel left in /dev/shm: $left"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints the command that a user would type, and runs it; in a session of its own, so that Ctrl-C ends it from here.
run() {
	echo "  gst-launch-1.0 $*" >&3
	setsid gst-launch-1.0 "$@" &
	processes+=($!)
}
figures() {
	sed -un 's/.*last-message = rendered: \([0-9]*\), dropped: \([0-9]*\), current: \([0-9.]*\), average: .*/\1 frames received, \3 per second, \2 dropped as late/p'
}

if [ -e /dev/video0 ]; then
	echo "Writer: the camera /dev/video0"
	run -q v4l2src ! video/x-raw,width=640,height=480 ! rsshmsink name="$channel"
else
	echo "Writer: a test picture, as there is no /dev/video0"
	run -q videotestsrc is-live=true ! video/x-raw,width=640,height=480 ! timeoverlay ! rsshmsink name="$channel"
fi
writer=${processes[0]}

if [ -n "$display" ]; then
	echo "Reader: a window"
	run -q rsshmsrc name="$channel" ! videoconvert ! autovideosink
else
	mkdir -p "$pictures"
	rm -f "$pictures"/frame-*.png
	echo "Reader: no display, so a picture a second in $pictures/ (the last ten are kept)"
	run -q rsshmsrc name="$channel" ! videoconvert ! videorate ! video/x-raw,framerate=1/1 ! pngenc ! \
		multifilesink location="$pictures/frame-%03d.png" max-files=10
fi

echo "Another reader: live figures"
run -v rsshmsrc name="$channel" ! fpsdisplaysink video-sink=fakesink text-overlay=false \
	fps-update-interval=1000 > >(figures) 2>&1

echo "Ctrl-C ends them."
ends=$((SECONDS + ${seconds:-1000000}))
while [ "$SECONDS" -lt "$ends" ]; do
	if ! kill -0 "$writer" 2>/dev/null; then
		echo "The writer ended."
		exit 1
	fi
	sleep 0.2
done
if [ -z "$display" ]; then ls -l "$pictures"; fi
