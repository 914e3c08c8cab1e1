// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * An OBS source, "rsshm channel", that shows a channel. Build and install it for the user:
 *   cmake -B build && cmake --build build && cmake --install build --prefix ~/.config/obs-studio/plugins/rsshm-channel
 */
#include <obs-module.h>
#include <rsshm.h>
#include <stdio.h>
#include <string.h>
#include <util/platform.h>
#include <util/threading.h>

OBS_DECLARE_MODULE()

/* The time after which the thread looks whether its source has ended. rsshm_reader_wake usually ends it earlier. */
#define PATIENCE INT64_C(1000000000)

/* GStreamer's names of the formats that OBS takes as they are. */
static const struct {
  const char *name;
  enum video_format format;
} formats[] = {
    {"I420", VIDEO_FORMAT_I420}, {"NV12", VIDEO_FORMAT_NV12},        {"YUY2", VIDEO_FORMAT_YUY2},
    {"YVYU", VIDEO_FORMAT_YVYU}, {"UYVY", VIDEO_FORMAT_UYVY},        {"Y42B", VIDEO_FORMAT_I422},
    {"Y444", VIDEO_FORMAT_I444}, {"P010_10LE", VIDEO_FORMAT_P010},   {"GRAY8", VIDEO_FORMAT_Y800},
    {"RGBA", VIDEO_FORMAT_RGBA}, {"BGRA", VIDEO_FORMAT_BGRA},        {"BGRx", VIDEO_FORMAT_BGRX},
    {"BGR", VIDEO_FORMAT_BGR3},
};

/* A source. The thread owns `refused`; all else changes only while there is no thread. */
struct source {
  obs_source_t *obs;
  rsshm_reader *reader; /* NULL: there is no thread. */
  pthread_t thread;
  volatile bool is_ending;
  char refused[64]; /* The format that the log already names. */
};

static enum video_format format_of(const char *name) {
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    if (strcmp(formats[i].name, name) == 0) return formats[i].format;
  }
  return VIDEO_FORMAT_NONE;
}

/* Shows a frame. OBS copies it. */
static void show(struct source *source, rsshm_frame *frame) {
  rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
  struct obs_source_frame2 picture = {0};
  if (rsshm_frame_get(frame, &info) != RSSHM_OK) return;
  picture.format = format_of(info.format);
  if (picture.format == VIDEO_FORMAT_NONE || info.plane_count == 0) {
    const char *name = info.format[0] != '\0' ? info.format : info.caps;
    if (strncmp(source->refused, name, sizeof source->refused - 1) != 0) {
      blog(LOG_WARNING, "rsshm channel: OBS does not take %s; convert it to NV12 or BGRx before the channel", name);
      snprintf(source->refused, sizeof source->refused, "%s", name);
    }
    return;
  }
  source->refused[0] = '\0';
  picture.width = (uint32_t)info.width;
  picture.height = (uint32_t)info.height;
  /* OBS's clock is CLOCK_MONOTONIC too. */
  picture.timestamp = info.pts_ns != RSSHM_TIME_NONE ? info.pts_ns : rsshm_now();
  for (uint32_t i = 0; i < info.plane_count; i++) {
    if (info.planes[i].stride < 0) return; /* OBS knows no pictures that are upside down. */
    picture.data[i] = (uint8_t *)info.planes[i].data;
    picture.linesize[i] = (uint32_t)info.planes[i].stride;
  }
  /* Caps without a colorimetry have GStreamer's default. */
  bool is_rgb = strstr("RGBA BGRA BGRx BGR", info.format) != NULL;
  bool is_full = is_rgb || strcmp(info.format, "GRAY8") == 0 || strstr(info.caps, "colorimetry=(string)1:") != NULL;
  bool is_709 = strstr(info.caps, "bt709") != NULL || (strstr(info.caps, "bt601") == NULL && info.height > 576);
  picture.range = is_full ? VIDEO_RANGE_FULL : VIDEO_RANGE_PARTIAL;
  video_format_get_parameters_for_format(is_709 ? VIDEO_CS_709 : VIDEO_CS_601, picture.range, picture.format,
                                         picture.color_matrix, picture.color_range_min, picture.color_range_max);
  obs_source_output_video2(source->obs, &picture);
}

