// SPDX-License-Identifier: MIT OR Apache-2.0

//! The buffer pool that the sink offers to upstream. Each buffer is a slot of the segment that is current when upstream
//! acquires the buffer.
//!
//! The pool keeps no buffers. `acquire_buffer` takes a free slot. If no slot is free, it neither waits nor fails, but
//! takes plain memory. A buffer is freed when it is released, and its slot is freed with it.

use std::sync::{
    Arc, LazyLock, Mutex, Weak,
    atomic::{AtomicBool, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::prelude::*;
use rsshm_channel::Writer;

use crate::{caps, metas::no_slot, planes::Planes, sync::lock};

/// The configuration of a pool.
#[derive(Clone, Debug)]
struct Config {
    /// The picture without padding; `None` if the caps are not raw video.
    picture: Option<gst_video::VideoInfo>,
    /// The size of a buffer in bytes, with padding.
    size: usize,
    /// The picture with the requested padding and strides; set if buffers get a VideoMeta.
    layout: Option<gst_video::VideoInfo>,
    params: gst::AllocationParams,
}

impl Config {
    /// Reads the configuration that upstream asks for, and completes its alignment; `None` if the alignment is
    /// impossible.
    fn new(config: &mut gst::BufferPoolConfigRef, caps: &gst::CapsRef, mut size: usize) -> Option<Self> {
        let wants_meta = config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
        let mut layout = None;
        let picture = caps::raw_video(caps);
        if let Some(mut info) = picture.clone() {
            if wants_meta
                && config.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT)
                && let Some(mut alignment) = config.video_alignment()
            {
                info.align(&mut alignment).ok()?;
                config.set_video_alignment(&alignment);
                // If each buffer is a single field, the size that `align` computes has only half of the padding rows at
                // the top.
                size = size.max(Planes::default_of(&info).size_of(&info).unwrap_or(0));
            }
            size = size.max(info.size());
            layout = wants_meta.then_some(info);
        }
        let params = config
            .allocator()
            .map_or_else(gst::AllocationParams::default, |(_, params)| params);
        Some(Self {
            picture,
            size,
            layout,
            params,
        })
    }

    /// The size of a buffer's memory in bytes, with the prefix and the padding that the allocator adds.
    fn memory_size(&self) -> usize {
        let around = self.params.prefix().saturating_add(self.params.padding());
        self.size.saturating_add(around)
    }
}

/// The video format that the sink currently receives. All pools of the sink share it.
///
/// The caps of a pool may differ from this format, for two reasons. The stream may be about to change to the pool's
/// caps. Or an element between the user of the pool and the sink, such as videorate, may change the caps of buffers. A
/// buffer is a slot only if the channel's caps describe its picture.
#[derive(Debug, Default)]
pub(super) struct CurrentFormat(Mutex<Option<gst_video::VideoInfo>>);

impl CurrentFormat {
    pub(super) fn set(&self, info: Option<gst_video::VideoInfo>) {
        *lock(&self.0) = info;
    }

    /// Whether the pictures that `info` describes are like those of the current format: in pixel format, size and
    /// interlacing.
    fn matches(&self, info: &gst_video::VideoInfo) -> bool {
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
            .is_some_and(|current| picture(current) == picture(info))
    }
}

/// The implementation of [`Pool`].
#[derive(Default)]
pub struct RsShmPool {
    writer: Mutex<Weak<Writer>>,
    current_format: Mutex<Arc<CurrentFormat>>,
    config: Mutex<Option<Arc<Config>>>,
    /// Whether buffers may be acquired. The stores are Release, and pair with the Acquire load. A thread that sees `true`
    /// also sees the changes that `start` or `flush_stop` made before the store. A thread that still sees the old value
    /// gets one buffer too many or one too few. This does no harm, because buffers are freed on release.
    is_active: AtomicBool,
}

glib::wrapper! {
    /// A buffer pool whose buffers are slots.
    pub struct Pool(ObjectSubclass<RsShmPool>) @extends gst::BufferPool, gst::Object;
}

impl Pool {
    /// Creates a pool whose buffers are slots of `writer` and have the given caps.
    pub(super) fn new(
        writer: &Arc<Writer>,
        current_format: &Arc<CurrentFormat>,
        caps: &gst::Caps,
        size: u32,
    ) -> Result<Self, glib::BoolError> {
        let pool = glib::Object::new::<Self>();
        *lock(&pool.imp().current_format) = Arc::clone(current_format);
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

// The functions in this block must not panic. C code calls them, so a panic in them aborts the whole program.
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
        let Some(completed) = Config::new(config, &caps, size as usize) else {
            return false;
        };
        let Ok(announced) = u32::try_from(completed.size) else {
            return false;
        };
        config.set_params(Some(&caps), announced, min, 0);
        if let Some(writer) = lock(&self.writer).upgrade() {
            writer.upstream().set_min_slot_size(completed.memory_size());
        }
        *lock(&self.config) = Some(Arc::new(completed));
        self.parent_set_config(config)
    }

    /// Does not call the base class's `start`, because it would fill the pool's queue with slots that nobody uses.
    fn start(&self) -> bool {
        // Release: this store and those below pair with the acquire load in `acquire_buffer`.
        self.is_active.store(true, Ordering::Release);
        true
    }

    fn stop(&self) -> bool {
        self.is_active.store(false, Ordering::Release);
        self.parent_stop()
    }

    fn flush_start(&self) {
        self.is_active.store(false, Ordering::Release);
        self.parent_flush_start();
    }

    fn flush_stop(&self) {
        self.parent_flush_stop();
        self.is_active.store(true, Ordering::Release);
    }

    fn acquire_buffer(&self, _params: Option<&gst::BufferPoolAcquireParams>) -> Result<gst::Buffer, gst::FlowError> {
        // Acquire: pairs with the release stores in `start`, `stop`, `flush_start` and `flush_stop`.
        if !self.is_active.load(Ordering::Acquire) {
            return Err(gst::FlowError::Flushing);
        }
        let config = lock(&self.config).clone().ok_or(gst::FlowError::NotNegotiated)?;
        let (memory, is_slot) = self.allocate(&config)?;
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
            no_slot::add(target);
        }
        Ok(buffer)
    }

    /// Frees the buffer. A recycled buffer would let upstream draw into a slot that readers still use.
    fn release_buffer(&self, buffer: gst::Buffer) {
        drop(buffer);
    }
}

impl RsShmPool {
    /// Returns memory for one buffer, and whether this memory is a slot.
    fn allocate(&self, config: &Config) -> Result<(gst::Memory, bool), gst::FlowError> {
        let writer = lock(&self.writer).upgrade();
        let current = Arc::clone(&lock(&self.current_format));
        // An error of `claim` is ignored here, because the sink gets the same error when it publishes the frame, and
        // then reports it.
        let slot = writer
            .filter(|_| config.picture.as_ref().is_some_and(|info| current.matches(info)))
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
