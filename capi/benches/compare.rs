// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compares the C functions with the channel crate, which they call: what a frame in place costs a writer and a reader.
//! `make bench-capi` runs it.
//!
//! Both ways do the same work: claim a slot, publish it with the present time, take the frame, find its planes, and
//! release it. First a single thread does these steps, never waits, and draws nothing, so that nothing hides the cost of
//! the C functions. Then a program draws frames into the slots, and a reader in another thread, which sleeps until each
//! frame comes, looks at them. As in benches/, to draw and to look mean to touch a word of each page.
//!
//! The rounds of both ways take turns, and each ratio is that of two neighbouring rounds.
#![allow(missing_docs)]

use std::{
    ffi::{CString, c_char, c_int, c_void},
    hint::black_box,
    ptr, slice,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use rsshm_channel::{
    Caps, ChannelName, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, ServiceThread, Writer, WriterOptions,
    monotonic_ns, video::VideoInfo,
};

// The functions are exported by this crate.
use rsshm as _;

const CAPS: &str = "video/x-raw,format=NV12,width=1920,height=1080,framerate=60/1";
const FRAME_SIZE: usize = 1920 * 1080 * 3 / 2;
const PAGE_SIZE: usize = 4096;
const STEPS_OF_ROUND: u32 = 2000;
const FRAMES_OF_ROUND: u32 = 200;
const FRAME_INTERVAL: Duration = Duration::from_millis(1);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_ROUNDS: usize = 51;
const WARM_UP_ROUNDS: usize = 2;

/// Memory for any structure of rsshm.h.
#[repr(C, align(8))]
struct Structure([u8; 232]);

impl Structure {
    fn new(size: u32) -> Self {
        let mut structure = Self([0; 232]);
        structure.0[..4].copy_from_slice(&size.to_ne_bytes());
        structure
    }

    /// The field of 64 bits at this offset.
    fn word(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[offset..offset + 8]);
        u64::from_ne_bytes(bytes)
    }
}

// The sizes of the structures in C.
const WRITER_OPTIONS_SIZE: u32 = 32;
const SLOT_INFO_SIZE: u32 = 120;
const FRAME_INFO_SIZE: u32 = 232;

/// `RSSHM_LOSSLESS` in the flags of a writer, which do not lose frames even on a busy machine.
const LOSSLESS: u8 = 1;

unsafe extern "C" {
    fn rsshm_writer_open(name: *const c_char, options: *const Structure, writer: *mut *mut c_void) -> c_int;
    fn rsshm_writer_caps(writer: *mut c_void, caps: *const c_char, frame_size: usize) -> c_int;
    fn rsshm_writer_claim(writer: *mut c_void, size: usize, slot: *mut *mut c_void, info: *mut Structure) -> c_int;
    fn rsshm_slot_publish(slot: *mut c_void, info: *const c_void) -> c_int;
    fn rsshm_writer_close(writer: *mut c_void) -> c_int;
    fn rsshm_reader_open(name: *const c_char, options: *const c_void, reader: *mut *mut c_void) -> c_int;
    fn rsshm_reader_next(reader: *mut c_void, timeout_ns: i64, frame: *mut *mut c_void) -> c_int;
    fn rsshm_reader_close(reader: *mut c_void) -> c_int;
    fn rsshm_frame_get(frame: *mut c_void, info: *mut Structure) -> c_int;
    fn rsshm_frame_release(frame: *mut c_void) -> c_int;
}

/// Writes frames.
trait Write: Send {
    /// Publishes a frame, which `draw` draws.
    fn write(&mut self, draw: fn(&mut [u8]));
}

/// Reads frames.
trait Read: Send {
    /// Waits for the next frame, calls `look`, and releases the frame. Returns the pts, and when `look` was called.
    fn read(&mut self, look: fn(&[u8])) -> [u64; 2];
}

/// Draws nothing.
fn skip_drawing(_: &mut [u8]) {}

/// Looks at nothing.
fn skip_looking(_: &[u8]) {}

fn draw(frame: &mut [u8]) {
    for page in frame.chunks_mut(PAGE_SIZE) {
        page[0] = page[0].wrapping_add(1);
    }
}

