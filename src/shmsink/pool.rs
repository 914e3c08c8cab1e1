// SPDX-License-Identifier: MIT OR Apache-2.0

//! The buffer pool that upstream draws from. Each of its buffers is a slot of the segment that is current when the
//! buffer is acquired.
//!
//! The pool keeps no buffers. `acquire_buffer` takes a free slot or, if there is none, plain memory. So it never waits,
//! and it does not fail if no slot is free. A released buffer is freed, and so is its slot.

use std::sync::{
    Arc, LazyLock, Mutex, Weak,
    atomic::{AtomicBool, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::prelude::*;
use rsshm_channel::Writer;

use crate::{caps, metas::NO_SLOT_META, planes::Planes, sync::lock};

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
    /// Reads the configuration that upstream asks for, and completes its alignment; `None` if that is impossible.
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
                // If each buffer is a single field, `align` counts only half of the rows that it leaves free at the
                // top.
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

/// The video format that the sink currently receives, shared with all of its pools.
///
/// The caps of a pool may differ from this format. They may be the next caps of the stream. They may also be the caps
/// before an element, such as videorate, that changes the caps of the buffers that it passes on. Slots are only for
/// pictures that the channel's caps describe.
#[derive(Debug, Default)]
pub(super) struct CurrentFormat(Mutex<Option<gst_video::VideoInfo>>);

impl CurrentFormat {
    pub(super) fn set(&self, info: Option<gst_video::VideoInfo>) {
        *lock(&self.0) = info;
    }

    /// Whether the pictures of `info` are those of the current format.
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
    /// Whether buffers may be acquired. The stores are Release and the load is Acquire, so a thread that sees `true`
    /// also sees the changes that `start` or `flush_stop` made before. A thread that still sees the old value gets one
    /// buffer too many or one too few. This does no harm, because buffers are freed on release.
    is_active: AtomicBool,
}

glib::wrapper! {
    /// A buffer pool whose buffers are slots.
    pub struct Pool(ObjectSubclass<RsShmPool>) @extends gst::BufferPool, gst::Object;
}

impl Pool {
    /// A pool of slots of `writer`, for buffers with these caps.
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

// Nothing here may panic, because C code calls these functions, and a panic there aborts the whole program.
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

    /// Does not call the base class, because that would fill its queue with slots that remain unused.
    fn start(&self) -> bool {
        // Release, here and below: pairs with the acquire load in `acquire_buffer`.
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
            let _ = gst::meta::CustomMeta::add(target, NO_SLOT_META);
        }
        Ok(buffer)
    }

    /// Frees the buffer. If it were recycled, upstream would draw into it while readers use it.
    fn release_buffer(&self, buffer: gst::Buffer) {
        drop(buffer);
    }
}

impl RsShmPool {
    /// Returns memory for one buffer, and whether it is a slot.
    fn allocate(&self, config: &Config) -> Result<(gst::Memory, bool), gst::FlowError> {
        let writer = lock(&self.writer).upgrade();
        let current = Arc::clone(&lock(&self.current_format));
        // If the segment cannot be created, the sink gets the same error when it publishes the frame, and reports it
        // then.
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
