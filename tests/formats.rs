//! Byte for byte: what the reader's process gets is what the writer's process had.

mod common;

use common::{Channel, Pipeline, Process, Tap, launch};
use gst::prelude::*;

/// Hashes that `checksumsink` printed, one a frame.
fn hashes(output: &str) -> Vec<String> {
    output
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .collect()
}

/// Sends `frames` frames from one process to another and compares the hash of each.
#[track_caller]
fn same_on_both_sides(producer: &str, frames: usize) {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "{producer} ! tee name=t ! queue ! checksumsink sync=false \
         t. ! queue ! rsshmsink name={channel} lossless=true wait-for-connection=true sync=false"
    ));
    let mut reader: Process = launch(&format!("rsshmsrc name={channel} ! checksumsink sync=false"));
    let (sent, received) = (hashes(&writer.wait_ok()), hashes(&reader.wait_ok()));
    assert_eq!(sent.len(), frames, "{sent:?}");
    assert_eq!(sent, received);
    channel.assert_gone();
}

#[test]
fn raw_video() {
    for format in ["I420", "NV12", "YUY2", "UYVY", "BGRx", "RGB", "GRAY8", "P010_10LE"] {
        for size in ["width=320,height=240", "width=641,height=361"] {
            same_on_both_sides(
                &format!("videotestsrc num-buffers=120 pattern=snow ! video/x-raw,format={format},{size}"),
                120,
            );
        }
    }
}

#[test]
fn jpeg() {
    let producer = "videotestsrc num-buffers=120 pattern=snow ! video/x-raw,width=640,height=360 ! jpegenc";
    same_on_both_sides(producer, 120);
}

#[test]
fn audio() {
    same_on_both_sides("audiotestsrc num-buffers=200 wave=white-noise", 200);
    // Blocks of different lengths.
    let odd =
        "audiotestsrc num-buffers=100 wave=white-noise samplesperbuffer=997 ! audio/x-raw,rate=44100,format=S16LE";
    same_on_both_sides(&format!("{odd} ! audiobuffersplit output-buffer-duration=1/77"), 175);
}

/// Black first, then noise: key frames of a few hundred bytes, then some that outgrow every slot there is.
const GROWING_H264: &str = "concat name=c \
    ! x264enc tune=zerolatency speed-preset=ultrafast quantizer=4 pass=quant key-int-max=15 \
    ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au";
const BLACK: &str = "videotestsrc num-buffers=40 pattern=black ! video/x-raw,format=I420,width=640,height=360 ! c.";
const NOISE: &str = "videotestsrc num-buffers=40 pattern=snow ! video/x-raw,format=I420,width=640,height=360 ! c.";

#[test]
fn h264() {
    same_on_both_sides(&format!("{BLACK} {NOISE} {GROWING_H264}"), 80);
}

#[test]
fn frames_that_outgrow_the_slots_get_new_ones_in_mid_stream() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let mut writer = launch(&format!(
        "{BLACK} {NOISE} {GROWING_H264} ! rsshmsink name={channel} lossless=true wait-for-connection=true sync=false"
    ));
    reader.pipeline.wait_eos();
    writer.wait_ok();
    let frames = reader.all();
    assert_eq!(frames.len(), 80);
    let largest = |frames: &[common::Seen]| frames.iter().map(|frame| frame.bytes.len()).max().unwrap();
    assert!(largest(&frames[..40]) < 64 * 1024 && largest(&frames[40..]) > 64 * 1024);
    assert!(reader.pipeline.stat("rsshmsrc", "reconnects") > 0);
    assert!(frames.iter().all(|frame| frame.caps == frames[0].caps));
    channel.assert_gone();
}

#[test]
fn frames_of_which_none_can_be_decoded_alone_are_passed_on_all_the_same() {
    // As v4l2src marks all that is neither raw video nor JPEG: Bayer pictures, and H.264 of cameras that say no more of it.
    let channel = Channel::new();
    let writer = Pipeline::new(&format!(
        "videotestsrc is-live=true ! video/x-bayer,format=rggb,width=64,height=48,framerate=30/1 ! rsshmsink name={channel}"
    ));
    let pad = writer.element(&channel.0).static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        info.buffer_mut()
            .unwrap()
            .make_mut()
            .set_flags(gst::BufferFlags::DELTA_UNIT);
        gst::PadProbeReturn::Ok
    });
    writer.0.set_state(gst::State::Playing).unwrap();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    reader.wait_for_more(5);
}
