// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers that use the channel crate.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{self, SyncSender},
    },
    thread::JoinHandle,
    time::Duration,
};

use rsshm_channel::{
    ChannelName, Frame, FrameData, MAX_MESSAGE_SIZE, Next, ObjectFault, ObjectFrame, PinnedFrame, ReadLimits, Reader,
    ReaderOptions,
};

use super::{
    assignment::{Assignment, Kind, ProcessContext},
    board::request,
    camera::open_files_and_mappings,
    check::{FrameChecker, ReceivedFrame},
    content::{HEAD, MESSAGE, OWN_EVENT, Tag},
};
use crate::Random;

/// The longest wait for a frame.
const WAIT: Duration = Duration::from_millis(100);

/// The behaviour of a kind of reader.
struct Manner {
    limits: ReadLimits,
    is_read_only: bool,
    /// The maximum number of frames that the reader holds.
    hold: usize,
    /// The longest pause after a frame.
    pause_ms: u64,
}

impl Manner {
    fn of(kind: Kind) -> Self {
        let (max_behind, max_held, hold, pause_ms) = match kind {
            Kind::Copying => (0, 0, 0, 2),
            Kind::Observer => (0, 4, 0, 2),
            Kind::Slow => (0, 4, 3, 60),
            Kind::Newest => (1, 4, 1, 8),
            Kind::Hoarder => (0, 64, 12, 4),
            Kind::Guest => (0, 4, 4, 4),
            Kind::Threaded => (0, 5, 4, 1),
            _ => (0, 4, 3, 1),
        };
        Self {
            limits: ReadLimits::default()
                .max_behind(max_behind)
                .max_held(max_held)
                .accepts_objects(kind != Kind::Copying),
            is_read_only: kind == Kind::Observer,
            hold,
            pause_ms,
        }
    }
}

/// A frame that the reader holds.
struct HeldFrame {
    tag: Tag,
    bytes: Bytes,
}

enum Bytes {
    Pinned(PinnedFrame),
    Objects(ObjectFrame),
    Copied(Vec<u8>),
}

impl HeldFrame {
    fn release(self, context: &ProcessContext) {
        match &self.bytes {
            Bytes::Pinned(pinned) => FrameChecker::again(context, self.tag, pinned.as_ref()),
            Bytes::Objects(objects) => with_bytes(objects, |bytes| FrameChecker::again(context, self.tag, bytes)),
            Bytes::Copied(bytes) => FrameChecker::again(context, self.tag, bytes),
        }
    }
}

/// Calls `check` with all bytes of a frame of objects. If the frame has one part, they are mapped, and else copied.
fn with_bytes<T>(objects: &ObjectFrame, check: impl FnOnce(&[u8]) -> T) -> T {
    if objects.parts().len() == 1 {
        return check(objects.map(0).expect("memory that can be mapped"));
    }
    let mut bytes = vec![0; objects.parts().iter().map(|part| part.size() as usize).sum()];
    objects.copy(&mut bytes).expect("memory that can be read");
    check(&bytes)
}

/// A thread that releases frames.
struct Releaser {
    frames: SyncSender<HeldFrame>,
    thread: JoinHandle<()>,
}

impl Releaser {
    fn start(context: &Arc<ProcessContext>, capacity: usize) -> Self {
        let (frames, received) = mpsc::sync_channel::<HeldFrame>(capacity);
        let context = Arc::clone(context);
        let thread = std::thread::spawn(move || received.into_iter().for_each(|held| held.release(&context)));
        Self { frames, thread }
    }
}

/// A reader's process.
struct ReaderPlayer {
    context: Arc<ProcessContext>,
    random: Random,
    manner: Manner,
    name: ChannelName,
    reader: Reader,
    checker: FrameChecker,
    copy: Vec<u8>,
    held: VecDeque<HeldFrame>,
    /// The thread that releases frames. Only readers of the kind `Threaded` have one.
    releaser: Option<Releaser>,
    messages: u64,
    /// The open files and the mappings at the begin.
    before: (usize, usize),
    /// The number of frames until the reader detaches. Only readers of the kind `Guest` use it.
    stay: u64,
}

/// Plays a reader until the run asks it to end.
pub fn play(assignment: Assignment) {
    let mut player = ReaderPlayer::new(assignment);
    while player.context.board.request.load(Relaxed) == request::CONTINUE {
        player.step();
    }
    player.end();
}

impl ReaderPlayer {
    fn new(assignment: Assignment) -> Self {
        let mut random = Random::new(assignment.seed ^ 1);
        let context = Arc::new(ProcessContext::new(assignment));
        let before = open_files_and_mappings();
        let kind = context.assignment.kind;
        let manner = Manner::of(kind);
        let name = ChannelName::new(context.assignment.channel.clone()).unwrap();
        Self {
            reader: Reader::new(name.clone(), ReaderOptions::default().read_only(manner.is_read_only)),
            releaser: (kind == Kind::Threaded).then(|| Releaser::start(&context, manner.hold)),
            stay: random.within(1..20),
            checker: FrameChecker::default(),
            copy: Vec::new(),
            held: VecDeque::new(),
            messages: 0,
            before,
            context,
            random,
            manner,
            name,
        }
    }

