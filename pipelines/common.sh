# SPDX-License-Identifier: MIT OR Apache-2.0
# common.sh
#
# Functions and settings that all scripts of this directory share. The settings come from the environment:
#
#   CHANNEL=cam0        name of the channel
#   DEVICE=/dev/video0  the camera (if it does not exist, a test picture is used)
#   SIZE=640x480        size of the picture
#   OUTPUT=recordings   directory for files that the script writes
#   RUN_SECONDS=10      seconds until the script ends (default: until Ctrl-C, or 10 if standard input is not a terminal)
#   END_SECONDS=10      seconds after which a program that does not end is killed
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

# help_text SCRIPT: prints the comment at the top of a script, without the licence line.
help_text() { sed -n '2,/^[^#]/{/^# SPDX-/d;s/^#\( \|$\)//p}' "$1"; }
usage() {
	help_text "$0" | head -n 1 | sed 's/^/usage: /' >&2
	exit 2
}
case "${1:-}" in
-h | --help)
	help_text "$0"
	echo
	help_text "${BASH_SOURCE[0]}" | sed -n '/^  /p'
	exit 0
	;;
esac

# --- Requirements

missing=()
# exists ELEMENT: succeeds if the element is installed. gst-inspect-1.0 --exists is not used, because it fails if the version of the
# plugin differs from that of GStreamer.
exists() { gst-inspect-1.0 "$1" >/dev/null 2>&1; }
# need PACKAGE ELEMENT...: records the package as missing if one of its elements is not installed.
need() {
	local package=$1 element
	for element in "${@:2}"; do
		if ! exists "$element"; then
			echo "missing: the GStreamer element $element" >&2
			missing+=("$package")
		fi
	done
}
# need_program PACKAGE PROGRAM: records the package as missing if its program is not installed.
need_program() {
	if ! command -v "$2" >/dev/null; then
		echo "missing: the program $2" >&2
		missing+=("$1")
	fi
}
# check_requirements: ends the script if a package is missing, and prints the command that installs it.
check_requirements() {
	need_program gstreamer1.0-tools gst-launch-1.0
	if [ "${#missing[@]}" -eq 0 ] && ! exists rsshmsink; then
		# The plugin may be built but not installed.
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
# first_of ELEMENT...: prints the first element that is installed or, if none is, the first one.
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

# --- Parts of pipelines

# choose_display: sets `show`, the end of a pipeline that shows the picture, `show_channel`, the same directly after rsshmsrc, and `shown`,
# its description. The pipeline shows a window or, without a display, saves one picture file a second.
choose_display() {
	if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
		shown="A window"
		show=(videoconvert ! autovideosink)
		show_channel=(autovideosink)
	else
		mkdir -p "$OUTPUT"
		shown="One picture a second, because there is no display (the last ten are kept)"
		show=(videorate ! "video/x-raw,framerate=1/1" ! videoconvert ! pngenc ! multifilesink "location=$OUTPUT/picture-%03d.png" max-files=10)
		show_channel=("${show[@]}")
	fi
}
encoder=(videoconvert ! x264enc tune=zerolatency speed-preset=veryfast key-int-max=30 bitrate=2000 ! "video/x-h264,profile=main" ! h264parse)

# --- Programs

# Where the channels are.
directory=${RSSHM_DIR:-/dev/shm}
processes=()
# wait_until_ended: waits up to END_SECONDS until all programs have ended. Sets `alive` to those that have not.
wait_until_ended() {
	local pid left
	for ((left = ${END_SECONDS:-10} * 10; ; left--)); do
		alive=()
		for pid in "${processes[@]}"; do if kill -0 "$pid" 2>/dev/null; then alive+=("$pid"); fi; done
		if [ "${#alive[@]}" -eq 0 ] || [ "$left" -le 0 ]; then break; fi
		sleep 0.1
	done
}
# finish: interrupts all programs, waits until they have ended, and counts the files of the channel that are left.
finish() {
	trap - EXIT INT TERM
	# A closed terminal does not interrupt the end.
	trap '' HUP
	local pid left alive
	for pid in "${processes[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
	wait_until_ended
	# A program that hangs in a driver does not end by itself. Its process group has the processes that it started.
	for pid in "${alive[@]}"; do
		echo "Process $pid did not end within ${END_SECONDS:-10} seconds, so it is killed" >&2
		kill -KILL -- "-$pid" 2>/dev/null || true
	done
	wait_until_ended
	for pid in "${alive[@]}"; do
		echo "Process $pid is left: it was killed, but it may hang in a driver" >&2
	done
	if [ "${#processes[@]}" -gt 0 ]; then
		left=$(find "$directory" -maxdepth 1 \( -name "$CHANNEL" -o -name "sem.$CHANNEL" \) | wc -l)
		echo "Stopped. Files of the channel left in $directory: $left"
	fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

exec 3>&1
# start DESCRIPTION PROGRAM [ARGUMENT...]: prints the description and the command as a user would type it, and runs the program. The
# program gets its own session, so that Ctrl-C reaches only this script, which then ends the program.
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
# start_camera CHANNEL [PATTERN]: starts the writer of the channel, if it has none yet. PATTERN is the test picture.
start_camera() {
	local channel=$1 pattern=${2:-smpte}
	if [ -e "$directory/$channel" ] \
		&& gst-launch-1.0 -q rsshmsrc "channel=$channel" num-buffers=1 connection-timeout=1 ! fakesink sync=false >/dev/null 2>&1; then
		echo "The channel $channel has a writer already"
		return
	fi
	if [ -e "$DEVICE" ]; then
		start "The camera $DEVICE" gst-launch-1.0 -q v4l2src "device=$DEVICE" ! "$caps" ! rsshmsink "name=$channel"
	else
		start "A test picture, because there is no $DEVICE" gst-launch-1.0 -q videotestsrc is-live=true "pattern=$pattern" ! \
			"$caps,framerate=30/1" ! timeoverlay ! rsshmsink "name=$channel"
	fi
}
ends=$((SECONDS + ${RUN_SECONDS:-1000000000}))
time_is_left() { [ "$SECONDS" -lt "$ends" ]; }
# wait_for_end: waits for Ctrl-C or the end of RUN_SECONDS. Fails if a program ends before that.
wait_for_end() {
	local pid
	echo "Press Ctrl-C to stop."
	while time_is_left; do
		for pid in "${processes[@]}"; do
			if ! kill -0 "$pid" 2>/dev/null; then
				echo "One of the programs has ended; stopping the others." >&2
				exit 1
			fi
		done
		sleep 0.2
	done
}
