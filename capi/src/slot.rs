// SPDX-License-Identifier: MIT OR Apache-2.0

//! Slots that a program draws into: the functions `rsshm_slot_...`, and the copies into slots.

use std::{
    ffi::c_int,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
};

use rsshm_channel::{Copier, Error, FrameDescriptor, Slot};

use crate::{
    arguments::Sized32,
    format::WriterFormat,
    frame::{CPlane, c_planes},
    handles::{self, Handle},
    publish_info::CPublishInfo,
    status::{Failure, Status, enter},
    stream::{MAX_PLANES, PlanePlace},
    writing::WriterObject,
};

/// `rsshm_slot_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CSlotInfo {
    struct_size: u32,
    pub(crate) plane_count: u32,
    pub(crate) data: *mut u8,
    pub(crate) size: usize,
    pub(crate) planes: [CPlane; MAX_PLANES],
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and raw pointers.
unsafe impl Sized32 for CSlotInfo {
    const NAME: &str = "rsshm_slot_info";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// A claimed slot, and what became of it.
pub(crate) struct SlotObject {
    writer: Arc<WriterObject>,
    format: Arc<WriterFormat>,
    claim: Mutex<Claim>,
    /// The first byte that the program may write.
    data: *mut u8,
    size: usize,
}

/// The memory of a slot, and whether its frame was published.
struct Claim {
    memory: ClaimedMemory,
    is_published: bool,
}

/// The memory that a program draws into.
enum ClaimedMemory {
    /// A slot of the channel.
    Slot(Slot),
    /// Memory of the process, because readers held all slots. A publish copies it.
    Spare(Vec<u8>),
}

// SAFETY: `data` points into the memory of the claim, which belongs to the value and may be used from any thread.
unsafe impl Send for SlotObject {}
// SAFETY: as above. The value itself never uses the bytes except in a publish.
unsafe impl Sync for SlotObject {}

impl SlotObject {
    /// Claims a slot for a frame of `size` bytes; 0 means the size of the caps. Otherwise the status says why there is
    /// none.
    pub(crate) fn claim(writer: &Arc<WriterObject>, size: usize) -> Result<Result<Self, Status>, Failure> {
        let format = writer.format()?;
        let size = format.size_of(size)?;
        let mut memory = match writer.claim(size)? {
            Ok(slot) => ClaimedMemory::Slot(slot),
            Err(Status::Dropped) if writer.has_spare_memory() => ClaimedMemory::Spare(spare_memory(size)?),
            Err(status) => {
                record_if_lost(writer, status);
                return Ok(Err(status));
            }
        };
        let data = match &mut memory {
            ClaimedMemory::Slot(slot) => slot.as_mut().as_mut_ptr(),
            ClaimedMemory::Spare(bytes) => bytes.as_mut_ptr(),
        };
        Ok(Ok(Self {
            writer: Arc::clone(writer),
            format,
            claim: Mutex::new(Claim {
                memory,
                is_published: false,
            }),
            data,
            size,
        }))
    }

    pub(crate) fn info(&self) -> CSlotInfo {
        let places = if self.size >= self.format.frame_size() {
            self.format.places()
        } else {
            &[]
        };
        CSlotInfo {
            struct_size: 0,
            plane_count: places.len() as u32,
            data: self.data,
            size: self.size,
            planes: c_planes(self.data, places),
        }
    }

    /// The claim, if no other thread publishes it at this moment.
    fn try_claim(&self) -> Result<MutexGuard<'_, Claim>, Failure> {
        match self.claim.try_lock() {
            Ok(claim) => Ok(claim),
            Err(TryLockError::Poisoned(poisoned)) => Ok(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => Err(Failure::state("another thread publishes this slot")),
        }
    }

