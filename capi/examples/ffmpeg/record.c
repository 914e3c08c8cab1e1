// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * record CHANNEL FILE: encodes a channel with FFmpeg's libraries, until the stream ends or Ctrl-C. The name of the file
 * says which format and encoder, for example film.mkv. FILE may be any URL that libavformat writes, also a pipe.
 *   cc record.c -o record $(pkg-config --cflags --libs rsshm libavformat libavcodec libswscale libavutil)
 */
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
#include <rsshm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* GStreamer's names of the formats that swscale takes. */
static const struct {
  const char *name;
  enum AVPixelFormat format;
} formats[] = {
    {"I420", AV_PIX_FMT_YUV420P},       {"NV12", AV_PIX_FMT_NV12},          {"NV21", AV_PIX_FMT_NV21},
    {"YUY2", AV_PIX_FMT_YUYV422},       {"UYVY", AV_PIX_FMT_UYVY422},       {"Y42B", AV_PIX_FMT_YUV422P},
    {"Y444", AV_PIX_FMT_YUV444P},       {"P010_10LE", AV_PIX_FMT_P010LE},   {"GRAY8", AV_PIX_FMT_GRAY8},
    {"GRAY16_LE", AV_PIX_FMT_GRAY16LE}, {"RGB", AV_PIX_FMT_RGB24},          {"BGR", AV_PIX_FMT_BGR24},
    {"RGBx", AV_PIX_FMT_RGB0},          {"BGRx", AV_PIX_FMT_BGR0},          {"RGBA", AV_PIX_FMT_RGBA},
    {"BGRA", AV_PIX_FMT_BGRA},          {"xRGB", AV_PIX_FMT_0RGB},          {"ARGB", AV_PIX_FMT_ARGB},
};

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
  (void)number;
  interrupted = 1;
}

/* The file, its encoder, and the picture that the encoder gets. */
struct recorder {
  AVFormatContext *file;
  AVCodecContext *encoder;
  AVStream *stream;
  AVFrame *picture;
  AVPacket *packet;
  struct SwsContext *scaler;
  uint64_t start_ns;
};

/* Prints why the recording ends. `error` is an error of FFmpeg, or 0. */
static int fail(const char *what, int error) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  if (error < 0) av_strerror(error, text, sizeof text);
  fprintf(stderr, "record: %s%s%s\n", what, error < 0 ? ": " : "", text);
  return -1;
}

/* Opens the file and the encoder for pictures of the size of the first frame. */
static int open_file(struct recorder *to, const char *name, const rsshm_frame_info *info) {
  int error = avformat_alloc_output_context2(&to->file, NULL, NULL, name);
  if (error < 0) return fail(name, error);
  const AVCodec *codec = avcodec_find_encoder(av_guess_codec(to->file->oformat, NULL, name, NULL, AVMEDIA_TYPE_VIDEO));
  if (codec == NULL) return fail("the format of this file has no video, or FFmpeg has no encoder for it; try .mkv", 0);
  to->stream = avformat_new_stream(to->file, NULL);
  to->encoder = avcodec_alloc_context3(codec);
  to->picture = av_frame_alloc();
  to->packet = av_packet_alloc();
  if (!to->stream || !to->encoder || !to->picture || !to->packet) return fail("there is no memory", 0);
  /* The encoders for 4:2:0 take even sizes only. */
  to->encoder->width = to->picture->width = info->width & ~1;
  to->encoder->height = to->picture->height = info->height & ~1;
  to->encoder->pix_fmt = codec->pix_fmts != NULL ? codec->pix_fmts[0] : AV_PIX_FMT_YUV420P;
  to->picture->format = to->encoder->pix_fmt;
  to->encoder->bit_rate = (int64_t)info->width * info->height * 4;
  to->encoder->time_base = (AVRational){1, 1000};
  if (info->fps_n > 0) to->encoder->framerate = (AVRational){info->fps_n, info->fps_d};
  if (to->file->oformat->flags & AVFMT_GLOBALHEADER) to->encoder->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  if ((error = avcodec_open2(to->encoder, codec, NULL)) < 0) return fail("the encoder does not start", error);
  if ((error = av_frame_get_buffer(to->picture, 0)) < 0) return fail("there is no memory", error);
  if ((error = avcodec_parameters_from_context(to->stream->codecpar, to->encoder)) < 0) return fail(name, error);
  to->stream->time_base = to->encoder->time_base;
  if ((error = avio_open(&to->file->pb, name, AVIO_FLAG_WRITE)) < 0) return fail(name, error);
  if ((error = avformat_write_header(to->file, NULL)) < 0) return fail(name, error);
  to->start_ns = info->pts_ns != RSSHM_TIME_NONE ? info->pts_ns : rsshm_now();
  to->picture->pts = -1;
  return 0;
}

