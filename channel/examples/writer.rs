// SPDX-License-Identifier: MIT OR Apache-2.0

//! A writer that publishes 30 frames a second, each filled with one shade of grey. Read the frames with
//! `examples/reader.rs`, or with `gst-launch-1.0 rsshmsrc channel=grey ! autovideosink`.

use std::{thread::sleep, time::Duration};

use rsshm_channel::{Caps, ChannelName, Error, FrameDescriptor, Writer, WriterOptions, monotonic_ns};

fn main() -> Result<(), Error> {
    let size = 640 * 360;
    let writer = Writer::open(ChannelName::new("grey")?, WriterOptions::default())?;
    writer.set_caps(Caps::fixed_size(
        "video/x-raw,format=GRAY8,width=640,height=360,framerate=30/1",
        size,
    ))?;
    for shade in (0..=255).cycle() {
        if let Some(mut slot) = writer.claim(size)? {
            slot.as_mut().fill(shade);
            writer.publish(&slot, FrameDescriptor::new(size as u64).with_pts(monotonic_ns()), &[])?;
        }
        writer.service()?;
        sleep(Duration::from_millis(33));
    }
    Ok(())
}
