//! Byte for byte: what the reader's process gets is what the writer's process had.

mod common;

use common::{Channel, Process, launch};

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
