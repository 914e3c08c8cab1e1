//! What the single steps of the protocol take, within one process and with nobody asleep: `make bench-channel`.
//!
//! What it takes to wake readers, and what they do to each other's caches, is in the benchmark of whole programs, benches/.
#![allow(missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use divan::Bencher;
use rsshm_channel::{
    Caps, ChannelName, FrameData, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions,
};

/// 1080p in NV12; nothing is drawn.
const SIZE: usize = 1920 * 1080 * 3 / 2;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    divan::main();
}

/// A writer that is looked after, and readers that are attached and do nothing.
struct Channel {
    name: ChannelName,
    writer: Arc<Writer>,
    readers: Vec<Reader>,
    stop: Arc<AtomicBool>,
    service_waiter: Option<JoinHandle<()>>,
}

impl Channel {
    fn new(readers: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = ChannelName::new(format!("rsshm-bench-{}-{count}", std::process::id())).unwrap();
        let writer = Arc::new(Writer::open(name.clone(), WriterOptions::default()).unwrap());
        writer.set_caps(Caps::fixed_size(
            "video/x-raw,format=NV12,width=1920,height=1080,framerate=60/1",
            SIZE,
        ));
        let stop = Arc::new(AtomicBool::new(false));
        let service_waiter = std::thread::spawn({
            let (writer, stop) = (Arc::clone(&writer), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    writer.wait_for_service(Duration::from_millis(250));
                    writer.service().unwrap();
                }
            }
        });
        let mut channel = Self {
            name,
            writer,
            readers: Vec::new(),
            stop,
            service_waiter: Some(service_waiter),
        };
        channel.publish();
        channel.readers = (0..readers).map(|_| channel.attach()).collect();
        // Until the slots are there that so many readers are granted.
        for _ in 0..256 {
            channel.publish();
        }
        channel
    }

    fn publish(&self) {
        let slot = self.writer.claim(SIZE).unwrap().unwrap();
        let descriptor = FrameDescriptor {
            size: SIZE as u64,
            ..FrameDescriptor::default()
        };
        self.writer.publish(&slot, descriptor, &[]).unwrap();
    }

    /// A reader that has had the newest frame.
    fn attach(&self) -> Reader {
        let mut reader = Reader::new(self.name.clone(), ReaderOptions::default());
        take(&mut reader);
        reader
    }
}

/// Takes the next frame and gives it back; yields whether it was in place.
fn take(reader: &mut Reader) -> bool {
    match reader.next(&mut Vec::new(), ReadLimits::default(), Some(PATIENCE)) {
        Ok(Next::Frame(frame)) => matches!(frame.data, FrameData::InPlace(_)),
        other => panic!("no frame: {other:?}"),
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.readers.clear();
        self.stop.store(true, Ordering::Relaxed);
        self.writer.stop_service();
        self.service_waiter.take().unwrap().join().unwrap();
    }
}

#[divan::bench(args = [0, 1, 8, 64])]
fn claim_and_publish(bencher: Bencher, readers: usize) {
    let channel = Channel::new(readers);
    bencher.bench_local(|| channel.publish());
}

// One frame a sample: of several that wait, only the newest can be had for long.
#[divan::bench(args = [1, 8, 64], sample_size = 1, sample_count = 1000)]
fn take_and_give_back(bencher: Bencher, readers: usize) {
    let mut channel = Channel::new(readers);
    let mut reader = channel.readers.remove(0);
    assert!(take(&mut reader), "it is in place");
    bencher
        .with_inputs(|| channel.publish())
        .bench_local_values(|()| take(&mut reader));
}

#[divan::bench(args = [0, 7, 63], sample_size = 1)]
fn attach_take_and_detach(bencher: Bencher, others: usize) {
    let channel = Channel::new(others);
    // Who looks after the writer does so at once, if it was not called too often just now.
    let wait = || std::thread::sleep(Duration::from_millis(20));
    bencher
        .with_inputs(wait)
        .bench_local_values(|()| drop(channel.attach()));
}
