//! A writer on the channel's own interface.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use rsshm_channel::{
    Caps, ChannelName, FrameDescriptor, MAX_EVENT_SIZE, MAX_METADATA_SIZE, NewEvent, Slot, Writer, WriterOptions,
    monotonic_ns,
};

use crate::{
    board::writer_request,
    content::{COUNTED_FRAME, EVENT, HEAD, MESSAGE, OWN_EVENT, Tag},
    random::Random,
    role::{Context, Orders, awake_between},
};

/// Frames are of 4 KiB to 1 MiB.
const SIZES: std::ops::Range<u64> = 12..20;
const PAGE: usize = 4096;

/// What a writer may be told to be, at random.
pub fn options(random: &mut Random, lossless: bool) -> WriterOptions {
    let perms = [0o600, 0o660, 0o666, 0o644, 0o640];
    WriterOptions {
        perms: perms[random.within(0..perms.len() as u64) as usize],
        max_slots: match random.within(0..10) {
            0 | 1 => 0,
            2 => random.within(3..14) as u32,
            3 | 4 => random.within(14..40) as u32,
            _ => random.within(40..65) as u32,
        },
        lossless,
        accept_messages: random.permille(700),
    }
}

pub fn random_size(random: &mut Random) -> usize {
    random.size(SIZES).next_multiple_of(PAGE)
}

/// The writer, as its thread that publishes has it.
struct Play {
    context: Arc<Context>,
    random: Random,
    writer: Arc<Writer>,
    tag: Tag,
    size: usize,
    /// Frames that upstream keeps after they were published.
    kept: VecDeque<Slot>,
}