/* Encodes the picture, or what the encoder still has if the picture is NULL, and writes the packets. */
static int encode(struct recorder *to, AVFrame *picture) {
  int error = avcodec_send_frame(to->encoder, picture);
  while (error >= 0 && (error = avcodec_receive_packet(to->encoder, to->packet)) >= 0) {
    av_packet_rescale_ts(to->packet, to->encoder->time_base, to->stream->time_base);
    error = av_interleaved_write_frame(to->file, to->packet);
  }
  return error == AVERROR(EAGAIN) || error == AVERROR_EOF ? 0 : fail("the file cannot be written", error);
}

/* Converts a frame into the encoder's picture and encodes it. */
static int record(struct recorder *to, const rsshm_frame_info *info) {
  const uint8_t *data[RSSHM_MAX_PLANES] = {NULL};
  int strides[RSSHM_MAX_PLANES] = {0};
  enum AVPixelFormat format = AV_PIX_FMT_NONE;
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    if (strcmp(formats[i].name, info->format) == 0) format = formats[i].format;
  }
  if (format == AV_PIX_FMT_NONE || info->plane_count == 0) {
    return fail("the format of the channel is not known here; convert it to NV12 before the channel", 0);
  }
  for (uint32_t i = 0; i < info->plane_count; i++) {
    data[i] = info->planes[i].data;
    strides[i] = (int)info->planes[i].stride;
  }
  /* A later writer may have another format or size. The pictures in the file keep theirs. */
  to->scaler = sws_getCachedContext(to->scaler, info->width, info->height, format, to->picture->width,
                                    to->picture->height, to->picture->format, SWS_BICUBIC, NULL, NULL, NULL);
  int error = to->scaler == NULL ? AVERROR(EINVAL) : av_frame_make_writable(to->picture);
  if (error < 0) return fail("the frame cannot be converted", error);
  sws_scale(to->scaler, data, strides, 0, info->height, to->picture->data, to->picture->linesize);
  /* The times in the file are those of the capture, and grow. */
  uint64_t now = info->pts_ns != RSSHM_TIME_NONE ? info->pts_ns : rsshm_now();
  int64_t pts = now > to->start_ns ? (int64_t)((now - to->start_ns) / 1000000) : 0;
  to->picture->pts = pts > to->picture->pts ? pts : to->picture->pts + 1;
  return encode(to, to->picture);
}

int main(int argc, char **argv) {
  struct recorder to = {0};
  rsshm_reader *reader;
  rsshm_frame *frame;
  int result = 0;
  if (argc != 3) return fail("usage: record CHANNEL FILE", 0) != 0;
  signal(SIGINT, interrupt);
  av_log_set_level(AV_LOG_WARNING);
  rsshm_status status = rsshm_reader_open(argv[1], NULL, &reader);
  while (!interrupted && result == 0 && status >= 0 && status != RSSHM_EOS) {
    status = rsshm_reader_next(reader, INT64_C(200000000), &frame);
    if (status != RSSHM_OK) continue;
    rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
    rsshm_frame_get(frame, &info);
    if (to.file == NULL) result = open_file(&to, argv[2], &info);
    if (result == 0) result = record(&to, &info);
    rsshm_frame_release(frame);
  }
  if (status < 0) result = fail(rsshm_error(), 0);
  if (to.file != NULL && result == 0) {
    result = encode(&to, NULL);
    if (result == 0) result = av_write_trailer(to.file);
  }
  if (to.file != NULL) avio_closep(&to.file->pb);
  rsshm_reader_close(reader);
  avformat_free_context(to.file);
  avcodec_free_context(&to.encoder);
  av_frame_free(&to.picture);
  av_packet_free(&to.packet);
  sws_freeContext(to.scaler);
  return result != 0;
}
