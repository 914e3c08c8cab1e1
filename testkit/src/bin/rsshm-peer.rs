// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer without GStreamer, for tests of other programs and for experiments.

use std::{
    collections::VecDeque,
    error::Error,
    io::{Read, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, ChannelName, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, ServiceThread, Writer, WriterOptions,
    layout::DELTA_UNIT, monotonic_ns,
};

const USAGE: &str = "\
rsshm-peer write NAME CAPS [lossless] [variable] [burst] [keyframes=N] [metadata] [planes=OFFSET:STRIDE,...]
                                               frames from stdin, each after its size; after the first one, `burst`
                                               reads all frames before it publishes them; only every Nth is a keyframe;
                                               frame N has N % 23 bytes of `metadata`
rsshm-peer read NAME [observe] [caps]          frames to stdout, in the same form, until the end of the stream; with
                                               `caps`, a size with bit 31 set announces the caps of the next frames
rsshm-peer flood NAME SIZE SECONDS             frames of equal bytes, drawn in place, as fast as possible
rsshm-peer check NAME SECONDS                  prints how many of those frames it received, and how many were torn";

/// The interval of a writer's service.
const SERVICE_INTERVAL: Duration = Duration::from_millis(250);

/// The bit of a size that announces caps.
const CAPS_RECORD: u32 = 1 << 31;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Outcome {
    match arguments[..] {
        ["write", name, caps, ref options @ ..] => write(name, caps, options),
        ["read", name, ref options @ ..] => read(name, options.contains(&"observe"), options.contains(&"caps")),
        ["flood", name, size, seconds] => flood(name, size.parse()?, seconds.parse()?),
        ["check", name, seconds] => check(name, seconds.parse()?),
        _ => Err(USAGE.into()),
    }
}

/// Opens a channel and runs its service.
fn open(name: &str, options: WriterOptions) -> Result<(Arc<Writer>, ServiceThread), Box<dyn Error>> {
    let writer = Arc::new(Writer::open(ChannelName::new(name)?, options)?);
    let service = ServiceThread::spawn(Arc::clone(&writer), SERVICE_INTERVAL, |_, report| {
        if let Err(error) = report {
            eprintln!("{error}");
        }
    })?;
    Ok((writer, service))
}

/// Parses planes in the form `OFFSET:STRIDE,...`.
fn parse_planes(text: &str) -> Result<Vec<(u64, i32)>, Box<dyn Error>> {
    let planes = text.split(',').map(|plane| {
        let (offset, stride) = plane.split_once(':').ok_or("OFFSET:STRIDE")?;
        Ok((offset.parse()?, stride.parse()?))
    });
    planes.collect()
}

fn write(name: &str, caps: &str, options: &[&str]) -> Outcome {
    let lossless = options.contains(&"lossless");
    let planes = options.iter().find_map(|option| option.strip_prefix("planes="));
    let planes = planes.map(parse_planes).transpose()?.unwrap_or_default();
    let keyframe_interval = options.iter().find_map(|option| option.strip_prefix("keyframes="));
    let keyframe_interval = keyframe_interval
        .map(str::parse::<usize>)
        .transpose()?
        .unwrap_or(1)
        .max(1);
    let has_metadata = options.contains(&"metadata");
    let (writer, _service) = open(name, WriterOptions::default().lossless(lossless))?;
    let mut input = std::io::stdin().lock();
    let mut burst = VecDeque::new();
    for count in 0_usize.. {
        if count == 1 && options.contains(&"burst") {
            while let Some(frame) = read_frame(&mut input)? {
                burst.push_back(frame);
            }
        }
        let next = burst.pop_front();
        let Some(frame) = next.map_or_else(|| read_frame(&mut input), |frame| Ok(Some(frame)))? else {
            break;
        };
        if count == 0 {
            writer.set_caps(if options.contains(&"variable") {
                Caps::variable_size(caps)
            } else {
                Caps::fixed_size(caps, frame.len())
            })?;
            if lossless {
                writer.wait_for_reader(frame.len(), || true)?;
            }
        }
        let Some(mut slot) = writer.claim(frame.len())? else {
            continue;
        };
        slot.as_mut().copy_from_slice(&frame);
        let flags = if count % keyframe_interval == 0 { 0 } else { DELTA_UNIT };
        let descriptor = FrameDescriptor::new(frame.len() as u64)
            .with_pts(monotonic_ns())
            .with_flags(flags)
            .with_planes(&planes);
        let metadata_size = if has_metadata { count % 23 } else { 0 };
        writer.publish(&slot, descriptor, &vec![0xab; metadata_size])?;
    }
    writer.end_of_stream();
    Ok(())
}

/// Reads the size of a frame, and then the frame. `None` at the end of the input.
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

fn read(name: &str, read_only: bool, with_caps: bool) -> Outcome {
    let mut reader = Reader::new(ChannelName::new(name)?, ReaderOptions::default().read_only(read_only));
    let mut output = std::io::stdout().lock();
    let mut copy = Vec::new();
    let mut caps = String::new();
    loop {
        match reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_secs(20)))? {
            Next::Frame(frame) => {
                if with_caps && caps != reader.caps() {
                    reader.caps().clone_into(&mut caps);
                    output.write_all(&(CAPS_RECORD | caps.len() as u32).to_ne_bytes())?;
                    output.write_all(caps.as_bytes())?;
                }
                let bytes = frame.bytes(&copy);
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
    let (writer, service) = open(name, WriterOptions::default())?;
    let caps = format!("video/x-raw,format=GRAY8,width={size},height=1,framerate=0/1");
    writer.set_caps(Caps::fixed_size(caps, size))?;
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut count = 0_u64;
    while Instant::now() < until {
        let Some(mut slot) = writer.claim(size)? else {
            continue;
        };
        count += 1;
        slot.as_mut().fill(count as u8);
        let descriptor = FrameDescriptor::new(size as u64).with_pts(monotonic_ns());
        writer.publish(&slot, descriptor, &[])?;
    }
    writer.end_of_stream();
    drop(service);
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
                received += 1;
                let bytes = frame.bytes(&copy);
                let value = bytes.first().copied().unwrap_or_default();
                let is_whole = || rsshm_testkit::frames::is_filled(bytes, value);
                // The frame is checked twice, because a pinned frame must not change while the reader holds it.
                torn += u64::from(!(is_whole() && is_whole()));
            }
            Next::EndOfStream => break,
            _ => {}
        }
    }
    println!("received={received} torn={torn}");
    Ok(())
}