pub fn play(orders: Orders) {
    let mut random = Random::new(orders.seed ^ 2);
    let context = Arc::new(Context::new(orders));
    let orders = &context.orders;
    let name = ChannelName::new(orders.channel.clone()).unwrap();
    let writer = match Writer::open(name, options(&mut random, orders.lossless)) {
        Ok(writer) => Arc::new(writer),
        Err(error) => {
            context.found(&context.cell.others, &format!("cannot start: {error}"));
            return;
        }
    };
    if let Some(damaged) = writer.replaced_damaged() {
        context.found(&context.cell.others, &format!("found a damaged segment: {damaged}"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let service = std::thread::spawn({
        let (context, writer, stop) = (Arc::clone(&context), Arc::clone(&writer), Arc::clone(&stop));
        move || serve(&context, &writer, &stop)
    });
    let tag = Tag {
        incarnation: orders.incarnation,
        epoch: orders.epoch,
        kind: COUNTED_FRAME,
        ..Tag::default()
    };
    let mut play = Play {
        context: Arc::clone(&context),
        random,
        writer: Arc::clone(&writer),
        tag,
        size: PAGE,
        kept: VecDeque::new(),
    };
    play.new_format();
    loop {
        match context.board.writer_request.load(Relaxed) {
            writer_request::GO_ON => play.step(),
            writer_request::COUNT_SLOTS => play.count_slots(),
            _ => break,
        }
    }
    stop.store(true, Relaxed);
    writer.stop_service();
    let _ = service.join();
    play.kept.clear();
    writer.close();
}

/// What rsshmsink's monitor does.
fn serve(context: &Context, writer: &Writer, stop: &AtomicBool) {
    let cell = context.cell;
    while !stop.load(Relaxed) {
        writer.wait_for_service(Duration::from_millis(250));
        match writer.service() {
            Ok(clients) => {
                for entry in clients.evicted {
                    context.found(&cell.others, &format!("evicts the reader in seat {entry}"));
                }
                if clients.names_restored {
                    context.found(&cell.others, "has lost its files");
                }
                for message in clients.messages {
                    cell.messages.fetch_add(1, Relaxed);
                    let read = Tag::read(&message);
                    if read.as_ref().map(|tag| tag.kind) != Ok(MESSAGE) {
                        context.found(&cell.torn, &format!("a letter is torn: {read:?}"));
                    }
                }
            }
            Err(error) => context.found(&cell.others, &format!("service: {error}")),
        }
    }
}

impl Play {
    fn new_format(&mut self) {
        self.tag.segment_changes += 1;
        self.size = random_size(&mut self.random);
        let filler = if self.random.permille(100) {
            self.random.within(0..3000)
        } else {
            0
        };
        let caps = self.tag.caps(self.size, filler as usize);
        self.writer.set_caps(Caps::fixed_size(caps, self.size));
    }

    fn step(&mut self) {
        if self.random.permille(8) {
            self.new_format();
        }
        if self.random.permille(60) {
            self.tell();
        }
        if self.random.permille(2) {
            // More than are kept.
            (0..50).for_each(|_| self.tell());
        }
        if self.random.permille(3) {
            self.writer.end_of_stream();
        }
        if self.random.permille(300) {
            self.kept.clear();
        }
        // At about 250 frames a second, now and then as fast as it can.
        let burst = if self.random.permille(50) {
            self.random.within(2..30)
        } else {
            1
        };
        (0..burst).for_each(|_| self.publish());
        std::thread::sleep(self.random.millis(1..7));
    }

    fn tell(&mut self) {
        let tag = Tag {
            kind: EVENT,
            ..self.tag
        };
        let bytes = tag.bytes(self.random.within(HEAD as u64..MAX_EVENT_SIZE as u64 + 1) as usize);
        let event = NewEvent {
            kind: OWN_EVENT,
            bytes: &bytes,
            ..NewEvent::default()
        };
        let sticky = self.random.permille(500).then(|| self.random.within(1..8) as usize);
        if let Err(error) = self.writer.publish_event(event, sticky) {
            self.context
                .found(&self.context.cell.others, &format!("event: {error}"));
        }
        if self.random.permille(20) {
            self.writer.forget_events();
        }
    }

    fn publish(&mut self) {
        let cell = self.context.cell;
        let began = monotonic_ns();
        let drawn = match self.random.permille(300) {
            true => self.writer.upstream().claim(self.size),
            false => Ok(None),
        };
        let is_drawn = matches!(drawn, Ok(Some(_)));
        let claimed = match drawn {
            Ok(None) => self.writer.claim(self.size),
            drawn => drawn,
        };
        let claim_took = awake_between(began, monotonic_ns());
        let mut slot = match claimed {
            Ok(Some(slot)) => slot,
            Ok(None) => {
                cell.no_slot.fetch_add(1, Relaxed);
                let what = format!("there is no slot for a frame: {:?}", self.writer.stats());
                self.context.found(&cell.others, &what);
                return;
            }
            Err(error) => {
                self.context.found(&cell.others, &format!("claim: {error}"));
                return;
            }
        };
        let tag = Tag {
            serial: self.tag.serial + 1,
            ..self.tag
        };
        tag.fill(slot.as_mut());
        let metadata = if self.random.permille(300) {
            tag.bytes(self.random.within(HEAD as u64..MAX_METADATA_SIZE as u64 + 1) as usize)
        } else {
            Vec::new()
        };
        let began = monotonic_ns();
        let descriptor = FrameDescriptor {
            pts: began,
            size: self.size as u64,
            offset: tag.serial,
            ..FrameDescriptor::default()
        };
        // What upstream drew into may have been claimed while readers were still on their way, as in rsshmsink.
        self.writer.upstream().wait_for_followers();
        self.context.publishes(tag.serial);
        let published = self.writer.publish(&slot, descriptor, &metadata);
        let ended = monotonic_ns();
        if !self.context.orders.lossless {
            let publish_took = awake_between(began, ended);
            cell.stall.fetch_max(claim_took + publish_took, Relaxed);
        }
        match published {
            Ok(()) => {
                self.tag.serial += 1;
                cell.published.fetch_add(1, Relaxed);
                cell.last_at.store(monotonic_ns(), Relaxed);
                if is_drawn && self.random.permille(500) {
                    self.kept.push_back(slot);
                }
            }
            Err(error) => self.context.found(&cell.others, &format!("publish: {error}")),
        }
    }

    /// Publishes until each slot must have been used, and says how many were. Nobody reads.
    fn count_slots(&mut self) {
        self.kept.clear();
        let slots = &self.context.board.slots;
        if slots.load(Relaxed) != 0 {
            std::thread::sleep(Duration::from_millis(5));
            return;
        }
        // The service finds out who is gone, and gives the rest of old segments back.
        std::thread::sleep(Duration::from_millis(600));
        let mut used = HashSet::new();
        let committed = self.writer.stats().slots;
        for _ in 0..3 * committed {
            match self.writer.claim(self.size) {
                Ok(Some(mut slot)) => {
                    used.insert(slot.as_mut().as_ptr().addr());
                    let published = self.writer.publish(&slot, FrameDescriptor::default(), &[]);
                    if let Err(error) = published {
                        self.context
                            .found(&self.context.cell.others, &format!("publish: {error}"));
                    }
                }
                other => self
                    .context
                    .found(&self.context.cell.others, &format!("no slot: {other:?}")),
            }
        }
        self.context.board.slots_used.store(used.len() as u64, Relaxed);
        slots.store(u64::from(committed) + 1, Relaxed);
    }
}