    /// Publishes the frame that the program has drawn.
    ///
    /// # Safety
    /// The metadata of `info` is NULL, or can be read. Its `seq` is NULL or a variable.
    unsafe fn publish(&self, info: &CPublishInfo) -> Result<Status, Failure> {
        let size = info.size_in(self.size)?;
        // SAFETY: as the caller guarantees.
        let metadata = unsafe { info.metadata() }?;
        let descriptor = self.format.describe(info.descriptor(size));
        let mut claim = self.try_claim()?;
        if claim.is_published {
            return Err(Failure::state(
                "the slot is already published; claim another one for the next frame",
            ));
        }
        let published = match &mut claim.memory {
            ClaimedMemory::Slot(slot) => match self.writer.channel().publish(slot, descriptor, metadata) {
                // The writer has made another segment since the claim, for example because another program had removed
                // the channel's files. The frame is copied there.
                Err(Error::NotPublishable { .. }) if !slot.is_published() && self.is_current() => {
                    self.copy(slot.as_mut(), descriptor, metadata)?
                }
                published => Ok(published?),
            },
            ClaimedMemory::Spare(_) if !self.is_current() => {
                return Err(Failure::state(
                    "the caps have changed since the claim; claim another slot",
                ));
            }
            ClaimedMemory::Spare(bytes) => self.copy(bytes, descriptor, metadata)?,
        };
        claim.is_published = published.is_ok();
        // SAFETY: as the caller guarantees.
        Ok(unsafe { info.finish(published) })
    }

    /// Copies the first bytes of `from` into another slot, and publishes that.
    fn copy(&self, from: &[u8], descriptor: FrameDescriptor, metadata: &[u8]) -> Result<Result<u64, Status>, Failure> {
        let size = descriptor.size as usize;
        let bytes = from.get(..size).unwrap_or_default();
        copy_and_publish(&self.writer, descriptor, metadata, |to, copier| copier.copy(bytes, to))
    }

    /// Whether the caps are still those of the claim.
    fn is_current(&self) -> bool {
        self.writer
            .format()
            .is_ok_and(|format| Arc::ptr_eq(&format, &self.format))
    }

    /// Copies a frame into a slot and publishes it.
    ///
    /// # Safety
    /// The rows of all planes can be read, and so can the metadata of `info`. Its `seq` is NULL or a variable.
    pub(crate) unsafe fn write_planes(
        writer: &WriterObject,
        planes: &[CPlane],
        info: &CPublishInfo,
    ) -> Result<Status, Failure> {
        let format = writer.format()?;
        let places = format.places();
        if places.is_empty() {
            return Err(Failure::state(
                "the caps are not raw video, so the frame has no planes; call rsshm_writer_write_bytes",
            ));
        }
        if places.len() != planes.len() {
            return Err(Failure::argument(format!(
                "there are {} planes, a frame of these caps has {}",
                planes.len(),
                places.len()
            )));
        }
        for (index, (plane, place)) in planes.iter().zip(places).enumerate() {
            check_plane(index, plane, place)?;
        }
        // SAFETY: as the caller guarantees.
        let metadata = unsafe { info.metadata() }?;
        let size = format.frame_size();
        let descriptor = format.describe(info.descriptor(size));
        let published = copy_and_publish(writer, descriptor, metadata, |to, copier| {
            for (plane, place) in planes.iter().zip(places) {
                // SAFETY: as the caller guarantees; `check_plane` has checked the number and the size of the rows.
                unsafe { copy_plane(plane, place, to, copier) };
            }
        })?;
        // SAFETY: as the caller guarantees.
        Ok(unsafe { info.finish(published) })
    }

