// SPDX-License-Identifier: MIT OR Apache-2.0

//! A writer that uses the channel crate.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, ChannelName, Error, FrameDescriptor, MAX_EVENT_SIZE, MAX_METADATA_SIZE, NewEvent, ServiceReport,
    ServiceThread, Slot, Writer, WriterOptions, monotonic_ns,
};

use super::{
    assignment::{Assignment, ProcessContext, awake_between},
    board::writer_request,
    camera::{Camera, open_files_and_mappings},
    content::{COUNTED_FRAME, EVENT, HEAD, MESSAGE, OWN_EVENT, Tag},
};
use crate::{Random, on_this_machine};

/// The range of `n` for frame sizes from 2^n (see [`Random::size`]). The sizes are from 4 KiB to 1 MiB.
const SIZE_BITS: std::ops::Range<u64> = 12..20;
/// The same for frames of variable size. Most of these frames are small, so that many of them share a slot.
const SMALL_SIZE_BITS: std::ops::Range<u64> = 6..13;
const PAGE_SIZE: usize = 4096;
const SERVICE_INTERVAL: Duration = Duration::from_millis(250);
/// How long a lossless writer waits for a slot while the slots are counted.
const CLAIM_TIME: Duration = Duration::from_millis(100);
/// The longest time in which a writer counts its slots.
const COUNTING_TIME: Duration = Duration::from_secs(5);

/// Random values for the options of a writer.
pub struct RandomOptions {
    pub perms: u32,
    pub max_slots: u32,
    pub accept_messages: bool,
}

impl RandomOptions {
    pub fn new(random: &mut Random) -> Self {
        let perms = [0o600, 0o660, 0o666, 0o644, 0o640];
        Self {
            perms: perms[random.within(0..perms.len() as u64) as usize],
            max_slots: match random.within(0..10) {
                0 | 1 => 0,
                2 => random.within(3..14) as u32,
                3 | 4 => random.within(14..40) as u32,
                _ => random.within(40..65) as u32,
            },
            accept_messages: random.permille(700),
        }
    }
}

pub fn random_size(random: &mut Random) -> usize {
    random.size(SIZE_BITS).next_multiple_of(PAGE_SIZE)
}

/// The publishing thread of a writer's process.
struct WriterPlayer {
    context: Arc<ProcessContext>,
    random: Random,
    writer: Arc<Writer>,
    tag: Tag,
    /// The size of each frame; `None` if the sizes differ.
    size: Option<usize>,
    /// Published slots that the simulated upstream element still keeps.
    kept: VecDeque<Slot>,
    /// The camera whose buffers are published; `None` if the frames are in slots.
    camera: Option<Camera>,
    /// The cameras of former caps. Readers may hold their last frames.
    former_cameras: Vec<Camera>,
}

/// Plays a writer until the run asks it to close.
pub fn play(assignment: Assignment) {
    let mut random = Random::new(assignment.seed ^ 2);
    let context = Arc::new(ProcessContext::new(assignment));
    let before = open_files_and_mappings();
    let Some(writer) = open(&context, &mut random) else {
        return;
    };
    let service = ServiceThread::spawn(Arc::clone(&writer), SERVICE_INTERVAL, {
        let context = Arc::clone(&context);
        move |_, report| check_report(&context, report)
    });
    let service = service.unwrap();
    let assignment = &context.assignment;
    let tag = Tag {
        incarnation: assignment.incarnation,
        epoch: assignment.epoch,
        kind: COUNTED_FRAME,
        ..Tag::default()
    };
    let mut player = WriterPlayer {
        context: Arc::clone(&context),
        random,
        writer: Arc::clone(&writer),
        tag,
        size: None,
        kept: VecDeque::new(),
        camera: None,
        former_cameras: Vec::new(),
    };
    player.change_caps();
    loop {
        match context.board.writer_request.load(Relaxed) {
            writer_request::CONTINUE => player.step(),
            writer_request::COUNT_SLOTS => player.count_slots(),
            _ => break,
        }
    }
    let _ = service.stop();
    player.kept.clear();
    writer.close();
    drop((player, writer));
    context.check_open(before);
}

