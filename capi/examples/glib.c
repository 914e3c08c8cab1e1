// SPDX-License-Identifier: MIT OR Apache-2.0
/* glib CHANNEL: prints frames in a GLib main loop. Build: cc glib.c $(pkg-config --cflags --libs rsshm glib-2.0) */
#include <glib-unix.h>
#include <inttypes.h>
#include <rsshm.h>
#include <stdio.h>

static rsshm_reader *reader;

static gboolean on_frame(gint fd, GIOCondition condition, gpointer loop) {
  rsshm_frame *frame;
  (void)fd;
  (void)condition;
  rsshm_status status = rsshm_reader_next(reader, 0, &frame);
  if (status == RSSHM_OK) {
    rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
    rsshm_frame_get(frame, &info);
    printf("frame %" PRIu64 " from %d\n", info.seq, info.data[0]);
    rsshm_frame_release(frame);
  }
  if (status < 0) fprintf(stderr, "%s\n", rsshm_error());
  if (status >= 0 && status != RSSHM_EOS) return G_SOURCE_CONTINUE;
  g_main_loop_quit((GMainLoop *)loop);
  return G_SOURCE_REMOVE;
}

int main(int argc, char **argv) {
  GMainLoop *loop = g_main_loop_new(NULL, FALSE);
  int fd = -1;
  if (rsshm_reader_open(argc > 1 ? argv[1] : "cam0", NULL, &reader) == RSSHM_OK) fd = rsshm_reader_fd(reader);
  if (fd < 0) return fprintf(stderr, "%s\n", rsshm_error()), 1;
  g_unix_fd_add(fd, G_IO_IN, on_frame, loop);
  g_main_loop_run(loop);
  rsshm_reader_close(reader);
  g_main_loop_unref(loop);
  return 0;
}
