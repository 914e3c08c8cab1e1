//! The producer's source: draws frames when they are due.

use std::sync::{Mutex, OnceLock, PoisonError};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};

use crate::{
    case::Mode,
    frame::{self, Mark},
    order::{Order, Sabotage},
    pace::{self, Pace},
};

/// Buffers of its own, in turn, so that a frame's memory has left the processor's caches when its turn comes again. No more of
/// them either: shmsink waits for ever where a pool keeps all of its memory.
const OWN_BUFFERS: u32 = 8;

glib::wrapper! {
    pub struct Source(ObjectSubclass<imp::Source>) @extends gst_base::BaseSrc, gst::Element, gst::Object;
}

impl Source {
    pub fn new(order: &Order, pace: Pace) -> Result<Self, String> {
        let caps: gst::Caps = order.caps().parse().map_err(|_| "the caps are wrong")?;
        let source: Self = glib::Object::new();
        let setup = imp::Setup {
            caps,
            order: order.clone(),
        };
        if source.imp().setup.set(setup).is_err() {
            return Err("the source is set up twice".into());
        }
        *source.imp().pace.lock().unwrap_or_else(PoisonError::into_inner) = Some(pace);
        Ok(source)
    }
}

mod imp {
    use super::*;

    pub struct Setup {
        pub caps: gst::Caps,
        pub order: Order,
    }

    #[derive(Default)]
    pub struct Source {
        pub setup: OnceLock<Setup>,
        /// Out of it while a frame is waited for.
        pub pace: Mutex<Option<Pace>>,
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
            if setup.order.case.mode == Mode::Foreign {
                while query.allocation_pools().next().is_some() {
                    query.remove_nth_allocation_pool(0);
                }
                while query.allocation_params().next().is_some() {
                    query.remove_nth_allocation_param(0);
                }
            }
            // A sink may offer an allocator and no pool; the base class gives that allocator to this pool.
            if !query.allocation_pools().any(|(pool, ..)| pool.is_some()) {
                while query.allocation_pools().next().is_some() {
                    query.remove_nth_allocation_pool(0);
                }
                let pool = gst_video::VideoBufferPool::new();
                query.add_allocation_pool(
                    Some(&pool),
                    setup.order.case.size.bytes() as u32,
                    OWN_BUFFERS,
                    OWN_BUFFERS,
                );
            }
            self.parent_decide_allocation(query)
        }

        // Not a PushSrc: its bindings have no default way to a buffer that fill() could be given.
        fn fill(
            &self,
            _offset: u64,
            _length: u32,
            buffer: &mut gst::BufferRef,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let pace = || self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let (Some(setup), Some(mut waiting)) = (self.setup.get(), pace().take()) else {
                return Err(gst::FlowError::Error);
            };
            let mut step = waiting.step();
            if step.is_some_and(|step| setup.order.spoils(Sabotage::Omit, step.number, step.first)) {
                step = waiting.step();
            }
            *pace() = Some(waiting);
            let mut step = step.ok_or(gst::FlowError::Eos)?;
            let spoils = |how| setup.order.spoils(how, step.number, step.first);
            let (renumber, corrupt) = (spoils(Sabotage::Renumber), spoils(Sabotage::Corrupt));
            if renumber {
                step.number -= 1;
            }
            let time = self.obj().current_running_time();
            buffer.set_pts(time);
            let mut map = buffer.map_writable().map_err(|_| {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Write,
                    ["The frame's memory cannot be written"]
                );
                gst::FlowError::Error
            })?;
            frame::draw(&mut map, step.number);
            if corrupt {
                frame::corrupt(&mut map);
            }
            let mark = Mark {
                number: step.number,
                sent_ns: pace::now_ns(),
                first: step.first,
                end: step.end,
            };
            frame::stamp(&mut map, mark);
            Ok(gst::FlowSuccess::Ok)
        }
    }
}