fn open(context: &ProcessContext, random: &mut Random) -> Option<Arc<Writer>> {
    let name = ChannelName::new(context.assignment.channel.clone()).unwrap();
    let values = RandomOptions::new(random);
    let options = WriterOptions::default()
        .perms(values.perms)
        .max_slots(values.max_slots)
        .lossless(context.assignment.lossless)
        .accept_messages(values.accept_messages);
    let writer = match Writer::open(name, options) {
        Ok(writer) => Arc::new(writer),
        Err(error) => {
            context.found_other(&format!("cannot start: {error}"));
            return None;
        }
    };
    if let Some(damaged) = writer.replaced_damaged() {
        context.found_other(&format!("has replaced a damaged segment: {damaged}"));
    }
    Some(writer)
}

/// Checks the report that the service makes on each pass.
fn check_report(context: &ProcessContext, report: Result<ServiceReport, Error>) {
    let report = match report {
        Ok(report) => report,
        Err(error) => return context.found_other(&format!("service: {error}")),
    };
    for entry in report.evicted {
        context.found_other(&format!("evicts the reader of entry {entry}"));
    }
    if report.names_restored {
        context.found_other("has lost its files");
    }
    for message in report.messages {
        context.counters.messages.fetch_add(1, Relaxed);
        let read = Tag::read(&message);
        if read.as_ref().map(|tag| tag.kind) != Ok(MESSAGE) {
            context.found(&context.counters.torn, &format!("a message is torn: {read:?}"));
        }
    }
}

impl WriterPlayer {
    fn change_caps(&mut self) {
        self.former_cameras.extend(self.camera.take());
        self.former_cameras.retain(|camera| camera.missing() > 0);
        if self.context.assignment.objects && self.random.permille(750) {
            self.set_objects();
        } else if self.random.permille(400) {
            self.tag.caps += 1;
            self.size = None;
            let caps = format!("application/x-chaos,chaos=(string){}", self.tag.caps_id());
            self.writer
                .set_caps(Caps::variable_size(caps))
                .expect("the caps are fixed");
        } else {
            self.set_fixed_size();
        }
    }

    /// Sets caps of frames that stay in the buffers of a new camera.
    fn set_objects(&mut self) {
        self.tag.caps += 1;
        self.size = None;
        let caps = format!("application/x-chaos,chaos=(string){}", self.tag.caps_id());
        self.writer.set_caps(Caps::objects(caps)).expect("the caps are fixed");
        let spare = self.random.within(2..9) as u32;
        match Camera::new(&self.writer, spare) {
            Ok(camera) => self.camera = Some(camera),
            Err(error) => self.context.found_other(&format!("camera: {error}")),
        }
    }

    /// Sets caps of frames that all have the same size. Returns this size.
    fn set_fixed_size(&mut self) -> usize {
        self.tag.caps += 1;
        let size = random_size(&mut self.random);
        self.size = Some(size);
        let filler = if self.random.permille(100) {
            self.random.within(0..3000)
        } else {
            0
        };
        let caps = self.tag.caps_string(size, filler as usize);
        self.writer
            .set_caps(Caps::fixed_size(caps, size))
            .expect("the caps are fixed");
        size
    }

    /// The size of the next frame.
    fn next_size(&mut self) -> usize {
        match self.size {
            Some(size) => size,
            None if self.random.permille(10) => random_size(&mut self.random),
            None => self.random.size(SMALL_SIZE_BITS).max(HEAD),
        }
    }

    fn step(&mut self) {
        if self.random.permille(8) {
            self.change_caps();
        }
        if self.random.permille(60) {
            self.publish_event();
        }
        if self.random.permille(2) {
            // The ring of the channel holds fewer events than these.
            (0..50).for_each(|_| self.publish_event());
        }
        if self.random.permille(3) {
            self.writer.end_of_stream();
        }
        if self.random.permille(300) {
            self.kept.clear();
        }
        // The writer publishes about 250 times a second. Sometimes it publishes several frames without a pause.
        let most = if self.size.is_none() && self.camera.is_none() && !self.context.assignment.lossless {
            300
        } else {
            30
        };
        let burst = if self.random.permille(50) {
            self.random.within(2..most)
        } else {
            1
        };
        let writer = Arc::clone(&self.writer);
        let batch = self.random.permille(500).then(|| writer.batch());
        (0..burst).for_each(|_| self.publish_frame());
        drop(batch);
        std::thread::sleep(self.random.millis(1..7));
    }