    fn step(&mut self) {
        self.receive();
        while self.held.len() > self.manner.hold || self.random.permille(100) && !self.held.is_empty() {
            // The reader releases a random frame, not always the oldest one.
            let index = self.random.within(0..self.held.len() as u64) as usize;
            if let Some(frame) = self.held.remove(index) {
                frame.release(&self.context);
            }
        }
        if self.random.permille(20) {
            self.send_message();
        }
        if self.random.permille(300) {
            std::thread::sleep(self.random.millis(0..self.manner.pause_ms));
        }
        if self.context.assignment.kind == Kind::Guest && self.stay == 0 {
            self.attach_again();
        }
    }

    fn receive(&mut self) {
        let next = self.reader.next(&mut self.copy, self.manner.limits, Some(WAIT));
        let context = Arc::clone(&self.context);
        match next {
            Ok(Next::Frame(frame)) => {
                if let Some(frame) = self.take(frame) {
                    match &self.releaser {
                        Some(releaser) => drop(releaser.frames.send(frame)),
                        None => self.held.push_back(frame),
                    }
                }
                self.stay = self.stay.saturating_sub(1);
            }
            Ok(Next::Event(event)) if event.kind == OWN_EVENT => self.checker.event(&context, &event.bytes),
            // rsshmsink published this event. It contains no tag, so there is nothing to check.
            Ok(Next::Event(_)) => {}
            Ok(Next::EndOfStream) => drop(context.counters.ends.fetch_add(1, Relaxed)),
            Ok(Next::Lost) => {
                context.counters.lost.fetch_add(1, Relaxed);
                self.checker.interrupt(false);
            }
            Ok(Next::Fault(fault)) => self.note_fault(&fault),
            Ok(Next::TimedOut) => {}
            Ok(Next::Evicted) => {
                context.found_other("evicted, though it has violated no rule");
                self.checker.interrupt(false);
            }
            Ok(other) => context.found_other(&format!("{other:?}")),
            Err(error) => context.found_other(&format!("{error}")),
        }
    }

    /// Counts a frame that was missed because the writer was dead or stopped. Any other reason is a violation.
    fn note_fault(&mut self, fault: &ObjectFault) {
        if fault.is_of_absent_writer() {
            self.context.counters.faults.fetch_add(1, Relaxed);
            self.checker.fault();
        } else {
            self.context.found_other(&format!("no memory: {fault}"));
        }
    }

    /// Checks a frame. Returns it as a held frame, or `None` if it is torn.
    fn take(&mut self, frame: Frame) -> Option<HeldFrame> {
        let context = &self.context;
        let checker = &mut self.checker;
        let mut check = |bytes: &[u8]| {
            let arrived = ReceivedFrame {
                bytes,
                caps: self.reader.caps(),
                seq: Some(frame.seq),
                offset: frame.descriptor.offset,
                missed: frame.missed,
                skipped: 0,
            };
            checker.frame(context, &arrived)
        };
        let tag = match &frame.data {
            FrameData::InPlace(pinned) => check(pinned.as_ref()),
            FrameData::Objects(objects) => with_bytes(objects, check),
            // The whole copy is checked. `Frame::bytes` would hide a copy that is too large.
            _ => check(&self.copy),
        }?;
        if !frame.metadata.is_empty() {
            FrameChecker::metadata(context, tag, &frame.metadata);
        }
        let (counter, bytes) = match frame.data {
            FrameData::InPlace(pinned) => (&context.counters.in_place, Bytes::Pinned(pinned)),
            FrameData::Objects(objects) => (&context.counters.by_descriptor, Bytes::Objects(objects)),
            _ => (&context.counters.copied, Bytes::Copied(std::mem::take(&mut self.copy))),
        };
        counter.fetch_add(1, Relaxed);
        Some(HeldFrame { tag, bytes })
    }

    fn send_message(&mut self) {
        self.messages += 1;
        let message = Tag {
            incarnation: std::process::id(),
            kind: MESSAGE,
            serial: self.messages,
            ..Tag::default()
        };
        let size = self.random.within(HEAD as u64..MAX_MESSAGE_SIZE as u64 + 1);
        self.reader.handle().send_message(&message.bytes(size as usize));
    }

    /// Detaches and attaches again. The reader keeps its held frames meanwhile.
    fn attach_again(&mut self) {
        self.stay = self.random.within(1..20);
        let options = ReaderOptions::default().read_only(self.manner.is_read_only);
        self.reader = Reader::new(self.name.clone(), options);
        self.checker.interrupt(true);
        std::thread::sleep(self.random.millis(0..20));
    }

    fn end(self) {
        drop(self.reader);
        self.held.into_iter().for_each(|frame| frame.release(&self.context));
        if let Some(Releaser { frames, thread }) = self.releaser {
            drop(frames);
            let _ = thread.join();
        }
        self.context.check_open(self.before);
    }
}
