//! The pool that upstream draws from: each buffer is a slot of the segment that is current then.
//!
//! It has no buffers of its own. Acquiring takes a slot where there is one and plain memory where there is none, so it
//! never waits and never fails for want of slots; a released buffer is freed, and the slot goes with its memory.

use std::sync::{
    Arc, LazyLock, Mutex, Weak,
    atomic::{AtomicBool, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::prelude::*;
use rsshm_channel::Writer;

use crate::{caps, metas::NO_SLOT_META, planes::Planes, sync::lock};

/// What the configuration asks for.
#[derive(Clone, Debug)]
struct Config {
    /// What is drawn, without padding; `None` for all that is not raw video.
    picture: Option<gst_video::VideoInfo>,
    size: usize,
    /// With padding and strides as asked for; set where buffers are to have a VideoMeta.
    layout: Option<gst_video::VideoInfo>,
    params: gst::AllocationParams,
}

impl Config {
    /// Bytes of memory behind a buffer.
    fn memory_size(&self) -> usize {
        let around = self.params.prefix().saturating_add(self.params.padding());
        self.size.saturating_add(around)
    }
}

/// What the sink has been told that it gets, for all of its pools.
///
/// A pool's own caps may be others: those that come next, or those before an element that passes buffers on with a
/// caps change (videorate). Slots are for pictures that the channel's format describes.
#[derive(Debug, Default)]
pub(super) struct Accepted(Mutex<Option<gst_video::VideoInfo>>);

impl Accepted {
    pub(super) fn set(&self, info: Option<gst_video::VideoInfo>) {
        *lock(&self.0) = info;
    }

    fn has_picture(&self, info: &gst_video::VideoInfo) -> bool {
        let picture = |info: &gst_video::VideoInfo| {
            (
                info.format(),
                info.width(),
                info.height(),
                info.size(),
                info.interlace_mode(),
            )
        };
        lock(&self.0)
            .as_ref()
            .is_some_and(|accepted| picture(accepted) == picture(info))
    }
}

#[derive(Default)]
pub struct RsShmPool {
    writer: Mutex<Weak<Writer>>,
    accepted: Mutex<Arc<Accepted>>,
    config: Mutex<Option<Arc<Config>>>,
    active: AtomicBool,
}

glib::wrapper! {
    pub struct Pool(ObjectSubclass<RsShmPool>) @extends gst::BufferPool, gst::Object;
}

impl Pool {
    /// A pool in front of `writer`, for buffers of `caps`.
    pub(super) fn new(
        writer: &Arc<Writer>,
        accepted: &Arc<Accepted>,
        caps: &gst::Caps,
        size: u32,
    ) -> Result<Self, glib::BoolError> {
        let pool = glib::Object::new::<Self>();
        *lock(&pool.imp().accepted) = Arc::clone(accepted);
        *lock(&pool.imp().writer) = Arc::downgrade(writer);
        let mut config = pool.config();
        config.set_params(Some(caps), size, 0, 0);
        pool.set_config(config)?;
        Ok(pool)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RsShmPool {
    const NAME: &'static str = "GstRsShmPool";
    type Type = Pool;
    type ParentType = gst::BufferPool;
}

impl ObjectImpl for RsShmPool {}
impl GstObjectImpl for RsShmPool {}

// Nothing here may panic: these functions are called by C code that a panic would end with the whole program.
impl BufferPoolImpl for RsShmPool {
    fn options() -> &'static [&'static str] {
        static OPTIONS: LazyLock<[&str; 2]> = LazyLock::new(|| {
            [
                gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_str(),
                gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT.as_str(),
            ]
        });
        &*OPTIONS
    }

    fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
        let Some((Some(caps), size, min, _)) = config.params() else {
            return false;
        };
        let mut size = size as usize;
        let wants_meta = config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
        let mut layout = None;
        let picture = caps::raw_video(&caps);
        if let Some(mut info) = picture.clone() {
            if wants_meta
                && config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT)
                && let Some(mut alignment) = config.video_alignment()
            {
                if info.align(&mut alignment).is_err() {
                    return false;
                }
                config.set_video_alignment(&alignment);
                // Of fields, `align` makes room for half of the rows only that it leaves free at the top.
                size = size.max(Planes::default_of(&info).size_of(&info).unwrap_or(0));
            }
            size = size.max(info.size());
            layout = wants_meta.then_some(info);
        }
        let params = config
            .allocator()
            .map_or_else(gst::AllocationParams::default, |(_, params)| params);
        let Ok(announced) = u32::try_from(size) else {
            return false;
        };
        config.set_params(Some(&caps), announced, min, 0);
        let config_of_slots = Config {
            picture,
            size,
            layout,
            params,
        };
        if let Some(writer) = lock(&self.writer).upgrade() {
            writer.upstream().set_min_slot_size(config_of_slots.memory_size());
        }
        *lock(&self.config) = Some(Arc::new(config_of_slots));
        self.parent_set_config(config)
    }

    /// The base class would fill its queue here, and take slots that nobody draws into.
    fn start(&self) -> bool {
        self.active.store(true, Ordering::Release);
        true
    }

    fn stop(&self) -> bool {
        self.active.store(false, Ordering::Release);
        self.parent_stop()
    }

    fn flush_start(&self) {
        self.active.store(false, Ordering::Release);
        self.parent_flush_start();
    }

    fn flush_stop(&self) {
        self.parent_flush_stop();
        self.active.store(true, Ordering::Release);
    }

    fn acquire_buffer(&self, _params: Option<&gst::BufferPoolAcquireParams>) -> Result<gst::Buffer, gst::FlowError> {
        if !self.active.load(Ordering::Acquire) {
            return Err(gst::FlowError::Flushing);
        }
        let config = lock(&self.config).clone().ok_or(gst::FlowError::NotNegotiated)?;
        let (memory, is_slot) = self.memory(&config)?;
        let mut buffer = gst::Buffer::new();
        let Some(target) = buffer.get_mut() else {
            return Err(gst::FlowError::Error);
        };
        target.append_memory(memory);
        if let Some(layout) = &config.layout {
            Planes::default_of(layout)
                .add_meta(target, layout)
                .map_err(|_| gst::FlowError::Error)?;
        }
        if !is_slot {
            let _ = gst::meta::CustomMeta::add(target, NO_SLOT_META);
        }
        Ok(buffer)
    }

    /// Frees the buffer. Recycled, it would be drawn into while readers have it.
    fn release_buffer(&self, buffer: gst::Buffer) {
        drop(buffer);
    }
}

impl RsShmPool {
    /// Memory for one buffer, and whether it is a slot.
    fn memory(&self, config: &Config) -> Result<(gst::Memory, bool), gst::FlowError> {
        let writer = lock(&self.writer).upgrade();
        let accepted = Arc::clone(&lock(&self.accepted));
        // An error to make the segment comes up again, and is told, when the sink gets the frame.
        let slot = writer
            .filter(|_| config.picture.as_ref().is_some_and(|info| accepted.has_picture(info)))
            .and_then(|writer| writer.upstream().claim(config.memory_size()).ok().flatten());
        let Some(slot) = slot else {
            let memory = gst::Allocator::find(None)
                .and_then(|allocator| allocator.alloc(config.size, Some(&config.params)).ok())
                .ok_or(gst::FlowError::Error)?;
            return Ok((memory, false));
        };
        let mut memory = gst::Memory::from_mut_slice(slot);
        if let Some(memory) = memory.get_mut() {
            let start = config.params.prefix();
            memory.resize(start..start + config.size);
        }
        Ok((memory, true))
    }
}
