// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * show MODULE CHANNEL: what OBS does with the source "rsshm channel", without OBS's window. Loads the module, shows the
 * channel, and prints the colour in the middle of OBS's picture whenever it changes, and the warnings of the source. A line on
 * stdin is another channel for the same source; an empty line ends the program.
 */
#include <dlfcn.h>
#include <obs-nix-platform.h>
#include <obs.h>
#include <stdio.h>
#include <string.h>

#define SIZE 64

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "%d: %s does not hold\n", __LINE__, #condition);      \
      return 1;                                                             \
    }                                                                       \
  } while (0)

static void print_log(int level, const char *format, va_list arguments, void *data) {
  /* The test reads the lines of the source; those of OBS are for people. */
  FILE *output = strncmp(format, "rsshm channel", 13) == 0 ? stdout : stderr;
  (void)data;
  if (level <= LOG_WARNING) {
    vfprintf(output, format, arguments);
    fputc('\n', output);
    fflush(output);
  }
}

static void picture(void *data, struct video_data *frame) {
  static int last[3] = {-1, -1, -1};
  const uint8_t *pixel = frame->data[0] + SIZE / 2 * frame->linesize[0] + SIZE / 2 * 4;
  (void)data;
  if (last[0] == pixel[0] && last[1] == pixel[1] && last[2] == pixel[2]) return;
  for (int i = 0; i < 3; i++) last[i] = pixel[i];
  printf("%d %d %d\n", pixel[2], pixel[1], pixel[0]);
  fflush(stdout);
}

int main(int argc, char **argv) {
  struct obs_video_info video = {0};
  obs_module_t *module;
  char line[256];
  CHECK(argc == 3);
  base_set_log_handler(print_log, NULL);
  void *(*open_display)(const char *);
  *(void **)&open_display = dlsym(dlopen("libX11.so.6", RTLD_NOW), "XOpenDisplay");
  CHECK(open_display != NULL);
  obs_set_nix_platform(OBS_NIX_PLATFORM_X11_EGL);
  obs_set_nix_platform_display(open_display(NULL));
  CHECK(obs_startup("en-US", NULL, NULL));
  video.graphics_module = "libobs-opengl";
  video.fps_num = 60;
  video.fps_den = 1;
  video.base_width = video.base_height = video.output_width = video.output_height = SIZE;
  video.output_format = VIDEO_FORMAT_BGRA;
  video.colorspace = VIDEO_CS_SRGB;
  video.range = VIDEO_RANGE_FULL;
  CHECK(obs_reset_video(&video) == OBS_VIDEO_SUCCESS);
  CHECK(obs_open_module(&module, argv[1], NULL) == MODULE_SUCCESS);
  CHECK(obs_init_module(module));

  obs_data_t *settings = obs_data_create();
  obs_data_set_string(settings, "channel", argv[2]);
  obs_source_t *source = obs_source_create("rsshm_channel", "camera", settings, NULL);
  CHECK(source != NULL && strcmp(obs_source_get_display_name("rsshm_channel"), "rsshm channel") == 0);
  obs_properties_t *properties = obs_source_properties(source);
  CHECK(obs_properties_get(properties, "channel") != NULL);
  obs_properties_destroy(properties);

  /* The source fills OBS's picture, whatever the size of the frames. */
  obs_scene_t *scene = obs_scene_create("scene");
  obs_sceneitem_t *item = obs_scene_add(scene, source);
  struct vec2 bounds = {{{SIZE, SIZE}}};
  obs_sceneitem_set_bounds_type(item, OBS_BOUNDS_STRETCH);
  obs_sceneitem_set_bounds(item, &bounds);
  obs_set_output_source(0, obs_scene_get_source(scene));
  obs_add_raw_video_callback(NULL, picture, NULL);

  while (fgets(line, sizeof line, stdin) != NULL && line[0] != '\n') {
    line[strcspn(line, "\n")] = '\0';
    obs_data_set_string(settings, "channel", line);
    obs_source_update(source, settings);
  }
  obs_remove_raw_video_callback(picture, NULL);
  obs_set_output_source(0, NULL);
  obs_scene_release(scene);
  obs_source_release(source);
  obs_data_release(settings);
  obs_shutdown();
  printf("%ld leaks\n", bnum_allocs());
  return 0;
}
