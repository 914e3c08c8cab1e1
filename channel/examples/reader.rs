// SPDX-License-Identifier: MIT OR Apache-2.0

//! A reader that prints the seq, the size and the mean byte of each frame. The first argument names the channel; the
//! default is `grey`.

use rsshm_channel::{ChannelName, Error, Next, ReadLimits, Reader, ReaderOptions};

fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "grey".to_owned());
    let mut reader = Reader::new(ChannelName::new(name)?, ReaderOptions::default());
    let mut copy = Vec::new();
    loop {
        match reader.next(&mut copy, ReadLimits::default(), None)? {
            Next::Frame(frame) => {
                let bytes = frame.bytes(&copy);
                let mean = bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>() / bytes.len().max(1) as u64;
                println!(
                    "frame {}: {} bytes, mean {mean}, {} missed",
                    frame.seq,
                    bytes.len(),
                    frame.missed
                );
            }
            Next::EndOfStream => return Ok(()),
            _ => {} // an event, or the writer is gone; the next call waits for another
        }
    }
}
