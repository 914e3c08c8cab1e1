// SPDX-License-Identifier: MIT OR Apache-2.0
/* metadata CHANNEL: prints the metadata of the first frame. */
#include "common.h"

int main(int argc, char **argv) {
  rsshm_reader *reader;
  rsshm_frame *frame;
  rsshm_metadata record = RSSHM_METADATA_INIT;
  rsshm_region region = RSSHM_REGION_INIT;
  rsshm_time_code code = RSSHM_TIME_CODE_INIT;
  CHECK(argc == 2);
  setvbuf(stdout, NULL, _IOLBF, 0);
  EXPECT(rsshm_reader_open(argv[1], NULL, &reader), RSSHM_OK);
  puts("ready");
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_OK);
  for (uint32_t i = 0; rsshm_frame_metadata(frame, i, &record) == RSSHM_OK; i++) {
    printf("record %u of %zu bytes, the first is %u\n", record.kind, record.size, record.data[0]);
  }
  for (uint32_t i = 0; rsshm_frame_region(frame, i, &region) == RSSHM_OK; i++) {
    printf("region %ux%u at %u,%u id %d in %d: %.*s\n", region.width, region.height, region.x, region.y, region.id,
           region.parent_id, (int)region.name_size, region.name);
  }
  for (uint32_t i = 0; rsshm_frame_time_code(frame, i, &code) == RSSHM_OK; i++) {
    printf("time code %02u:%02u:%02u:%02u at %u/%u\n", code.hours, code.minutes, code.seconds, code.frames, code.fps_n,
           code.fps_d);
  }
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  return 0;
}