    /// Copies the bytes of a frame into a slot and publishes the frame.
    ///
    /// # Safety
    /// The metadata of `info` is NULL, or can be read. Its `seq` is NULL or a variable.
    pub(crate) unsafe fn write_bytes(
        writer: &WriterObject,
        bytes: &[u8],
        info: &CPublishInfo,
    ) -> Result<Status, Failure> {
        let format = writer.format()?;
        let size = format.size_of(bytes.len())?;
        if size != bytes.len() {
            return Err(Failure::new(Status::Caps, "the frame has no bytes"));
        }
        // SAFETY: as the caller guarantees.
        let metadata = unsafe { info.metadata() }?;
        let descriptor = format.describe(info.descriptor(size));
        let published = copy_and_publish(writer, descriptor, metadata, |to, copier| copier.copy(bytes, to))?;
        // SAFETY: as the caller guarantees.
        Ok(unsafe { info.finish(published) })
    }
}

/// Memory of the process for a frame.
fn spare_memory(size: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(size)
        .map_err(|_| Failure::new(Status::NoMemory, format!("no memory for a frame of {size} bytes")))?;
    bytes.resize(size, 0);
    Ok(bytes)
}

/// Counts a frame that is lost because readers hold all slots.
fn record_if_lost(writer: &WriterObject, status: Status) {
    if status == Status::Dropped {
        writer.channel().record_drop();
    }
}

/// Claims a slot, lets `draw` fill it, publishes it and returns the seq. If the segment changes in between, this is done
/// once more.
fn copy_and_publish(
    writer: &WriterObject,
    descriptor: FrameDescriptor,
    metadata: &[u8],
    draw: impl Fn(&mut [u8], Copier),
) -> Result<Result<u64, Status>, Failure> {
    let size = descriptor.size as usize;
    let mut is_repeated = false;
    loop {
        let mut slot = match writer.claim(size)? {
            Ok(slot) => slot,
            Err(status) => {
                record_if_lost(writer, status);
                return Ok(Err(status));
            }
        };
        let copier = slot.copier();
        draw(slot.as_mut(), copier);
        match writer.channel().publish(&slot, descriptor, metadata) {
            Err(Error::NotPublishable { .. }) if !is_repeated => is_repeated = true,
            published => return Ok(Ok(published?)),
        }
    }
}

/// Checks that the program's plane has the rows of the frame's plane. Sizes of 0 mean those of the caps.
fn check_plane(index: usize, plane: &CPlane, place: &PlanePlace) -> Result<(), Failure> {
    if plane.data.is_null() {
        return Err(Failure::argument(format!("the data of plane {index} is NULL")));
    }
    for (what, found, wanted) in [
        ("row_bytes", plane.row_bytes as usize, place.row_bytes),
        ("rows", plane.rows as usize, place.rows),
    ] {
        if found != 0 && found != wanted {
            return Err(Failure::argument(format!(
                "{what} of plane {index} is {found}, the caps need {wanted}; pass 0 or {wanted}"
            )));
        }
    }
    if plane.stride.unsigned_abs() < place.row_bytes as u64 && place.rows > 1 {
        return Err(Failure::argument(format!(
            "the stride of plane {index} is {}, but a row has {} bytes",
            plane.stride, place.row_bytes
        )));
    }
    Ok(())
}

/// Copies the rows of a plane to their places in a slot.
///
/// # Safety
/// All rows of the plane can be read.
unsafe fn copy_plane(plane: &CPlane, place: &PlanePlace, to: &mut [u8], copier: Copier) {
    if plane.stride == place.stride as i64 && place.stride > 0 && place.rows > 0 {
        let size = (place.rows - 1) * place.stride as usize + place.row_bytes;
        // SAFETY: the rows and the bytes between them are one piece of the program's memory.
        let from = unsafe { std::slice::from_raw_parts(plane.data, size) };
        if let Some(to) = to.get_mut(place.offset..place.offset + size) {
            copier.copy(from, to);
        }
        return;
    }
    for row in 0..place.rows {
        // SAFETY: the caller guarantees this row.
        let from = unsafe {
            let data = plane.data.wrapping_offset(row as isize * plane.stride as isize);
            std::slice::from_raw_parts(data, place.row_bytes)
        };
        let start = place.offset.wrapping_add_signed(row as isize * place.stride);
        if let Some(to) = to.get_mut(start..start.saturating_add(place.row_bytes)) {
            copier.copy(from, to);
        }
    }
}

/// `rsshm_slot_publish`.
///
/// # Safety
/// `info` is NULL, or points to a structure of the size in its first field. The metadata of the structure can be read, and
/// its `seq` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_slot_publish(slot: Handle<SlotObject>, info: *const CPublishInfo) -> c_int {
    enter("rsshm_slot_publish", || {
        // SAFETY: as the caller guarantees.
        let info = unsafe { CPublishInfo::read_for_slot(info) };
        if info.as_ref().is_ok_and(CPublishInfo::keeps_slot) {
            let slot = handles::get(slot)?;
            // SAFETY: as the caller guarantees.
            return unsafe { slot.publish(&info?) };
        }
        // The claim ends in each case, so that a program that ignores an error does not keep the slot.
        match handles::release(slot)? {
            // SAFETY: as the caller guarantees.
            Some(slot) => unsafe { slot.publish(&info?) },
            None => Ok(Status::Ok),
        }
    })
}

/// `rsshm_slot_release`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_slot_release(slot: Handle<SlotObject>) -> c_int {
    enter("rsshm_slot_release", || handles::release(slot).map(|_| Status::Ok))
}
