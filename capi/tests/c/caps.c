// SPDX-License-Identifier: MIT OR Apache-2.0
/* caps TABLE: the parts of each text in testkit/caps-texts.tsv, and the layouts of all formats. */
#include "common.h"

static char parts[1 << 17];

/* The value of the field `name`, or NULL. */
static const char *field(const char *name) {
  const char *at = parts;
  at += strlen(at) + 1; /* the media type */
  at += strlen(at) + 1; /* the features */
  const char *found = NULL;
  while (*at != '\0') {
    const char *value = at + strlen(at) + 1;
    if (strcmp(at, name) == 0) found = value;
    at = value + strlen(value) + 1;
  }
  return found;
}

/* The texts of the table that GStreamer takes have the same parts as their canonical form; the others have none. */
static void texts_of_the_table(const char *path) {
  FILE *file = fopen(path, "r");
  CHECK(file != NULL);
  char *line = NULL;
  size_t capacity = 0;
  int fixed = 0, refused = 0;
  while (getline(&line, &capacity, file) > 0) {
    line[strcspn(line, "\n")] = '\0';
    char *first = strchr(line, '\t');
    if (first == NULL || line[0] == '#') continue;
    *first++ = '\0';
    char *second = strchr(first, '\t');
    if (second == NULL) continue;
    *second++ = '\0';
    size_t needed = 0, canonical_needed = 0;
    if (strcmp(line, "fixed") == 0) {
      static char canonical[sizeof parts];
      EXPECT(rsshm_caps_parts(first, NULL, 0, &needed), RSSHM_OK);
      memset(parts, 1, sizeof parts);
      EXPECT(rsshm_caps_parts(first, parts, sizeof parts, NULL), RSSHM_OK);
      EXPECT(rsshm_caps_parts(second, canonical, sizeof canonical, &canonical_needed), RSSHM_OK);
      CHECK(needed == canonical_needed && memcmp(parts, canonical, needed) == 0 && parts[needed] == 1);
      CHECK(strncmp(second, parts, strlen(parts)) == 0);
      fixed++;
    } else if (strcmp(line, "refused") == 0) {
      char where[64];
      snprintf(where, sizeof where, "at byte %s there is", first);
      EXPECT_ERROR(rsshm_caps_parts(second, parts, sizeof parts, &needed), RSSHM_E_CAPS, where);
      refused++;
    }
  }
  CHECK(fixed > 50 && refused > 80);
  free(line);
  fclose(file);
}

static void values_of_fields(void) {
  const char *caps = "video/x-raw(memory:DMABuf, meta:X),format=\"NV12\",width=(i)0x40,a=1,a=yes,b=\"5 \\\"x\",c=<1,x>";
  EXPECT(rsshm_caps_parts(caps, parts, sizeof parts, NULL), RSSHM_OK);
  CHECK(strcmp(parts, "video/x-raw") == 0);
  CHECK(strcmp(parts + strlen(parts) + 1, "memory:DMABuf, meta:X") == 0);
  CHECK(strcmp(field("format"), "NV12") == 0 && strcmp(field("width"), "64") == 0);
  CHECK(strcmp(field("a"), "true") == 0 && strcmp(field("b"), "5 \"x") == 0);
  CHECK(strcmp(field("c"), "< (int)1, (string)x >") == 0 && field("d") == NULL);

  size_t needed = 0;
  EXPECT(rsshm_caps_parts("a/b", NULL, 0, &needed), RSSHM_OK);
  CHECK(needed == strlen("a/b") + 1 + 1 + 1);
  parts[needed - 1] = 'x';
  EXPECT_ERROR(rsshm_caps_parts("a/b", parts, needed - 1, NULL), RSSHM_E_ARGUMENT, "need 6 bytes, the memory has 5");
  CHECK(parts[0] == '\0' && parts[needed - 1] == 'x');
  EXPECT(rsshm_caps_parts("a/b", parts, needed, NULL), RSSHM_OK);
  EXPECT_ERROR(rsshm_caps_parts(NULL, parts, sizeof parts, NULL), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_caps_parts("a/b", NULL, 5, NULL), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_caps_parts("a/b,c=\"\xff\"", parts, sizeof parts, NULL), RSSHM_E_ARGUMENT, "UTF-8");
  EXPECT_ERROR(rsshm_caps_parts("", parts, sizeof parts, NULL), RSSHM_E_CAPS, "at byte 0 there is the end");
}

/* Checks a plane: pixels in a row, samples of a pixel, bytes of a sample. */
static void plane_is(const rsshm_layout *layout, int index, uint32_t columns, uint32_t channels, uint32_t sample) {
  const rsshm_plane_layout *plane = &layout->planes[index];
  CHECK(plane->pixel_bytes * columns == plane->row_bytes);
  CHECK(plane->sample_bytes == sample && plane->pixel_bytes == sample * channels);
}