    fn publish_event(&mut self) {
        let tag = Tag {
            kind: EVENT,
            ..self.tag
        };
        let bytes = tag.bytes(self.random.within(HEAD as u64..MAX_EVENT_SIZE as u64 + 1) as usize);
        let event = NewEvent::new(OWN_EVENT, &bytes);
        let sticky = self.random.permille(500).then(|| self.random.within(1..8) as usize);
        if let Err(error) = self.writer.publish_event(event, sticky) {
            self.context.found_other(&format!("event: {error}"));
        }
        if self.random.permille(20) {
            self.writer.forget_events();
        }
    }

    fn publish_frame(&mut self) {
        if let Some(camera) = self.camera.take() {
            self.publish_object(&camera);
            self.camera = Some(camera);
            return;
        }
        let size = self.next_size();
        let began = monotonic_ns();
        let Some((mut slot, is_upstream)) = self.claim(size) else {
            return;
        };
        let claim_time = awake_between(began, monotonic_ns());
        let tag = Tag {
            serial: self.tag.serial + 1,
            ..self.tag
        };
        tag.fill(slot.as_mut());
        let Some(publish_time) = self.publish(&slot, tag, size) else {
            return;
        };
        if !self.context.assignment.lossless {
            let time = claim_time + publish_time;
            self.context.counters.stall.fetch_max(time, Relaxed);
        }
        if is_upstream && self.random.permille(500) {
            self.kept.push_back(slot);
        }
    }

    /// Publishes a frame in a buffer of the camera, which must have one.
    fn publish_object(&mut self, camera: &Camera) {
        let size = random_size(&mut self.random);
        let tag = Tag {
            serial: self.tag.serial + 1,
            ..self.tag
        };
        let Some(drawn) = camera.draw(&tag, size, &mut self.random) else {
            let out = self.writer.objects().frames_out();
            return self
                .context
                .found_other(&format!("the camera has no buffer, and {out} frames are out"));
        };
        let metadata = self.metadata(tag);
        let began = monotonic_ns();
        let descriptor = FrameDescriptor::new(size as u64)
            .with_pts(began)
            .with_offset(tag.serial);
        let published = drawn.publish(&self.writer, descriptor, &metadata);
        let time = awake_between(began, monotonic_ns());
        match published {
            Ok(Some(_)) => self.count_published(),
            Ok(None) => {
                self.context.counters.no_slot.fetch_add(1, Relaxed);
                let stats = self.writer.stats();
                return self.context.found_other(&format!("no slot for an object: {stats:?}"));
            }
            Err(error) => return self.context.found_other(&format!("publish of an object: {error}")),
        }
        self.context.counters.by_descriptor.fetch_add(1, Relaxed);
        if !self.context.assignment.lossless {
            self.context.counters.stall.fetch_max(time, Relaxed);
        }
    }

    /// Metadata for some of the frames.
    fn metadata(&mut self, tag: Tag) -> Vec<u8> {
        if self.random.permille(300) {
            tag.bytes(self.random.within(HEAD as u64..MAX_METADATA_SIZE as u64 + 1) as usize)
        } else {
            Vec::new()
        }
    }

    fn count_published(&mut self) {
        self.tag.serial += 1;
        let counters = self.context.counters;
        counters.published.fetch_add(1, Relaxed);
        counters.last_at.store(monotonic_ns(), Relaxed);
    }

