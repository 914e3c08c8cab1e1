// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pipelines that write to a channel or read from it.

use std::{
    collections::VecDeque,
    os::fd::IntoRawFd,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Instant,
};

use gst::prelude::*;
use gst_allocators::{FdAllocator, FdMemoryFlags, prelude::*};
use rsshm_channel::{ObjectFault, monotonic_ns};

use super::{
    assignment::{Assignment, Kind, ProcessContext},
    board::{request, writer_request},
    camera,
    check::{FrameChecker, ReceivedFrame},
    content::{FRAME, Tag, caps_id_in},
    writer::{RandomOptions, random_size},
};
use crate::{Random, gst::Pipeline};

/// Plays a writing pipeline until the run asks it to close. The pipeline's caps change from time to time.
pub fn write(assignment: Assignment) {
    let mut random = Random::new(assignment.seed ^ 3);
    let context = Arc::new(ProcessContext::new(assignment));
    let mut caps = CapsSequence::new(&context);
    let first_caps = caps.next(&mut random);
    let pipeline = new_writer(&context, &mut random, &first_caps);
    let filter = pipeline.element("filter");
    let stamper = Mutex::new(Stamper {
        context: Arc::clone(&context),
        random: Random::new(random.number()),
        tag: caps.tag,
        pool: MemoryPool::default(),
    });
    let pad = filter.static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let caps = pad.current_caps().unwrap();
        stamper.lock().unwrap().stamp(info.buffer_mut().unwrap(), &caps);
        gst::PadProbeReturn::Ok
    });
    pipeline.play();
    let mut next_change = Instant::now() + random.millis(300..3000);
    while context.board.writer_request.load(Relaxed) == writer_request::CONTINUE {
        if !check_messages(&context, &pipeline) {
            return;
        }
        if Instant::now() > next_change {
            next_change = Instant::now() + random.millis(300..3000);
            filter.set_property_from_str("caps", &caps.next(&mut random));
        }
    }
}

fn new_writer(context: &ProcessContext, random: &mut Random, caps: &str) -> Pipeline {
    let options = RandomOptions::new(random);
    Pipeline::new(&format!(
        "videotestsrc is-live=true pattern=black ! capsfilter name=filter caps={} ! rsshmsink name={} perms={} \
         max-slots={} lossless={}",
        caps.replace('(', "\\(").replace(')', "\\)"),
        context.assignment.channel,
        options.perms,
        options.max_slots,
        context.assignment.lossless
    ))
}

/// The sequence of the caps of a writing pipeline.
struct CapsSequence {
    tag: Tag,
    count: u32,
}

impl CapsSequence {
    fn new(context: &ProcessContext) -> Self {
        let tag = Tag {
            incarnation: context.assignment.incarnation,
            epoch: context.assignment.epoch,
            kind: FRAME,
            ..Tag::default()
        };
        Self { tag, count: 0 }
    }

    fn next(&mut self, random: &mut Random) -> String {
        self.count += 1;
        let tag = Tag {
            caps: self.count,
            ..self.tag
        };
        tag.caps_string(random_size(random), 0)
    }
}

/// Gives the frames of a writing pipeline their content.
struct Stamper {
    context: Arc<ProcessContext>,
    random: Random,
    /// The tag of the last frame.
    tag: Tag,
    pool: MemoryPool,
}

/// Memory in memfds, which upstream uses again when no buffer has it.
#[derive(Default)]
struct MemoryPool(Vec<gst::Memory>);

impl MemoryPool {
    fn memory(&mut self, size: usize) -> gst::Memory {
        // SAFETY: the memory is alive. The count is read without a lock, so it may be one of a moment ago. If it is 1,
        // only the pool has the memory, so nobody else can get it before it is used again.
        let is_unused = |memory: &&gst::Memory| unsafe { (*memory.as_ptr()).mini_object.refcount == 1 };
        if let Some(memory) = self.0.iter().find(is_unused) {
            return memory.share(0..size);
        }
        let file = camera::memory(camera::BUFFER_SIZE).into_raw_fd();
        // SAFETY: the allocator owns the descriptor, which has this size.
        let memory = unsafe { FdAllocator::new().alloc_fd(file, camera::BUFFER_SIZE, FdMemoryFlags::KEEP_MAPPED) };
        let memory = memory.unwrap();
        let part = memory.share(0..size);
        self.0.push(memory);
        part
    }
}

impl Stamper {
    /// Fills a frame. One frame in ten gets memory that is not a slot, so that the sink has to copy the frame. In a run
    /// with objects, most frames get memory in memfds.
    fn stamp(&mut self, buffer: &mut gst::Buffer, caps: &gst::CapsRef) {
        let caps = caps.to_string();
        let number = caps_id_in(&caps).and_then(|id| id.split_once('g')?.1.parse().ok());
        self.tag.caps = number.unwrap();
        self.tag.serial += 1;
        let is_object = self.context.assignment.objects && self.random.permille(900);
        if is_object || self.random.permille(100) {
            let mut foreign = if is_object {
                let mut buffer_with_memory = gst::Buffer::new();
                let memory = self.pool.memory(buffer.size());
                buffer_with_memory.get_mut().unwrap().append_memory(memory);
                buffer_with_memory
            } else {
                gst::Buffer::with_size(buffer.size()).unwrap()
            };
            let target = foreign.get_mut().unwrap();
            target.set_pts(buffer.pts());
            target.set_duration(buffer.duration());
            *buffer = foreign;
        }
        let target = buffer.make_mut();
        target.set_offset(self.tag.serial);
        self.tag.fill(&mut target.map_writable().unwrap());
        let counters = self.context.counters;
        counters.published.fetch_add(1, Relaxed);
        counters.last_at.store(monotonic_ns(), Relaxed);
    }
}

