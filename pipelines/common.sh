# common.sh
#
# What the scripts of this folder share. They take these settings from the environment:
#
#   CHANNEL=cam0        the channel's name
#   DEVICE=/dev/video0  the camera; where there is none, a test picture stands in
#   SIZE=640x480        its size
#   OUTPUT=recordings   folder for what they write
#   RUN_SECONDS=10      they end after so long (default: at Ctrl-C, or after 10 s when nobody can press it)
#
# shellcheck shell=bash disable=SC2034
set -euo pipefail

CHANNEL=${CHANNEL:-cam0}
DEVICE=${DEVICE:-/dev/video0}
SIZE=${SIZE:-640x480}
OUTPUT=${OUTPUT:-recordings}
RUN_SECONDS=${RUN_SECONDS:-}
if [ -z "$RUN_SECONDS" ] && ! [ -t 0 ]; then RUN_SECONDS=10; fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
caps="video/x-raw,width=${SIZE%x*},height=${SIZE#*x}"

# The text at the head of a script.
head_of() { sed -n '2,/^[^#]/s/^#\( \|$\)//p' "$1"; }
usage() {
	head_of "$0" | head -n 1 | sed 's/^/usage: /' >&2
	exit 2
}
case "${1:-}" in
-h | --help)
	head_of "$0"
	echo
	head_of "${BASH_SOURCE[0]}" | sed -n '/^  /p'
	exit 0
	;;
esac

# --- what is needed

missing=()
# --exists compares versions, and that of a plugin need not be GStreamer's.
exists() { gst-inspect-1.0 "$1" >/dev/null 2>&1; }
# need PACKAGE ELEMENT...: notes the package if one of its elements is not there.
need() {
	local package=$1 element
	for element in "${@:2}"; do
		if ! exists "$element"; then
			echo "missing: the GStreamer element $element" >&2
			missing+=("$package")
		fi
	done
}
# need_program PACKAGE PROGRAM
need_program() {
	if ! command -v "$2" >/dev/null; then
		echo "missing: the program $2" >&2
		missing+=("$1")
	fi
}
# all_there: ends the script if something is missing, and says how to install it.
all_there() {
	need_program gstreamer1.0-tools gst-launch-1.0
	if [ "${#missing[@]}" -eq 0 ] && ! exists rsshmsink; then
		# Built and not installed?
		export GST_PLUGIN_PATH="$here/../target/plugin${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}"
		if ! exists rsshmsink; then
			echo "missing: rsshmsink and rsshmsrc; install them with: make -C '$(dirname "$here")' install" >&2
			exit 1
		fi
	fi
	if [ "${#missing[@]}" -gt 0 ]; then
		echo "install with: sudo apt-get install $(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')" >&2
		exit 1
	fi
}
# first_of ELEMENT...: the first of them that is there.
first_of() {
	local element
	for element in "$@"; do
		if exists "$element"; then
			echo "$element"
			return
		fi
	done
	echo "$1"
}
need_screen() { need gstreamer1.0-plugins-good autovideosink pngenc; }
need_encoder() { need gstreamer1.0-plugins-ugly x264enc && need gstreamer1.0-plugins-bad h264parse; }
need_decoder() { decoder=$(first_of avdec_h264 openh264dec) && need gstreamer1.0-libav "$decoder" && need gstreamer1.0-plugins-bad h264parse; }

# --- parts of pipelines

# What a person can look at: a window, or a picture a second where there is no screen.
screen() {
	if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
		shown="A window"
		show=(videoconvert ! autovideosink)
	else
		mkdir -p "$OUTPUT"
		shown="A picture a second, as there is no screen (the last ten are kept)"
		show=(videoconvert ! videorate ! "video/x-raw,framerate=1/1" ! pngenc ! multifilesink "location=$OUTPUT/picture-%03d.png" max-files=10)
	fi
}
encoder=(videoconvert ! x264enc tune=zerolatency speed-preset=veryfast key-int-max=30 bitrate=2000 ! "video/x-h264,profile=main" ! h264parse)

# --- programs

processes=()
finish() {
	trap - EXIT INT TERM
	local pid left
	for pid in "${processes[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
	for pid in "${processes[@]}"; do wait "$pid" 2>/dev/null || true; done
	if [ "${#processes[@]}" -gt 0 ]; then
		left=$(find /dev/shm -maxdepth 1 \( -name "$CHANNEL" -o -name "sem.$CHANNEL" \) | wc -l)
		echo "Stopped. Files of the channel left in /dev/shm: $left"
	fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

exec 3>&1
# start WHAT PROGRAM [ARGUMENT...]: says what it is, prints the command that a user would type, and runs it; in a session of
# its own, so that Ctrl-C ends it from here.
start() {
	local word line=
	for word in "${@:2}"; do
		case $word in *[[:space:]\(\)\;\&\<\>\$\"]*) word="'$word'" ;; esac
		line+=" $word"
	done
	printf '%s:\n  %s\n' "$1" "${line# }" >&3
	setsid "${@:2}" &
	processes+=($!)
}
# stop: ends the program started last as Ctrl-C does, and waits until it has.
stop() {
	kill -INT "${processes[-1]}" 2>/dev/null || true
	wait "${processes[-1]}" || true
}
# start_camera [CHANNEL [PATTERN]]: the writer, if the channel has none yet.
start_camera() {
	local channel=${1:-$CHANNEL} pattern=${2:-smpte}
	if [ -e "/dev/shm/$channel" ] \
		&& gst-launch-1.0 -q rsshmsrc "channel=$channel" num-buffers=1 connection-timeout=1 ! fakesink sync=false >/dev/null 2>&1; then
		echo "The channel $channel has a writer already"
		return
	fi
	if [ -e "$DEVICE" ]; then
		start "The camera $DEVICE" gst-launch-1.0 -q v4l2src "device=$DEVICE" ! "$caps" ! rsshmsink "name=$channel"
	else
		start "A test picture, as there is no $DEVICE" gst-launch-1.0 -q videotestsrc is-live=true "pattern=$pattern" ! \
			"$caps,framerate=30/1" ! timeoverlay ! rsshmsink "name=$channel"
	fi
}
ends=$((SECONDS + ${RUN_SECONDS:-1000000000}))
time_is_left() { [ "$SECONDS" -lt "$ends" ]; }
# goes_on: until Ctrl-C or the time is over; fails when a program ends before.
goes_on() {
	local pid
	echo "Ctrl-C ends them."
	while time_is_left; do
		for pid in "${processes[@]}"; do
			if ! kill -0 "$pid" 2>/dev/null; then
				echo "One of the programs ended." >&2
				exit 1
			fi
		done
		sleep 0.2
	done
}
