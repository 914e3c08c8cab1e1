// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source element of a producer, which draws frames when they are due.

use std::sync::{Mutex, OnceLock, PoisonError};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};

use crate::{
    case::{Mode, Reading},
    frame::{self, Mark},
    job::{Job, Sabotage},
    memfd_pool::MemfdPool,
    pace::{self, Pacer},
};

/// Number of buffers in the source's own pool, which are used in turn.
///
/// With this many buffers, a buffer has left the caches when it is used again. The pool has no more buffers, because
/// shmsink waits forever if a pool keeps all of shmsink's memory.
const BUFFER_COUNT: u32 = 8;

glib::wrapper! {
    pub struct Source(ObjectSubclass<imp::Source>) @extends gst_base::BaseSrc, gst::Element, gst::Object;
}

impl Source {
    pub fn new(job: &Job, pacer: Pacer) -> Result<Self, String> {
        let caps: gst::Caps = job.caps().parse().map_err(|_| "the caps are invalid")?;
        let source: Self = glib::Object::new();
        let setup = imp::Setup { caps, job: job.clone() };
        if source.imp().setup.set(setup).is_err() {
            return Err("the source is set up twice".into());
        }
        *source.imp().pacer.lock().unwrap_or_else(PoisonError::into_inner) = Some(pacer);
        Ok(source)
    }
}

mod imp {
    use super::*;

    pub struct Setup {
        pub caps: gst::Caps,
        pub job: Job,
    }

    #[derive(Default)]
    pub struct Source {
        pub setup: OnceLock<Setup>,
        /// `None` while `fill` waits for a frame to be due.
        pub pacer: Mutex<Option<Pacer>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Source {
        const NAME: &'static str = "RsShmBenchSource";
        type Type = super::Source;
        type ParentType = gst_base::BaseSrc;
    }

    impl ObjectImpl for Source {
        fn constructed(&self) {
            self.parent_constructed();
            self.obj().set_live(true);
            self.obj().set_format(gst::Format::Time);
        }
    }

    impl GstObjectImpl for Source {}

    impl ElementImpl for Source {
        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(|| {
                let caps = gst::Caps::new_empty_simple("video/x-raw");
                gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &caps)
                    .into_iter()
                    .collect()
            });
            &TEMPLATES
        }
    }

    impl BaseSrcImpl for Source {
        fn caps(&self, _filter: Option<&gst::Caps>) -> Option<gst::Caps> {
            self.setup.get().map(|setup| setup.caps.clone())
        }

        fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
            let Some(setup) = self.setup.get() else {
                return self.parent_decide_allocation(query);
            };
            if setup.job.case.mode != Mode::InPlace {
                while query.allocation_pools().next().is_some() {
                    query.remove_nth_allocation_pool(0);
                }
                while query.allocation_params().next().is_some() {
                    query.remove_nth_allocation_param(0);
                }
            }
            // A sink may offer an allocator but no pool. This adds a pool, and the base class gives the sink's
            // allocator to it.
            if !query.allocation_pools().any(|(pool, ..)| pool.is_some()) {
                while query.allocation_pools().next().is_some() {
                    query.remove_nth_allocation_pool(0);
                }
                let pool: gst::BufferPool = match setup.job.case.mode {
                    Mode::InPlace | Mode::Foreign => gst_video::VideoBufferPool::new().upcast(),
                    Mode::Descriptor => MemfdPool::default().upcast(),
                };
                query.add_allocation_pool(
                    Some(&pool),
                    setup.job.case.size.bytes() as u32,
                    BUFFER_COUNT,
                    BUFFER_COUNT,
                );
            }
            self.parent_decide_allocation(query)
        }

        // The source is not a PushSrc, because the Rust bindings of PushSrc have a create() that does not allocate the
        // buffer that fill() needs.
        fn fill(
            &self,
            _offset: u64,
            _length: u32,
            buffer: &mut gst::BufferRef,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let pacer = || self.pacer.lock().unwrap_or_else(PoisonError::into_inner);
            let (Some(setup), Some(mut current)) = (self.setup.get(), pacer().take()) else {
                return Err(gst::FlowError::Error);
            };
            let mut step = current.next_step();
            if step.is_some_and(|step| setup.job.sabotages(Sabotage::Omit, step.seq, step.first)) {
                step = current.next_step();
            }
            *pacer() = Some(current);
            let mut step = step.ok_or(gst::FlowError::Eos)?;
            let is_sabotaged = |how| setup.job.sabotages(how, step.seq, step.first);
            let (repeat_seq, corrupt) = (is_sabotaged(Sabotage::RepeatSeq), is_sabotaged(Sabotage::Corrupt));
            if repeat_seq {
                step.seq -= 1;
            }
            let time = self.obj().current_running_time();
            buffer.set_pts(time);
            let mut map = buffer.map_writable().map_err(|_| {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Write,
                    ["The memory of the frame is not writable"]
                );
                gst::FlowError::Error
            })?;
            if setup.job.case.reading != Reading::Few {
                frame::draw(&mut map, step.seq);
            }
            if corrupt {
                frame::corrupt(&mut map);
            }
            let mark = Mark {
                seq: step.seq,
                sent_ns: pace::now_ns(),
                first: step.first,
                end: step.end,
            };
            frame::write_mark(&mut map, mark);
            Ok(gst::FlowSuccess::Ok)
        }
    }
}
