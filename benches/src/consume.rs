//! A consumer with GStreamer: checks every frame, and how long it was on its way.

use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    frame::{self, Mark},
    order::{Order, Sabotage},
    pace::{Usage, now_ns},
    produce::{Counts, counts, wait_for_end},
    talk,
};

/// What a consumer says of the counted frames.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Consumed {
    /// Of one frame.
    pub usage: Usage,
    pub missed: u64,
    /// Between the first frame and the last one.
    pub span_ns: u64,
    pub latencies_ns: Vec<u64>,
    pub counts: Counts,
}

/// What a consumer has seen.
pub struct Seen {
    exact: bool,
    warm: u64,
    previous: Option<u64>,
    began: Option<Usage>,
    first_ns: u64,
    last_ns: u64,
    latencies_ns: Vec<u64>,
}

pub enum Progress {
    First,
    Goes,
    Complete(Consumed),
}

impl Seen {
    pub fn new(order: &Order) -> Self {
        Self {
            exact: order.transport.is_exact(),
            warm: order.warm,
            previous: None,
            began: None,
            first_ns: 0,
            last_ns: 0,
            // At once: memory that grows meanwhile would be measured too.
            latencies_ns: Vec::with_capacity(order.frames as usize),
        }
    }

    /// Takes account of a frame that has arrived.
    pub fn take(&mut self, mark: Mark, now_ns: u64) -> Result<Progress, String> {
        let number = mark.number;
        // From here on everybody has had a frame. Who has just joined may miss one: the newest is shown at once, and the
        // next may still have been taken before its pipeline began to play.
        let all_there = mark.first.saturating_sub(self.warm);
        match self.previous.replace(number) {
            None if number < mark.first => return Ok(Progress::First),
            None => {
                return Err(format!(
                    "the first frame to arrive is number {number}, which counts already"
                ));
            }
            Some(previous) if number <= previous => {
                return Err(format!("frame {number} comes after frame {previous}"));
            }
            Some(previous) if self.exact && number > previous + 1 && number > all_there => {
                return Err(format!("frame {number} comes after frame {previous}: some are lost"));
            }
            Some(_) => {}
        }
        if number < mark.first {
            return Ok(Progress::Goes);
        }
        if self.began.is_none() {
            self.began = Some(Usage::now());
            self.first_ns = now_ns;
        }
        if number < mark.end {
            self.latencies_ns.push(now_ns.saturating_sub(mark.sent_ns));
            self.last_ns = now_ns;
            return Ok(Progress::Goes);
        }
        let latencies_ns = std::mem::take(&mut self.latencies_ns);
        let frames = latencies_ns.len() as u64;
        Ok(Progress::Complete(Consumed {
            usage: Usage::now().since(self.began.unwrap_or_default()).per(frames),
            missed: (mark.end - mark.first).saturating_sub(frames),
            span_ns: self.last_ns.saturating_sub(self.first_ns),
            latencies_ns,
            counts: Counts::new(),
        }))
    }
}

pub fn run(order: &Order) -> Result<(), String> {
    let source = order.transport.source(&order.place, &order.caps());
    let description = format!("{source} ! fakesink name=end sync=false async=false enable-last-sample=false");
    let pipeline = gst::parse::launch(&description)
        .map_err(|error| error.to_string())?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "not a pipeline")?;
    let bus = pipeline.bus().ok_or("a pipeline without a bus")?;
    talk::listen({
        let bus = bus.clone();
        move || {
            let _ = bus.post(gst::message::Application::new(gst::Structure::new_empty("stop")));
        }
    });
    let failure = Arc::new(Mutex::new(None));
    let pad = pipeline
        .by_name("end")
        .and_then(|end| end.static_pad("sink"))
        .ok_or("no pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, probe(order, &pipeline, &bus, &failure));
    let played = pipeline.set_state(gst::State::Playing);
    let outcome = wait_for_end(&bus, played.is_ok());
    let _ = pipeline.set_state(gst::State::Null);
    match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(failure) => Err(failure),
        None => outcome,
    }
}

type Failure = Arc<Mutex<Option<String>>>;