    /// Claims a slot, sometimes for an upstream element. Returns the slot, and whether it is for an upstream element.
    fn claim(&mut self, size: usize) -> Option<(Slot, bool)> {
        let claimed = if self.random.permille(300) {
            self.writer.upstream().claim(size)
        } else {
            Ok(None)
        };
        let is_upstream = matches!(claimed, Ok(Some(_)));
        let claimed = match claimed {
            Ok(None) => self.writer.claim(size),
            claimed => claimed,
        };
        match claimed {
            Ok(Some(slot)) => Some((slot, is_upstream)),
            Ok(None) => {
                self.context.counters.no_slot.fetch_add(1, Relaxed);
                let stats = self.writer.stats();
                self.context.found_other(&format!("no slot for a frame: {stats:?}"));
                None
            }
            Err(error) => {
                self.context.found_other(&format!("claim: {error}"));
                None
            }
        }
    }

    /// Publishes a frame, sometimes with metadata. Returns the time that the call of `Writer::publish` took.
    fn publish(&mut self, slot: &Slot, tag: Tag, size: usize) -> Option<u64> {
        let metadata = self.metadata(tag);
        let began = monotonic_ns();
        let descriptor = FrameDescriptor::new(size as u64)
            .with_pts(began)
            .with_offset(tag.serial);
        // rsshmsink also waits for its readers before it publishes. An upstream element may have claimed its slot
        // before all readers had followed to the current segment.
        self.writer.upstream().wait_for_followers();
        let published = self.writer.publish(slot, descriptor, &metadata);
        let publish_time = awake_between(began, monotonic_ns());
        if let Err(error) = published {
            self.context.found_other(&format!("publish: {error}"));
            return None;
        }
        self.count_published();
        Some(publish_time)
    }

    /// Claims every slot, and reports the number of used slots. No readers run at this time.
    fn count_slots(&mut self) {
        self.kept.clear();
        let slots = &self.context.board.slots;
        if slots.load(Relaxed) != 0 {
            std::thread::sleep(Duration::from_millis(5));
            return;
        }
        if self.camera.is_some() {
            self.former_cameras.extend(self.camera.take());
            self.set_fixed_size();
            self.publish_frame();
        }
        // After this time, the service has noticed the dead readers and has released the old segments. On a busy machine,
        // it needs longer.
        std::thread::sleep(on_this_machine(Duration::from_millis(600)));
        let missing = || -> usize { self.former_cameras.iter().map(Camera::missing).sum() };
        let ends = Instant::now() + on_this_machine(COUNTING_TIME);
        while missing() > 0 && Instant::now() < ends {
            std::thread::sleep(Duration::from_millis(20));
        }
        if missing() > 0 {
            self.context.found_other(&format!("{} buffers are lost", missing()));
        }
        // Frames of one size never share a slot, so each claim shows another slot.
        let size = match self.size {
            Some(size) => size,
            None => {
                let size = self.set_fixed_size();
                // The first frame makes the segment of the new caps.
                self.publish_frame();
                size
            }
        };
        // The simulated upstream element may have kept the slot of this frame.
        self.kept.clear();
        let mut used = HashSet::new();
        // The second round begins with other frames in the history, so that each slot is claimed in one of the rounds. More
        // rounds follow while a dead reader that the service has not noticed yet keeps a lossless writer waiting.
        for round in 0.. {
            let is_over = used.len() as u64 >= u64::from(self.writer.stats().slots) || Instant::now() > ends;
            if round >= 2 && is_over {
                break;
            }
            let mut claimed = Vec::new();
            let (began, limit) = (Instant::now(), on_this_machine(CLAIM_TIME));
            while let Ok(Some(mut slot)) = self.writer.claim_while(size, || began.elapsed() < limit) {
                used.insert(slot.as_mut().as_ptr().addr());
                claimed.push(slot);
            }
            for slot in claimed {
                if let Err(error) = self.writer.publish(&slot, FrameDescriptor::default(), &[]) {
                    self.context.found_other(&format!("publish: {error}"));
                }
            }
        }
        let committed = self.writer.stats().slots;
        self.context.board.slots_used.store(used.len() as u64, Relaxed);
        slots.store(u64::from(committed) + 1, Release);
    }
}
