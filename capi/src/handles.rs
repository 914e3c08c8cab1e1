// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles: the opaque pointers of the C interface.
//!
//! A handle looks like a pointer. Its bits are a place in a table of this module, and how many times that place was used.
//! So the library recognises a handle that is NULL, closed, invented, of another type, or inherited by a fork.
//!
//! ```text
//! bit 63      56 55  52 51    44 43        20 19       0
//!    |  marker  | kind |  forks |  generation |  index  |
//! ```

use std::{
    ffi::c_void,
    marker::PhantomData,
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering},
    },
};

use nix::libc;

use crate::{
    frame::FrameObject,
    observer::ObserverObject,
    reader::ReaderObject,
    slot::SlotObject,
    status::{Failure, Status},
    writing::WriterObject,
};

/// The upper byte of each handle. No address has this byte, so a program that uses a handle as an address ends at once.
const MARKER: u64 = 0x5A;
const INDEX_BITS: u32 = 20;
const GENERATION_BITS: u32 = 24;
const FORK_BITS: u32 = 8;
const KIND_BITS: u32 = 4;
const MAX_INDEX: usize = (1 << INDEX_BITS) - 1;
const MAX_GENERATION: u32 = (1 << GENERATION_BITS) - 1;
const FORK_MASK: u32 = (1 << FORK_BITS) - 1;

const _: () = assert!(size_of::<*mut c_void>() == 8, "a handle needs pointers of 64 bits");

/// The names of the types of handles. The kind of a handle is an index of this list, plus 1.
const KIND_NAMES: [&str; 5] = ["reader", "writer", "frame", "slot", "observer"];

/// A type that programs use by handles.
pub(crate) trait Object: Send + Sync + Sized + 'static {
    /// The kind, from 1 on.
    const KIND: u64;

    fn table(registry: &Registry) -> &Table<Self>;
}

/// A handle as C passes it.
#[repr(transparent)]
pub(crate) struct Handle<T> {
    pointer: *mut c_void,
    object: PhantomData<T>,
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> Handle<T> {
    /// The handle NULL.
    pub(crate) const NULL: Self = Self {
        pointer: ptr::null_mut(),
        object: PhantomData,
    };

    /// The handle with these bits.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self {
            pointer: ptr::without_provenance_mut(bits as usize),
            object: PhantomData,
        }
    }

    pub(crate) fn bits(self) -> u64 {
        self.pointer.addr() as u64
    }
}

/// All objects of this process that have a handle.
#[derive(Default)]
pub(crate) struct Registry {
    readers: Table<ReaderObject>,
    writers: Table<WriterObject>,
    frames: Table<FrameObject>,
    slots: Table<SlotObject>,
    observers: Table<ObserverObject>,
}

macro_rules! objects {
    ($($type:ty: $kind:literal, $field:ident;)*) => {
        $(impl Object for $type {
            const KIND: u64 = $kind;

            fn table(registry: &Registry) -> &Table<Self> {
                &registry.$field
            }
        })*
    };
}

objects! {
    ReaderObject: 1, readers;
    WriterObject: 2, writers;
    FrameObject: 3, frames;
    SlotObject: 4, slots;
    ObserverObject: 5, observers;
}

/// The objects of one type.
pub(crate) struct Table<T>(Mutex<Entries<T>>);

struct Entries<T> {
    entries: Vec<Entry<T>>,
    /// The indices of entries without an object.
    free: Vec<usize>,
}

struct Entry<T> {
    /// How many objects the entry has had.
    generation: u32,
    references: u32,
    object: Option<Arc<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Mutex::new(Entries {
            entries: Vec::new(),
            free: Vec::new(),
        }))
    }
}

impl<T> Table<T> {
    fn lock(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many forks lie between the process that used this library first and this process.
static FORKS: AtomicU32 = AtomicU32::new(0);
/// The registry of this process; null before the first handle.
static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

extern "C" fn in_child() {
    // Relaxed, here and below: a child starts with one thread.
    FORKS.fetch_add(1, Ordering::Relaxed);
    // The child leaks the registry of its parent, because another thread may have locked it at the fork. What the
    // objects own belongs to the parent.
    REGISTRY.store(ptr::null_mut(), Ordering::Relaxed);
}

fn registry() -> &'static Registry {
    // Acquire: pairs with the release of the exchange in `make_registry`, so that the registry is complete.
    let found = REGISTRY.load(Ordering::Acquire);
    if found.is_null() {
        return make_registry();
    }
    // SAFETY: the pointer comes from `Box::into_raw`, and a registry that was stored is never freed.
    unsafe { &*found }
}

#[cold]
fn make_registry() -> &'static Registry {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    // Relaxed: the flag protects no other value.
    if !IS_REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the handler has the signature that `pthread_atfork` expects, and the library stays loaded. It stores
        // two atomics, which is allowed in a child that was forked from a program with threads.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
    let new = Box::into_raw(Box::<Registry>::default());
    // Release: pairs with the acquire loads. Acquire: another thread may have stored its registry.
    let found = match REGISTRY.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(other) => {
            // SAFETY: `new` comes from `Box::into_raw` above, and no other thread has it.
            drop(unsafe { Box::from_raw(new) });
            other
        }
    };
    // SAFETY: as in `registry`.
    unsafe { &*found }
}

