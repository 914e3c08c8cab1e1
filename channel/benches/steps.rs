// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measures single steps of the protocol in one process, where no reader sleeps while the writer publishes. `make
//! bench-channel` runs it.
//!
//! The benchmark of whole programs (benches/) also measures what it costs to wake readers, and how readers affect each
//! other's processor caches.
#![allow(missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use divan::Bencher;
use rsshm_channel::{
    Caps, ChannelName, FrameData, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, ServiceThread, Writer,
    WriterOptions,
};

/// The size of a 1080p frame in NV12, in bytes. The benchmark draws nothing into the frames.
const FRAME_SIZE: usize = 1920 * 1080 * 3 / 2;
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const SERVICE_INTERVAL: Duration = Duration::from_millis(250);
/// How many frames the benchmark publishes first. After them, the writer has committed the slots that it needs.
const WARM_UP_PUBLISHES: u32 = 256;

fn main() {
    divan::main();
}

/// A channel with a writer, its service, and readers that are attached and idle.
struct Channel {
    name: ChannelName,
    readers: Vec<Reader>,
    writer: Arc<Writer>,
    _service: ServiceThread,
}

impl Channel {
    fn new(readers: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: the count only makes each channel's name unique.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = ChannelName::new(format!("rsshm-bench-{}-{count}", std::process::id())).unwrap();
        let writer = Arc::new(Writer::open(name.clone(), WriterOptions::default()).unwrap());
        writer
            .set_caps(Caps::fixed_size(
                "video/x-raw,format=NV12,width=1920,height=1080,framerate=60/1",
                FRAME_SIZE,
            ))
            .unwrap();
        let service = ServiceThread::spawn(Arc::clone(&writer), SERVICE_INTERVAL, |_, report| {
            report.unwrap();
        });
        let mut channel = Self {
            name,
            readers: Vec::new(),
            writer,
            _service: service.unwrap(),
        };
        channel.publish();
        channel.readers = (0..readers).map(|_| channel.attach()).collect();
        for _ in 0..WARM_UP_PUBLISHES {
            channel.publish();
        }
        channel
    }

    fn publish(&self) {
        let slot = self.writer.claim(FRAME_SIZE).unwrap().unwrap();
        let descriptor = FrameDescriptor::new(FRAME_SIZE as u64);
        self.writer.publish(&slot, descriptor, &[]).unwrap();
    }

    /// A reader that has taken the newest frame.
    fn attach(&self) -> Reader {
        let mut reader = Reader::new(self.name.clone(), ReaderOptions::default());
        take(&mut reader);
        reader
    }
}

/// Takes the next frame and releases it. Returns whether the frame was delivered in place.
fn take(reader: &mut Reader) -> bool {
    match reader.next(&mut Vec::new(), ReadLimits::default(), Some(READ_TIMEOUT)) {
        Ok(Next::Frame(frame)) => matches!(frame.data, FrameData::InPlace(_)),
        other => panic!("no frame: {other:?}"),
    }
}

#[divan::bench(args = [0, 1, 8, 64])]
fn claim_and_publish(bencher: Bencher, readers: usize) {
    let channel = Channel::new(readers);
    bencher.bench_local(|| channel.publish());
}

// Each sample publishes and takes only one frame: a larger sample would publish all its frames first, and only the
// newest would still be available.
#[divan::bench(args = [1, 8, 64], sample_size = 1, sample_count = 1000)]
fn take_and_release(bencher: Bencher, readers: usize) {
    let mut channel = Channel::new(readers);
    let mut reader = channel.readers.remove(0);
    // While the service commits a slot, frames are copied.
    while !take(&mut reader) {
        std::thread::sleep(Duration::from_millis(1));
        channel.publish();
    }
    bencher
        .with_inputs(|| channel.publish())
        .bench_local_values(|()| take(&mut reader));
}

#[divan::bench(args = [0, 7, 63], sample_size = 1)]
fn attach_take_and_detach(bencher: Bencher, others: usize) {
    let channel = Channel::new(others);
    // The pause keeps the wakes of the service below its rate limit, so that the service answers the next reader at
    // once.
    let wait = || std::thread::sleep(Duration::from_millis(20));
    bencher
        .with_inputs(wait)
        .bench_local_values(|()| drop(channel.attach()));
}
