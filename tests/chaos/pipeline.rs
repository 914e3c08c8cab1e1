//! Pipelines that write and read.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use gst::prelude::*;
use rsshm_channel::monotonic_ns;

use crate::{
    board::{request, writer_request},
    check::{Arrived, Checker},
    common::Pipeline,
    content::{FRAME, Tag, format_in},
    random::Random,
    role::{Context, Orders, Role},
    writer::{options, random_size},
};

/// A pipeline that writes. Its caps change while it plays; some frames are drawn in place, some are upstream's own memory.
pub fn write(orders: Orders) {
    let mut random = Random::new(orders.seed ^ 3);
    let context = Arc::new(Context::new(orders));
    let orders = &context.orders;
    let options = options(&mut random, orders.lossless);
    let tag = Tag {
        incarnation: orders.incarnation,
        epoch: orders.epoch,
        kind: FRAME,
        ..Tag::default()
    };
    let mut segment_changes = 0;
    let mut next_caps = |random: &mut Random| {
        segment_changes += 1;
        Tag { segment_changes, ..tag }.caps(random_size(random), 0)
    };
    let pipeline = Pipeline::new(&format!(
        "videotestsrc is-live=true pattern=black ! capsfilter name=filter caps={} ! rsshmsink name={} perms={} max-slots={} \
         lossless={}",
        next_caps(&mut random).replace('(', "\\(").replace(')', "\\)"),
        orders.channel,
        options.perms,
        options.max_slots,
        orders.lossless
    ));
    let filter = pipeline.element("filter");
    let (serial, in_probe, seed) = (AtomicU64::new(0), Arc::clone(&context), random.number());
    let draws = Mutex::new(Random::new(seed));
    filter
        .static_pad("src")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let caps = pad.current_caps().unwrap().to_string();
            let segment_changes = format_in(&caps).and_then(|format| format.split_once('g')?.1.parse().ok());
            let tag = Tag {
                segment_changes: segment_changes.unwrap(),
                serial: serial.fetch_add(1, Relaxed) + 1,
                ..tag
            };
            let buffer = info.buffer_mut().unwrap();
            if draws.lock().unwrap().permille(100) {
                let mut own = gst::Buffer::with_size(buffer.size()).unwrap();
                let times = (buffer.pts(), buffer.duration());
                let target = own.get_mut().unwrap();
                target.set_pts(times.0);
                target.set_duration(times.1);
                *buffer = own;
            }
            let target = buffer.make_mut();
            target.set_offset(tag.serial);
            tag.fill(&mut target.map_writable().unwrap());
            in_probe.publishes(tag.serial);
            in_probe.cell.published.fetch_add(1, Relaxed);
            in_probe.cell.last_at.store(monotonic_ns(), Relaxed);
            gst::PadProbeReturn::Ok
        });
    pipeline.0.set_state(gst::State::Playing).unwrap();
    let mut next_change = Instant::now() + random.millis(300..3000);
    while context.board.writer_request.load(Relaxed) == writer_request::GO_ON {
        if !look_at_messages(&context, &pipeline) {
            return;
        }
        if Instant::now() > next_change {
            next_change = Instant::now() + random.millis(300..3000);
            filter.set_property_from_str("caps", &next_caps(&mut random));
        }
    }
}

/// Waits a moment for what the pipeline has to say; `false` when it has failed.
fn look_at_messages(context: &Context, pipeline: &Pipeline) -> bool {
    let types = [gst::MessageType::Error, gst::MessageType::Warning];
    let message = pipeline
        .0
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_mseconds(20), &types);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => {
            context.found(
                &context.cell.others,
                &format!("{} ({:?})", error.error(), error.debug()),
            );
            false
        }
        // Said of programs that stop while they hold the semaphore, as they do here.
        Some(gst::MessageView::Warning(warning)) if warning.error().message().contains("held its semaphore") => true,
        Some(gst::MessageView::Warning(warning)) => {
            context.found(
                &context.cell.others,
                &format!("{} ({:?})", warning.error(), warning.debug()),
            );
            true
        }
        _ => true,
    }
}

/// What the probe of a reading pipeline has.
struct Reading {
    context: Arc<Context>,
    checker: Checker,
    random: Random,
    held: VecDeque<(Tag, gst::Buffer)>,
    missed: u64,
    source: gst::glib::WeakRef<gst::Element>,
}

impl Reading {
    fn buffer(&mut self, buffer: &gst::Buffer, caps: &gst::Caps) {
        let missed = self.source.upgrade().map_or(0, |source| {
            let stats = source.property::<gst::Structure>("channel-stats");
            stats.get::<u64>("frames-missed").unwrap()
        });
        let map = buffer.map_readable().unwrap();
        let arrived = Arrived {
            bytes: &map,
            caps: &caps.to_string(),
            seq: None,
            offset: buffer.offset(),
            missed: missed.saturating_sub(self.missed),
        };
        self.missed = missed;
        let tag = self.checker.frame(&self.context, &arrived);
        drop(map);
        if let Some(tag) = tag {
            self.held.push_back((tag, buffer.clone()));
        }
        let most = self.random.within(0..6) as usize;
        while self.held.len() > most {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        if let Some((tag, buffer)) = self.held.pop_front() {
            Checker::again(&self.context, tag, &buffer.map_readable().unwrap());
        }
    }
}

/// A pipeline that reads.
pub fn read(orders: Orders) {
    let random = Random::new(orders.seed ^ 4);
    let context = Arc::new(Context::new(orders));
    let (options, behind) = match context.orders.role {
        Role::SourceNewest => ("max-buffers=1", "appsink max-buffers=3 drop=true sync=false"),
        _ => ("", "queue max-size-buffers=4 ! fakesink sync=false"),
    };
    let pipeline = Pipeline::new(&format!(
        "rsshmsrc name={} {options} forward-eos=false ! {behind}",
        context.orders.channel
    ));
    let reading = Arc::new(Mutex::new(Reading {
        context: Arc::clone(&context),
        checker: Checker::default(),
        random,
        held: VecDeque::new(),
        missed: 0,
        source: pipeline.by_factory("rsshmsrc").downgrade(),
    }));
    let in_probe = Arc::clone(&reading);
    // At the source itself, whose statistics are those of this very buffer.
    let pad = pipeline.by_factory("rsshmsrc").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let caps = pad.current_caps().unwrap();
        in_probe.lock().unwrap().buffer(info.buffer().unwrap(), &caps);
        gst::PadProbeReturn::Ok
    });
    pipeline.0.set_state(gst::State::Playing).unwrap();
    while context.board.request.load(Relaxed) == request::GO_ON {
        if !look_at_messages(&context, &pipeline) {
            break;
        }
    }
    pipeline.0.set_state(gst::State::Null).unwrap();
    let mut reading = reading.lock().unwrap();
    while !reading.held.is_empty() {
        reading.let_go();
    }
    let cell = context.cell;
    cell.in_place
        .fetch_add(pipeline.stat("rsshmsrc", "frames-in-place"), Relaxed);
    cell.copied
        .fetch_add(pipeline.stat("rsshmsrc", "frames-copied"), Relaxed);
}