/// Waits up to 20 ms for an error or a warning of the pipeline. Returns `false` if the pipeline has failed.
fn check_messages(context: &ProcessContext, pipeline: &Pipeline) -> bool {
    let types = [gst::MessageType::Error, gst::MessageType::Warning];
    let bus = pipeline.bus().unwrap();
    let message = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(20), &types);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => {
            context.found_other(&format!("{} ({:?})", error.error(), error.debug()));
            false
        }
        // A reader that needs the memory of a frame while the writer is dead or stopped misses the frame.
        Some(gst::MessageView::Warning(warning))
            if context.assignment.objects && is_permitted_fault(warning.error().message()) =>
        {
            context.counters.faults.fetch_add(1, Relaxed);
            true
        }
        // The sink warns if a process is stopped while it holds the semaphore. Such stops happen in every run.
        Some(gst::MessageView::Warning(warning)) if warning.error().message().contains("held its semaphore") => true,
        Some(gst::MessageView::Warning(warning)) => {
            context.found_other(&format!("{} ({:?})", warning.error(), warning.debug()));
            true
        }
        _ => true,
    }
}

/// Whether a warning says that a frame was missed because of a dead or stopped writer.
fn is_permitted_fault(message: &str) -> bool {
    let permitted = [ObjectFault::NoAnswer, ObjectFault::NoSocket, ObjectFault::Gone];
    permitted.iter().any(|fault| message.contains(&fault.to_string()))
}

/// The state of the probe of a reading pipeline.
struct ReadingProbe {
    context: Arc<ProcessContext>,
    checker: FrameChecker,
    random: Random,
    held: VecDeque<(Tag, gst::Buffer)>,
    missed: u64,
    skipped: u64,
    source: gst::glib::WeakRef<gst::Element>,
}

impl ReadingProbe {
    fn receive(&mut self, buffer: &gst::Buffer, caps: &gst::Caps) {
        let (missed, skipped) = self.source.upgrade().map_or((0, 0), |source| {
            let stats = source.property::<gst::Structure>("channel-stats");
            let count = |field| stats.get::<u64>(field).unwrap();
            (count("frames-missed"), count("frames-skipped"))
        });
        let map = buffer.map_readable().unwrap();
        let arrived = ReceivedFrame {
            bytes: &map,
            caps: &caps.to_string(),
            seq: None,
            offset: buffer.offset(),
            missed: missed.saturating_sub(self.missed),
            skipped: skipped.saturating_sub(self.skipped),
        };
        (self.missed, self.skipped) = (missed, skipped);
        let tag = self.checker.frame(&self.context, &arrived);
        drop(map);
        if let Some(tag) = tag {
            self.held.push_back((tag, buffer.clone()));
        }
        let most = self.random.within(0..6) as usize;
        while self.held.len() > most {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some((tag, buffer)) = self.held.pop_front() {
            FrameChecker::again(&self.context, tag, &buffer.map_readable().unwrap());
        }
    }
}

/// Plays a reading pipeline until the run asks it to end.
pub fn read(assignment: Assignment) {
    let random = Random::new(assignment.seed ^ 4);
    let context = Arc::new(ProcessContext::new(assignment));
    let (options, downstream) = match context.assignment.kind {
        Kind::SourceNewest => ("max-buffers=1", "appsink max-buffers=3 drop=true sync=false"),
        _ => ("", "queue max-size-buffers=4 ! fakesink sync=false"),
    };
    let pipeline = Pipeline::new(&format!(
        "rsshmsrc name={} {options} forward-eos=false ! {downstream}",
        context.assignment.channel
    ));
    let reading = Arc::new(Mutex::new(ReadingProbe {
        context: Arc::clone(&context),
        checker: FrameChecker::default(),
        random,
        held: VecDeque::new(),
        missed: 0,
        skipped: 0,
        source: pipeline.by_factory("rsshmsrc").downgrade(),
    }));
    let in_probe = Arc::clone(&reading);
    // The probe is at the source's pad. When a buffer passes the pad, the source's statistics include this buffer, but
    // no later buffer.
    pipeline
        .pad("rsshmsrc", "src")
        .add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let caps = pad.current_caps().unwrap();
            in_probe.lock().unwrap().receive(info.buffer().unwrap(), &caps);
            gst::PadProbeReturn::Ok
        });
    pipeline.play();
    while context.board.request.load(Relaxed) == request::CONTINUE && check_messages(&context, &pipeline) {}
    pipeline.set_state(gst::State::Null).unwrap();
    let mut reading = reading.lock().unwrap();
    while !reading.held.is_empty() {
        reading.release();
    }
    let counters = context.counters;
    counters
        .in_place
        .fetch_add(pipeline.stat("rsshmsrc", "frames-in-place"), Relaxed);
    counters
        .copied
        .fetch_add(pipeline.stat("rsshmsrc", "frames-copied"), Relaxed);
}