fn look(frame: &[u8]) {
    let sum: u64 = frame.chunks(PAGE_SIZE).map(|page| u64::from(page[0])).sum();
    black_box(sum);
}

/// A writer and a reader of one channel.
type Way = (Box<dyn Write>, Box<dyn Read>);

struct RustWriter(
    Arc<Writer>,
    #[expect(dead_code, reason = "it runs until it is dropped")] ServiceThread,
);

struct RustReader {
    reader: Reader,
    info: VideoInfo,
    copy: Vec<u8>,
}

fn rust(name: &str) -> Way {
    let name = ChannelName::new(name).unwrap();
    let writer = Arc::new(Writer::open(name.clone(), WriterOptions::default().lossless(true)).unwrap());
    let service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(250), |_, _| {});
    writer.set_caps(Caps::fixed_size(CAPS, FRAME_SIZE)).unwrap();
    let reader = RustReader {
        reader: Reader::new(name, ReaderOptions::default()),
        info: VideoInfo::from_caps(CAPS).unwrap(),
        copy: Vec::new(),
    };
    (Box::new(RustWriter(writer, service.unwrap())), Box::new(reader))
}

impl Write for RustWriter {
    fn write(&mut self, draw: fn(&mut [u8])) {
        let mut slot = self.0.claim(FRAME_SIZE).unwrap().unwrap();
        draw(slot.as_mut());
        let descriptor = FrameDescriptor::new(FRAME_SIZE as u64).with_pts(monotonic_ns());
        self.0.publish(&slot, descriptor, &[]).unwrap();
    }
}

impl Read for RustReader {
    fn read(&mut self, look: fn(&[u8])) -> [u64; 2] {
        let limits = ReadLimits::default();
        let next = self.reader.next(&mut self.copy, limits, Some(READ_TIMEOUT)).unwrap();
        let Next::Frame(frame) = next else {
            panic!("no frame");
        };
        black_box(self.info.layout_of(&frame.descriptor).unwrap());
        let taken = monotonic_ns();
        look(frame.bytes(&self.copy));
        [frame.descriptor.pts, taken]
    }
}

/// The handle of a writer.
struct CWriter(*mut c_void);

/// The handle of a reader.
struct CReader(*mut c_void);

// SAFETY: handles may be used from any thread.
unsafe impl Send for CWriter {}
// SAFETY: as above.
unsafe impl Send for CReader {}

fn c(name: &str) -> Way {
    let (name, caps) = (CString::new(name).unwrap(), CString::new(CAPS).unwrap());
    let (mut writer, mut reader) = (ptr::null_mut(), ptr::null_mut());
    let mut options = Structure::new(WRITER_OPTIONS_SIZE);
    options.0[4] = LOSSLESS;
    // SAFETY: the pointers are NULL, or those of texts, variables and structures.
    unsafe {
        assert_eq!(rsshm_writer_open(name.as_ptr(), &options, &mut writer), 0);
        assert_eq!(rsshm_writer_caps(writer, caps.as_ptr(), 0), 0);
        assert_eq!(rsshm_reader_open(name.as_ptr(), ptr::null(), &mut reader), 0);
    }
    (Box::new(CWriter(writer)), Box::new(CReader(reader)))
}

impl Write for CWriter {
    fn write(&mut self, draw: fn(&mut [u8])) {
        let mut slot = ptr::null_mut();
        let mut info = Structure::new(SLOT_INFO_SIZE);
        // SAFETY: the pointers are NULL, or those of variables and structures.
        unsafe {
            assert_eq!(rsshm_writer_claim(self.0, 0, &mut slot, &mut info), 0);
            // SAFETY: the slot has this many bytes, and nobody else uses them.
            draw(slice::from_raw_parts_mut(info.word(8) as *mut u8, FRAME_SIZE));
            assert_eq!(rsshm_slot_publish(slot, ptr::null()), 0);
        }
    }
}