/// The upper bits of all handles of this type that this process has made.
fn upper_bits<T: Object>() -> u64 {
    // Relaxed: the count changes only in a child that has one thread.
    let forks = u64::from(FORKS.load(Ordering::Relaxed) & FORK_MASK);
    (MARKER << KIND_BITS | T::KIND) << FORK_BITS | forks
}

/// The place that a handle names, and how many objects this place had. `None` if the handle cannot be one of this type.
fn locate<T: Object>(handle: Handle<T>) -> Option<(usize, u32)> {
    let bits = handle.bits();
    let generation = (bits >> INDEX_BITS) as u32 & MAX_GENERATION;
    (bits >> (INDEX_BITS + GENERATION_BITS) == upper_bits::<T>()).then_some((bits as usize & MAX_INDEX, generation))
}

/// Why a handle does not name an object.
#[cold]
fn explain<T: Object>(handle: Handle<T>) -> Failure {
    let wanted = kind_name(T::KIND).unwrap_or_default();
    let bits = handle.bits();
    if bits == 0 {
        return Failure::new(
            Status::Handle,
            format!("the {wanted} is NULL; check the status of the call that should have returned it"),
        );
    }
    let kind = bits >> (INDEX_BITS + GENERATION_BITS + FORK_BITS) & ((1 << KIND_BITS) - 1);
    let found = kind_name(kind).filter(|_| bits >> 56 == MARKER);
    let Some(found) = found else {
        return Failure::new(
            Status::Handle,
            format!("{bits:#x} is not a handle of librsshm; pass a {wanted} that the library returned"),
        );
    };
    if kind != T::KIND {
        return Failure::new(
            Status::Handle,
            format!("this is the handle of a {found}; pass a {wanted}"),
        );
    }
    if bits >> (INDEX_BITS + GENERATION_BITS) != upper_bits::<T>() {
        return Failure::new(
            Status::Forked,
            format!("the {wanted} belongs to the parent process; after a fork, the child opens its own handles"),
        );
    }
    Failure::new(
        Status::Handle,
        format!("this {wanted} was already closed or released; do not use a handle after that"),
    )
}

fn kind_name(kind: u64) -> Option<&'static str> {
    KIND_NAMES.get((kind as usize).checked_sub(1)?).copied()
}

impl<T: Object> Entries<T> {
    /// The entry of a handle whose object is still there.
    fn entry(&mut self, handle: Handle<T>) -> Option<&mut Entry<T>> {
        let (index, generation) = locate(handle)?;
        let entry = self.entries.get_mut(index)?;
        (entry.generation == generation && entry.object.is_some()).then_some(entry)
    }
}

/// Gives `object` a handle with one reference.
pub(crate) fn insert<T: Object>(object: Arc<T>) -> Result<Handle<T>, Failure> {
    let mut entries = T::table(registry()).lock();
    let index = match entries.free.pop() {
        Some(index) => index,
        None if entries.entries.len() > MAX_INDEX => {
            return Err(Failure::new(
                Status::NoMemory,
                format!(
                    "the program has {} open handles; release those that it does not need",
                    MAX_INDEX + 1
                ),
            ));
        }
        None => {
            entries.entries.push(Entry {
                generation: 0,
                references: 0,
                object: None,
            });
            entries.entries.len() - 1
        }
    };
    let entry = &mut entries.entries[index];
    entry.generation = (entry.generation + 1) & MAX_GENERATION;
    entry.references = 1;
    entry.object = Some(object);
    Ok(Handle::from_bits(
        upper_bits::<T>() << (INDEX_BITS + GENERATION_BITS) | u64::from(entry.generation) << INDEX_BITS | index as u64,
    ))
}

/// The object of a handle.
pub(crate) fn get<T: Object>(handle: Handle<T>) -> Result<Arc<T>, Failure> {
    let mut entries = T::table(registry()).lock();
    let object = entries.entry(handle).and_then(|entry| entry.object.clone());
    object.ok_or_else(|| explain(handle))
}

/// Adds a reference to the object of a handle.
pub(crate) fn add_reference<T: Object>(handle: Handle<T>) -> Result<(), Failure> {
    let mut entries = T::table(registry()).lock();
    let entry = entries.entry(handle).ok_or_else(|| explain(handle))?;
    entry.references = entry
        .references
        .checked_add(1)
        .ok_or_else(|| Failure::state("there are too many references; release each of them"))?;
    Ok(())
}

/// Drops a reference. With the last one, the handle ends, and the object is returned.
pub(crate) fn release<T: Object>(handle: Handle<T>) -> Result<Option<Arc<T>>, Failure> {
    let mut entries = T::table(registry()).lock();
    let entry = entries.entry(handle).ok_or_else(|| explain(handle))?;
    entry.references -= 1;
    if entry.references > 0 {
        return Ok(None);
    }
    let object = entry.object.take();
    entries.free.push(handle.bits() as usize & MAX_INDEX);
    Ok(object)
}