static void layouts_of_formats(void) {
  char names[1 << 13];
  size_t needed = 0;
  EXPECT(rsshm_video_formats(NULL, 0, &needed), RSSHM_OK);
  CHECK(needed < sizeof names);
  EXPECT(rsshm_video_formats(names, sizeof names, NULL), RSSHM_OK);
  EXPECT_ERROR(rsshm_video_formats(names + 8000, 5, NULL), RSSHM_E_ARGUMENT, "need");
  EXPECT_ERROR(rsshm_video_formats(NULL, 5, NULL), RSSHM_E_ARGUMENT, "NULL");
  int count = 0;
  for (const char *name = names; *name != '\0'; name += strlen(name) + 1) {
    for (uint32_t align = 0; align <= 4096; align = align == 0 ? 1 : 2 * align) {
      rsshm_layout layout = RSSHM_LAYOUT_INIT;
      EXPECT(rsshm_video_layout(name, 62, 46, align, &layout), RSSHM_OK);
      CHECK(layout.plane_count >= 1 && layout.plane_count <= RSSHM_MAX_PLANES && layout.bits > 0);
      for (uint32_t p = 0; p < layout.plane_count; p++) {
        const rsshm_plane_layout *plane = &layout.planes[p];
        uint64_t end = plane->offset + (plane->rows - 1) * (uint64_t)plane->stride + plane->row_bytes;
        CHECK(plane->rows > 0 && end <= layout.size && plane->sample_bytes > 0);
        CHECK(plane->pixel_bytes % plane->sample_bytes == 0);
      }
    }
    count++;
  }
  CHECK(count > 100);

  rsshm_layout layout = RSSHM_LAYOUT_INIT;
  EXPECT(rsshm_video_layout("BGR", 62, 46, 0, &layout), RSSHM_OK);
  CHECK(layout.plane_count == 1 && layout.planes[0].stride == 188 && layout.size == 188 * 46 && layout.bits == 8);
  plane_is(&layout, 0, 62, 3, 1);
  EXPECT(rsshm_video_layout("YUY2", 62, 46, 0, &layout), RSSHM_OK);
  plane_is(&layout, 0, 62, 2, 1);
  EXPECT(rsshm_video_layout("NV12", 62, 46, 32, &layout), RSSHM_OK);
  plane_is(&layout, 0, 62, 1, 1);
  plane_is(&layout, 1, 31, 2, 1);
  CHECK(layout.planes[1].offset == 64 * 46 && layout.planes[1].rows == 23 && layout.planes[1].stride == 64);
  EXPECT(rsshm_video_layout("P010_10LE", 62, 46, 0, &layout), RSSHM_OK);
  plane_is(&layout, 0, 62, 1, 2);
  plane_is(&layout, 1, 31, 2, 2);
  CHECK(layout.bits == 10 && layout.big_endian == 0);
  EXPECT(rsshm_video_layout("GRAY16_BE", 62, 46, 0, &layout), RSSHM_OK);
  plane_is(&layout, 0, 62, 1, 2);
  CHECK(layout.big_endian == 1);
  EXPECT(rsshm_video_layout("RGB16", 62, 46, 0, &layout), RSSHM_OK);
  plane_is(&layout, 0, 62, 1, 2);
  EXPECT(rsshm_video_layout("v210", 62, 46, 0, &layout), RSSHM_OK);
  CHECK(layout.planes[0].pixel_bytes == 0 && layout.planes[0].sample_bytes == 4 && layout.planes[0].stride == 256);

  EXPECT_ERROR(rsshm_video_layout(NULL, 62, 46, 0, &layout), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_video_layout("nv12", 62, 46, 0, &layout), RSSHM_E_CAPS, "nv12");
  EXPECT_ERROR(rsshm_video_layout("NV12_4L4", 62, 46, 0, &layout), RSSHM_E_CAPS, "tiles");
  EXPECT_ERROR(rsshm_video_layout("NV12", 0, 46, 0, &layout), RSSHM_E_CAPS, "width=0");
  EXPECT_ERROR(rsshm_video_layout("NV12", 62, -1, 0, &layout), RSSHM_E_CAPS, "height is -1");
  EXPECT_ERROR(rsshm_video_layout("BGRA", INT32_MAX, 1, 0, &layout), RSSHM_E_CAPS, "too large");
  EXPECT_ERROR(rsshm_video_layout("NV12", 62, 46, 3, &layout), RSSHM_E_ARGUMENT, "power of 2");
  EXPECT_ERROR(rsshm_video_layout("NV12", 62, 46, 8192, &layout), RSSHM_E_ARGUMENT, "8192");
  EXPECT_ERROR(rsshm_video_layout("NV12", 62, 46, 0, NULL), RSSHM_E_ARGUMENT, "rsshm_layout is NULL");
  layout.struct_size = 16;
  EXPECT_ERROR(rsshm_video_layout("NV12", 62, 46, 0, &layout), RSSHM_E_ARGUMENT, "struct_size");
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  texts_of_the_table(argv[1]);
  values_of_fields();
  layouts_of_formats();
  puts("ok");
  return 0;
}