/// Looks at each frame that comes to the pad.
fn probe(
    order: &Order,
    pipeline: &gst::Pipeline,
    bus: &gst::Bus,
    failure: &Failure,
) -> impl Fn(&gst::Pad, &mut gst::PadProbeInfo) -> gst::PadProbeReturn + use<> {
    let seen = Mutex::new(Some(Seen::new(order)));
    let (size, hangs) = (order.case.size.bytes(), order.sabotage == Some(Sabotage::Hang));
    let (pipeline, bus, failure) = (pipeline.downgrade(), bus.clone(), Arc::clone(failure));
    move |_, info| {
        let now_ns = now_ns();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(buffer), Some(counting)) = (info.buffer(), seen.as_mut()) else {
            return gst::PadProbeReturn::Ok;
        };
        let progress = buffer
            .map_readable()
            .map_err(|_| "a frame cannot be read".to_owned())
            .and_then(|map| frame::check(&map, size))
            .and_then(|mark| counting.take(mark, now_ns));
        match progress {
            Ok(Progress::First) => talk::say(talk::FIRST),
            Ok(Progress::Goes) => {}
            Ok(Progress::Complete(_)) if hangs => {}
            Ok(Progress::Complete(mut consumed)) => {
                *seen = None;
                consumed.counts = pipeline.upgrade().as_ref().map(counts).unwrap_or_default();
                if let Err(error) = talk::say_result(&consumed) {
                    fail(&bus, &failure, error);
                }
            }
            Err(error) => {
                *seen = None;
                fail(&bus, &failure, error);
            }
        }
        gst::PadProbeReturn::Ok
    }
}

/// Ends the pipeline for this reason.
fn fail(bus: &gst::Bus, failure: &Failure, reason: String) {
    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    let message = gst::message::Application::builder(gst::Structure::new_empty("failed"));
    let _ = bus.post(message.build());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{case::Case, frame::NOT_YET, order::Place, transport::Transport};

    const FRAMES: u64 = 3;
    const WARM: u64 = 2;

    fn seen(transport: Transport) -> Seen {
        Seen::new(&Order {
            transport,
            case: Case::USUAL,
            frames: FRAMES,
            warm: WARM,
            place: Place::default(),
            sabotage: None,
            parent: 0,
        })
    }

    /// Takes frames that were sent at 0; those before number 10 know nothing yet, those from 12 to 14 count.
    fn take(seen: &mut Seen, number: u64) -> Result<Progress, String> {
        let first = if number < 10 { NOT_YET } else { 10 + WARM };
        let mark = Mark {
            number,
            sent_ns: 0,
            first,
            end: first.saturating_add(FRAMES),
        };
        seen.take(mark, number * 1000)
    }

    #[test]
    fn only_the_frames_between_count() {
        let mut seen = seen(Transport::Shm);
        assert!(matches!(take(&mut seen, 8), Ok(Progress::First)));
        for number in 9..15 {
            assert!(matches!(take(&mut seen, number), Ok(Progress::Goes)), "{number}");
        }
        let Ok(Progress::Complete(consumed)) = take(&mut seen, 15) else {
            panic!("not complete");
        };
        assert_eq!(consumed.latencies_ns, [12_000, 13_000, 14_000]);
        assert_eq!((consumed.missed, consumed.span_ns), (0, 2000));
    }

    #[test]
    fn who_has_just_joined_may_miss_frames_and_later_no_more() {
        let mut seen = seen(Transport::Shm);
        for number in [0, 2, 9, 10] {
            assert!(take(&mut seen, number).is_ok(), "{number}");
        }
        assert!(take(&mut seen, 12).err().unwrap().contains("some are lost"));
    }

    #[test]
    fn what_may_be_missed_is_counted() {
        let mut seen = seen(Transport::Rsshm);
        for number in [9, 12, 14] {
            assert!(take(&mut seen, number).is_ok(), "{number}");
        }
        let Ok(Progress::Complete(consumed)) = take(&mut seen, 17) else {
            panic!("not complete");
        };
        assert_eq!((consumed.missed, consumed.latencies_ns.len()), (1, 2));
    }

    #[test]
    fn no_frame_comes_twice_or_after_a_later_one() {
        for number in [9, 8] {
            let mut seen = seen(Transport::Rsshm);
            assert!(take(&mut seen, 9).is_ok());
            assert!(take(&mut seen, number).is_err());
        }
    }
}
