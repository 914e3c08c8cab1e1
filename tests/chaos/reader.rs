//! Readers on the channel's own interface.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::Duration,
};

use rsshm_channel::{
    ChannelName, Frame, FrameData, MAX_MESSAGE_SIZE, Next, PinnedFrame, ReadLimits, Reader, ReaderOptions,
};

use crate::{
    board::request,
    check::{Arrived, Checker},
    content::{HEAD, MESSAGE, OWN_EVENT, Tag},
    role::{Context, Orders, Role},
};

const PATIENCE: Duration = Duration::from_millis(100);

/// How a kind of reader reads.
struct Manner {
    limits: ReadLimits,
    read_only: bool,
    /// Frames that it holds at most.
    hold: usize,
    /// The longest that it takes over a frame.
    pause_ms: u64,
}

impl Manner {
    fn of(role: Role) -> Self {
        let (max_behind, max_held, hold, pause_ms) = match role {
            Role::Copying => (0, 0, 0, 2),
            Role::Observer => (0, 4, 0, 2),
            Role::Slow => (0, 4, 3, 60),
            Role::Newest => (1, 4, 1, 8),
            Role::Hoarder => (0, 64, 12, 4),
            Role::Guest => (0, 4, 4, 4),
            Role::Threaded => (0, 5, 4, 1),
            _ => (0, 4, 3, 1),
        };
        Self {
            limits: ReadLimits { max_behind, max_held },
            read_only: role == Role::Observer,
            hold,
            pause_ms,
        }
    }
}

/// A frame that is held.
struct Held {
    tag: Tag,
    data: Bytes,
}

enum Bytes {
    Pinned(PinnedFrame),
    Copied(Vec<u8>),
}

impl Held {
    fn let_go(self, context: &Context) {
        match &self.data {
            Bytes::Pinned(pinned) => Checker::again(context, self.tag, pinned.as_ref()),
            Bytes::Copied(bytes) => Checker::again(context, self.tag, bytes),
        }
    }
}

pub fn play(orders: Orders) {
    let mut random = crate::random::Random::new(orders.seed ^ 1);
    let context = Arc::new(Context::new(orders));
    let manner = Manner::of(context.orders.role);
    let name = ChannelName::new(context.orders.channel.clone()).unwrap();
    let options = ReaderOptions {
        read_only: manner.read_only,
    };
    let (to_thread, thread) = match context.orders.role {
        Role::Threaded => {
            let (sender, receiver) = mpsc::sync_channel::<Held>(manner.hold);
            let context = Arc::clone(&context);
            let thread = std::thread::spawn(move || receiver.into_iter().for_each(|held| held.let_go(&context)));
            (Some(sender), Some(thread))
        }
        _ => (None, None),
    };
    let mut reader = Reader::new(name.clone(), options);
    let mut checker = Checker::default();
    let mut held: VecDeque<Held> = VecDeque::new();
    let mut copy = Vec::new();
    let mut messages = 0;
    let mut stay = random.within(1..20);
    while context.board.request.load(Relaxed) == request::GO_ON {
        match reader.next(&mut copy, manner.limits, Some(PATIENCE)) {
            Ok(Next::Frame(frame)) => {
                if let Some(frame) = take(&context, &mut checker, frame, &mut copy, reader.caps()) {
                    match &to_thread {
                        Some(thread) => drop(thread.send(frame)),
                        None => held.push_back(frame),
                    }
                }
                stay = stay.saturating_sub(1);
            }
            // rsshmsink tells of other things.
            Ok(Next::Event(event)) if event.kind == OWN_EVENT => checker.event(&context, &event.bytes),
            Ok(Next::Event(_)) => {}
            Ok(Next::EndOfStream) => drop(context.cell.ends.fetch_add(1, Relaxed)),
            Ok(Next::Lost) => {
                context.cell.lost.fetch_add(1, Relaxed);
                checker.interrupted(false);
            }
            Ok(Next::TimedOut) => {}
            Ok(Next::Evicted) => {
                context.found(&context.cell.others, "evicted, though it keeps to the rules");
                checker.interrupted(false);
            }
            Ok(other) => context.found(&context.cell.others, &format!("{other:?}")),
            Err(error) => context.found(&context.cell.others, &format!("{error}")),
        }
        while held.len() > manner.hold || random.permille(100) && !held.is_empty() {
            // Not always the oldest.
            let index = random.within(0..held.len() as u64) as usize;
            if let Some(frame) = held.remove(index) {
                frame.let_go(&context);
            }
        }
        if random.permille(20) {
            messages += 1;
            let message = Tag {
                incarnation: std::process::id(),
                kind: MESSAGE,
                serial: messages,
                ..Tag::default()
            };
            reader
                .handle()
                .send_message(&message.bytes(random.within(HEAD as u64..MAX_MESSAGE_SIZE as u64 + 1) as usize));
        }
        if random.permille(300) {
            std::thread::sleep(random.millis(0..manner.pause_ms));
        }
        if context.orders.role == Role::Guest && stay == 0 {
            stay = random.within(1..20);
            reader = Reader::new(name.clone(), options);
            checker.interrupted(true);
            std::thread::sleep(random.millis(0..20));
        }
    }
    drop(reader);
    held.into_iter().for_each(|frame| frame.let_go(&context));
    drop(to_thread);
    thread.map(|thread| thread.join());
}

/// Checks a frame, and yields it to be held.
fn take(context: &Context, checker: &mut Checker, frame: Frame, copy: &mut Vec<u8>, caps: &str) -> Option<Held> {
    let arrived = Arrived {
        bytes: match &frame.data {
            FrameData::InPlace(pinned) => pinned.as_ref(),
            FrameData::Copied => copy,
        },
        caps,
        seq: Some(frame.seq),
        offset: frame.descriptor.offset,
        missed: frame.missed,
    };
    let tag = checker.frame(context, &arrived)?;
    if !frame.metadata.is_empty() {
        Checker::metadata(context, tag, &frame.metadata);
    }
    let (count, data) = match frame.data {
        FrameData::InPlace(pinned) => (&context.cell.in_place, Bytes::Pinned(pinned)),
        FrameData::Copied => (&context.cell.copied, Bytes::Copied(std::mem::take(copy))),
    };
    count.fetch_add(1, Relaxed);
    Some(Held { tag, data })
}
