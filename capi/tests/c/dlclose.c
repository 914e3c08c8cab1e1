// SPDX-License-Identifier: MIT OR Apache-2.0
/* dlclose LIBRARY CHANNEL: loads the library at run time, and unloads it while a reader and a writer are open. */
#include "common.h"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

static void *library;

/* A thread that used the library, and ends after the dlclose. */
static void *use(void *unused) {
  rsshm_status (*next)(rsshm_reader *, int64_t, rsshm_frame **);
  const char *(*error)(void);
  rsshm_frame *frame;
  (void)unused;
  *(void **)&next = dlsym(library, "rsshm_reader_next");
  *(void **)&error = dlsym(library, "rsshm_error");
  if (next(NULL, 0, &frame) != RSSHM_E_HANDLE || strstr(error(), "NULL") == NULL) abort();
  usleep(300000);
  return NULL;
}

int main(int argc, char **argv) {
  rsshm_status (*reader_open)(const char *, const rsshm_reader_options *, rsshm_reader **);
  rsshm_status (*writer_open)(const char *, const rsshm_writer_options *, rsshm_writer **);
  rsshm_status (*writer_close)(rsshm_writer *);
  int (*reader_fd)(rsshm_reader *);
  rsshm_reader *reader;
  rsshm_writer *writer;
  pthread_t thread;
  if (argc != 3) return 1;
  for (int i = 0; i < 3; i++) {
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
      fprintf(stderr, "%s\n", dlerror());
      return 1;
    }
    *(void **)&reader_open = dlsym(library, "rsshm_reader_open");
    *(void **)&reader_fd = dlsym(library, "rsshm_reader_fd");
    *(void **)&writer_open = dlsym(library, "rsshm_writer_open");
    *(void **)&writer_close = dlsym(library, "rsshm_writer_close");
    if (pthread_create(&thread, NULL, use, NULL) != 0) return 1;
    if (reader_open(argv[2], NULL, &reader) != RSSHM_OK || reader_fd(reader) < 0) return 1;
    if (writer_open(argv[2], NULL, &writer) != RSSHM_OK) return 1;
    usleep(100000);
    /* The threads of the reader go on. The writer is closed, so that the next round can open it. */
    if (writer_close(writer) != RSSHM_OK) return 1;
    if (dlclose(library) != 0) return 1;
    if (fork() == 0) _exit(0);
    usleep(100000);
    pthread_join(thread, NULL);
  }
  puts("ok");
  return 0;
}