static void *run(void *data) {
  struct source *source = data;
  while (!os_atomic_load_bool(&source->is_ending)) {
    rsshm_frame *frame;
    rsshm_status status = rsshm_reader_next(source->reader, PATIENCE, &frame);
    if (status == RSSHM_OK) {
      show(source, frame);
      rsshm_frame_release(frame);
    } else if (status == RSSHM_EOS || status == RSSHM_NO_WRITER) {
      obs_source_output_video2(source->obs, NULL); /* The picture disappears; the next writer may show another. */
    } else if (status < 0) {
      blog(LOG_WARNING, "rsshm channel: %s", rsshm_error());
      for (int i = 0; i < 10 && !os_atomic_load_bool(&source->is_ending); i++) os_sleep_ms(100);
    }
  }
  return NULL;
}

static void stop(struct source *source) {
  if (source->reader == NULL) return;
  os_atomic_set_bool(&source->is_ending, true);
  rsshm_reader_wake(source->reader);
  pthread_join(source->thread, NULL);
  rsshm_reader_close(source->reader);
  source->reader = NULL;
}

/* The settings have changed. */
static void update(void *data, obs_data_t *settings) {
  struct source *source = data;
  rsshm_reader_options options = RSSHM_READER_OPTIONS_INIT;
  options.max_behind = 1;
  stop(source);
  os_atomic_set_bool(&source->is_ending, false);
  obs_source_output_video2(source->obs, NULL);
  if (rsshm_reader_open(obs_data_get_string(settings, "channel"), &options, &source->reader) != RSSHM_OK) {
    blog(LOG_WARNING, "rsshm channel: %s", rsshm_error());
  } else if (pthread_create(&source->thread, NULL, run, source) != 0) {
    blog(LOG_WARNING, "rsshm channel: there is no thread for the source");
    rsshm_reader_close(source->reader);
    source->reader = NULL;
  }
}

static void *create(obs_data_t *settings, obs_source_t *obs) {
  struct source *source = bzalloc(sizeof *source);
  source->obs = obs;
  obs_source_set_async_unbuffered(obs, true); /* Each frame is shown at once. */
  update(source, settings);
  return source;
}

static void destroy(void *data) {
  stop(data);
  bfree(data);
}

static const char *get_name(void *data) {
  (void)data;
  return "rsshm channel";
}

static void get_defaults(obs_data_t *settings) { obs_data_set_default_string(settings, "channel", "cam0"); }

static obs_properties_t *get_properties(void *data) {
  (void)data;
  obs_properties_t *properties = obs_properties_create();
  obs_property_t *list = obs_properties_add_list(properties, "channel", "Channel", OBS_COMBO_TYPE_EDITABLE,
                                                 OBS_COMBO_FORMAT_STRING);
  char names[16384] = "";
  size_t needed;
  if (rsshm_channels(names, sizeof names, &needed) != RSSHM_OK) names[0] = '\0';
  for (const char *name = names; *name != '\0'; name += strlen(name) + 1) obs_property_list_add_string(list, name, name);
  return properties;
}

bool obs_module_load(void) {
  struct obs_source_info info = {0};
  info.id = "rsshm_channel";
  info.type = OBS_SOURCE_TYPE_INPUT;
  info.output_flags = OBS_SOURCE_ASYNC_VIDEO | OBS_SOURCE_DO_NOT_DUPLICATE;
  info.icon_type = OBS_ICON_TYPE_CAMERA;
  info.get_name = get_name;
  info.create = create;
  info.destroy = destroy;
  info.update = update;
  info.get_defaults = get_defaults;
  info.get_properties = get_properties;
  obs_register_source(&info);
  return true;
}
