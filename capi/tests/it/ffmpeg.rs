// SPDX-License-Identifier: MIT OR Apache-2.0

//! The example that records a channel with FFmpeg's libraries.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use rsshm_channel::{Caps, FrameDescriptor, ServiceThread, Writer, WriterOptions, monotonic_ns};
use rsshm_testkit::{Channel, need_program, skip, skip::succeeds};

use crate::{
    examples::{Directory, pkg_config},
    support::{Program, run},
};

const LIBRARIES: [&str; 4] = ["libavformat", "libavcodec", "libswscale", "libavutil"];

/// The size of the recorded pictures, and that of the second writer.
const SIZES: [(usize, usize); 2] = [(64, 48), (96, 32)];

/// Writes pictures of these brightnesses without loss. The reader still finds the last ones in its segment at the end.
fn write(channel: &Channel, (width, height): (usize, usize), values: &[u8], ends: bool) {
    let options = WriterOptions::default().lossless(true);
    let writer = Arc::new(Writer::open(channel.0.clone(), options).unwrap());
    let caps = format!("video/x-raw,format=GRAY8,width={width},height={height},framerate=30/1");
    writer.set_caps(Caps::fixed_size(caps, width * height)).unwrap();
    let _service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(20), |_, _| {}).unwrap();
    writer.wait_for_reader(width * height, || true).unwrap();
    for &value in values {
        let mut slot = writer.claim(width * height).unwrap().expect("a slot");
        slot.as_mut().fill(value);
        let descriptor = FrameDescriptor::new((width * height) as u64).with_pts(monotonic_ns());
        writer.publish(&slot, descriptor, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    if ends {
        writer.end_of_stream();
    }
}

/// The average brightness of each picture in a file.
fn brightnesses(file: &Path) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let average = |picture: &[u8]| picture.iter().map(|&byte| u64::from(byte)).sum::<u64>() / picture.len() as u64;
    output
        .stdout
        .chunks(SIZES[0].0 * SIZES[0].1)
        .map(|picture| average(picture) as u8)
        .collect()
}

#[test]
fn ffmpeg_example_records_each_frame() {
    need_program!("ffmpeg");
    if !LIBRARIES
        .iter()
        .all(|library| succeeds(Command::new("pkg-config").args(["--exists", library])))
    {
        skip!("libavformat-dev or another package of FFmpeg's libraries is not installed");
    }
    let flags: Vec<String> = LIBRARIES.iter().flat_map(|library| pkg_config(library)).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let program = Program::with("examples/ffmpeg/record.c", &flags);
    for (name, codec) in [("film.mkv", "h264"), ("film.avi", "mpeg4")] {
        let (channel, directory) = (Channel::new(), Directory::new("ffmpeg"));
        let file = directory.path(name);
        let mut recording = program.start(&[channel.as_str(), file.to_str().unwrap()]);
        let values: Vec<u8> = (0..24).map(|index| 10 * index + 10).collect();
        // The second writer has pictures of another size.
        write(&channel, SIZES[0], &values[..12], false);
        write(&channel, SIZES[1], &values[12..], true);
        recording.wait_ok();
        let probe = run(Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-show_entries",
                "stream=codec_name,width,height,codec_type",
            ])
            .args(["-of", "csv=p=0"])
            .arg(&file));
        assert_eq!(probe.trim(), format!("{codec},video,64,48"), "{name}");
        let found = brightnesses(&file);
        assert_eq!(found.len(), values.len(), "{name}: {found:?}");
        let is_right = |(found, value): (&u8, &u8)| found.abs_diff(*value) <= 2;
        assert!(found.iter().zip(&values).all(is_right), "{name}: {found:?}");
    }
}