impl Read for CReader {
    fn read(&mut self, look: fn(&[u8])) -> [u64; 2] {
        let mut frame = ptr::null_mut();
        let mut info = Structure::new(FRAME_INFO_SIZE);
        // SAFETY: the pointers are those of variables and structures.
        unsafe {
            let timeout_ns = READ_TIMEOUT.as_nanos() as i64;
            assert_eq!(rsshm_reader_next(self.0, timeout_ns, &mut frame), 0);
            assert_eq!(rsshm_frame_get(frame, &mut info), 0);
            let taken = monotonic_ns();
            // SAFETY: the frame has this many bytes.
            look(slice::from_raw_parts(info.word(64) as *const u8, FRAME_SIZE));
            assert_eq!(rsshm_frame_release(frame), 0);
            [info.word(24), taken]
        }
    }
}

impl Drop for CWriter {
    fn drop(&mut self) {
        // SAFETY: the function takes any handle.
        unsafe { rsshm_writer_close(self.0) };
    }
}

impl Drop for CReader {
    fn drop(&mut self) {
        // SAFETY: the function takes any handle.
        unsafe { rsshm_reader_close(self.0) };
    }
}

/// What one frame takes in a round, in nanoseconds.
type Times = [f64; 2];

/// The time of a write and of a read, one after the other in one thread.
fn steps((writer, reader): &mut Way) -> Times {
    let mut times = [Duration::ZERO; 2];
    for _ in 0..STEPS_OF_ROUND {
        let begin = Instant::now();
        writer.write(skip_drawing);
        let written = Instant::now();
        reader.read(skip_looking);
        times[0] += written - begin;
        times[1] += written.elapsed();
    }
    times.map(|time| time.as_nanos() as f64 / f64::from(STEPS_OF_ROUND))
}

/// The time from a publish until a reader in another thread has the frame, and the processor time of both threads.
fn hand_off((writer, reader): &mut Way) -> Times {
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let begin = processor_ns();
            let mut latencies: Vec<u64> = (0..FRAMES_OF_ROUND)
                .map(|_| {
                    let [pts, taken] = reader.read(look);
                    taken - pts
                })
                .collect();
            latencies.sort_unstable();
            (latencies[latencies.len() / 2], processor_ns() - begin)
        });
        let begin = processor_ns();
        for _ in 0..FRAMES_OF_ROUND {
            thread::sleep(FRAME_INTERVAL);
            writer.write(draw);
        }
        let writer_ns = processor_ns() - begin;
        let (latency, reader_ns) = reading.join().unwrap();
        [
            latency as f64,
            (writer_ns + reader_ns) as f64 / f64::from(FRAMES_OF_ROUND),
        ]
    })
}

/// The processor time of this thread.
fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(time).as_nanos() as u64
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures both ways in turns, and prints the medians and the median ratio of each time.
fn compare(names: [&str; 2], rounds: usize, ways: &mut [Way; 2], measure: fn(&mut Way) -> Times) {
    let results: Vec<[Times; 2]> = (0..rounds + WARM_UP_ROUNDS)
        .map(|index| {
            let mut times = [[0.0; 2]; 2];
            // The ways take turns in being first.
            for way in [index % 2, (index + 1) % 2] {
                times[way] = measure(&mut ways[way]);
            }
            times
        })
        .skip(WARM_UP_ROUNDS)
        .collect();
    for (index, name) in names.iter().enumerate() {
        let rust = median(results.iter().map(|[rust, _]| rust[index]));
        let c = median(results.iter().map(|[_, c]| c[index]));
        let ratio = median(results.iter().map(|[rust, c]| c[index] / rust[index]));
        println!("{name}: Rust {rust:.0} ns, C {c:.0} ns, ratio {ratio:.2}");
    }
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let rounds: usize = rounds.unwrap_or(DEFAULT_ROUNDS);
    let name = |way: &str| format!("rsshm-bench-{way}-{}", std::process::id());
    let mut ways = [rust(&name("rust")), c(&name("c"))];
    compare(["write: steps alone", "read: steps alone"], rounds, &mut ways, steps);
    compare(
        [
            "from the publish to a waiting reader",
            "processor time of writer and reader",
        ],
        rounds,
        &mut ways,
        hand_off,
    );
}
