//! A plain peer for tests of other programs, and for trying things out.
//!
//! ```text
//! peer write NAME CAPS [lossless] [variable] [planes=OFFSET:STRIDE,...]   frames from stdin, each behind its size (u32)
//! peer read NAME [observe]                                                frames to stdout, likewise, until the end
//! peer flood NAME SIZE SECONDS                  frames of equal bytes as fast as can be, drawn in place
//! peer check NAME SECONDS                       says how many of those it got, and how many were torn
//! ```

use std::{
    error::Error,
    io::{Read, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, ChannelName, FrameData, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions,
    monotonic_ns,
};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", name, caps, ref options @ ..] => write(name, caps, options),
        ["read", name, ref options @ ..] => read(name, options.contains(&"observe")),
        ["flood", name, size, seconds] => flood(name, size.parse()?, seconds.parse()?),
        ["check", name, seconds] => check(name, seconds.parse()?),
        _ => Err("see the head of channel/examples/peer.rs".into()),
    }
}

/// Runs `body` while another thread looks after the writer.
fn serviced(writer: &Writer, body: impl FnOnce() -> Outcome) -> Outcome {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                writer.wait_for_service(Duration::from_millis(250));
                if let Err(error) = writer.service() {
                    eprintln!("{error}");
                }
            }
        });
        let outcome = body();
        stop.store(true, Ordering::Relaxed);
        writer.stop_service();
        outcome
    })
}

fn write(name: &str, caps: &str, options: &[&str]) -> Outcome {
    let lossless = options.contains(&"lossless");
    let writer = Writer::open(
        ChannelName::new(name)?,
        WriterOptions {
            lossless,
            ..WriterOptions::default()
        },
    )?;
    let mut shape = FrameDescriptor::default();
    let planes = options.iter().find_map(|option| option.strip_prefix("planes="));
    for (plane, place) in planes.into_iter().flat_map(|planes| planes.split(',')).enumerate() {
        let (offset, stride) = place.split_once(':').ok_or("OFFSET:STRIDE")?;
        *shape.plane_offset.get_mut(plane).ok_or("too many planes")? = offset.parse()?;
        shape.plane_stride[plane] = stride.parse()?;
        shape.planes += 1;
    }
    serviced(&writer, || {
        let mut input = std::io::stdin().lock();
        let mut first = true;
        while let Some(frame) = read_frame(&mut input)? {
            if std::mem::take(&mut first) {
                writer.set_caps(if options.contains(&"variable") {
                    Caps::variable_size(caps)
                } else {
                    Caps::fixed_size(caps, frame.len())
                });
                if lossless {
                    writer.wait_for_reader(frame.len(), || true)?;
                }
            }
            let Some(mut slot) = writer.claim(frame.len())? else {
                continue;
            };
            slot.as_mut().copy_from_slice(&frame);
            let mut descriptor = shape;
            descriptor.pts = monotonic_ns();
            descriptor.size = frame.len() as u64;
            writer.publish(&slot, descriptor, &[])?;
        }
        writer.end_of_stream();
        Ok(())
    })
}

fn read_frame(input: &mut impl Read) -> Result<Option<Vec<u8>>, std::io::Error> {
    let mut size = [0; 4];
    match input.read_exact(&mut size) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut frame = vec![0; u32::from_ne_bytes(size) as usize];
    input.read_exact(&mut frame)?;
    Ok(Some(frame))
}

fn read(name: &str, read_only: bool) -> Outcome {
    let mut reader = Reader::new(ChannelName::new(name)?, ReaderOptions { read_only });
    let mut output = std::io::stdout().lock();
    let mut copy = Vec::new();
    loop {
        match reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_secs(20)))? {
            Next::Frame(frame) => {
                let bytes = match &frame.data {
                    FrameData::InPlace(pinned) => pinned.as_ref(),
                    FrameData::Copied => &copy,
                };
                output.write_all(&(bytes.len() as u32).to_ne_bytes())?;
                output.write_all(bytes)?;
                output.flush()?;
            }
            Next::EndOfStream => return Ok(()),
            Next::TimedOut => return Err("no frame for 20 s".into()),
            _ => {}
        }
    }
}

fn flood(name: &str, size: usize, seconds: f64) -> Outcome {
    let writer = Writer::open(ChannelName::new(name)?, WriterOptions::default())?;
    let caps = format!("video/x-raw,format=GRAY8,width={size},height=1,framerate=0/1");
    writer.set_caps(Caps::fixed_size(caps, size));
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut count = 0_u64;
    serviced(&writer, || {
        while Instant::now() < until {
            let Some(mut slot) = writer.claim(size)? else {
                continue;
            };
            count += 1;
            slot.as_mut().fill(count as u8);
            let descriptor = FrameDescriptor {
                pts: monotonic_ns(),
                size: size as u64,
                ..FrameDescriptor::default()
            };
            writer.publish(&slot, descriptor, &[])?;
        }
        writer.end_of_stream();
        Ok(())
    })?;
    println!("published={count}");
    Ok(())
}

fn check(name: &str, seconds: f64) -> Outcome {
    let mut reader = Reader::new(ChannelName::new(name)?, ReaderOptions::default());
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut received, mut torn) = (0_u64, 0_u64);
    let mut copy = Vec::new();
    while Instant::now() < until {
        match reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(100)))? {
            Next::Frame(frame) => {
                let bytes = match &frame.data {
                    FrameData::InPlace(pinned) => pinned.as_ref(),
                    FrameData::Copied => &copy,
                };
                received += 1;
                // Twice: what is pinned does not change either.
                let whole = |value: u8| bytes == vec![value; bytes.len()];
                let value = bytes.first().copied().unwrap_or_default();
                torn += u64::from(!(whole(value) && whole(value)));
            }
            Next::EndOfStream => break,
            _ => {}
        }
    }
    println!("received={received} torn={torn}");
    Ok(())
}
