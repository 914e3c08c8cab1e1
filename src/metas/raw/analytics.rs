// SPDX-License-Identifier: MIT OR Apache-2.0

//! GstAnalyticsRelationMeta, which GStreamer has from version 1.24 on.

use std::{
    ffi::{CStr, c_char, c_void},
    ptr,
    sync::LazyLock,
};

use gst::{
    MetaRef,
    ffi::GstBuffer,
    glib::{Quark, translate::FromGlib, translate::IntoGlib},
};

use crate::library;

/// The maximum number of items that are read from a meta.
const MAX_ITEMS: usize = 128;

/// What a GstAnalyticsRelationMeta says.
#[derive(Debug, Default)]
pub(in crate::metas) struct Analytics {
    /// `None` stands for an item that cannot be sent, such as a mask. A relation names an item by its index.
    pub(in crate::metas) items: Vec<Option<Item>>,
    pub(in crate::metas) relations: Vec<Relation>,
}

/// A piece of analysis.
#[derive(Debug)]
pub(in crate::metas) enum Item {
    Object {
        /// The type of the object; empty if it has none.
        name: String,
        /// x, y, width and height.
        rect: [i32; 4],
        rotation: f32,
        confidence: f32,
    },
    /// The names of classes, and how sure the classifier is of each.
    Classes(Vec<(String, f32)>),
    Track {
        id: u64,
        first_seen: u64,
        last_seen: u64,
        is_lost: bool,
    },
}

/// A relation between two items.
#[derive(Debug)]
pub(in crate::metas) struct Relation {
    pub(in crate::metas) from: u32,
    pub(in crate::metas) to: u32,
    /// GstAnalyticsRelTypes.
    pub(in crate::metas) kind: u32,
}

/// GstAnalyticsMtd, a reference to an item.
#[repr(C)]
struct Handle {
    id: u32,
    meta: *mut c_void,
}

impl Default for Handle {
    fn default() -> Self {
        Self {
            id: 0,
            meta: ptr::null_mut(),
        }
    }
}

type Meta = *mut c_void;

/// The functions of the analytics library.
#[derive(Clone, Copy)]
struct Functions {
    add: unsafe extern "C" fn(*mut GstBuffer) -> Meta,
    length: unsafe extern "C" fn(Meta) -> usize,
    item: unsafe extern "C" fn(Meta, u32, usize, *mut Handle) -> i32,
    item_type: unsafe extern "C" fn(*const Handle) -> usize,
    type_name: unsafe extern "C" fn(usize) -> *const c_char,
    relation: unsafe extern "C" fn(Meta, u32, u32) -> u32,
    set_relation: unsafe extern "C" fn(Meta, u32, u32, u32) -> i32,
    object_location: unsafe extern "C" fn(*const Handle, *mut i32, *mut i32, *mut i32, *mut i32, *mut f32) -> i32,
    object_name: unsafe extern "C" fn(*const Handle) -> u32,
    add_object: unsafe extern "C" fn(Meta, u32, i32, i32, i32, i32, f32, *mut Handle) -> i32,
    class_count: unsafe extern "C" fn(*const Handle) -> usize,
    class_level: unsafe extern "C" fn(*const Handle, usize) -> f32,
    class_name: unsafe extern "C" fn(*const Handle, usize) -> u32,
    add_classes: unsafe extern "C" fn(Meta, usize, *const f32, *const u32, *mut Handle) -> i32,
    track: unsafe extern "C" fn(*const Handle, *mut u64, *mut u64, *mut u64, *mut i32) -> i32,
    add_track: unsafe extern "C" fn(Meta, u64, u64, *mut Handle) -> i32,
    set_last_seen: unsafe extern "C" fn(*mut Handle, u64) -> i32,
    set_lost: unsafe extern "C" fn(*mut Handle) -> i32,
    /// From version 1.26 on.
    rotated: Option<RotatedFunctions>,
}

type RotatedLocation =
    unsafe extern "C" fn(*const Handle, *mut i32, *mut i32, *mut i32, *mut i32, *mut f32, *mut f32) -> i32;
type AddRotated = unsafe extern "C" fn(Meta, u32, i32, i32, i32, i32, f32, f32, *mut Handle) -> i32;

/// The functions for rotated objects.
#[derive(Clone, Copy)]
struct RotatedFunctions {
    location: RotatedLocation,
    add: AddRotated,
}

static FUNCTIONS: LazyLock<Option<Functions>> = LazyLock::new(find_functions);

fn find_functions() -> Option<Functions> {
    /// # Safety
    ///
    /// As for `library::function`.
    unsafe fn find<F: Copy>(name: &CStr) -> Option<F> {
        // SAFETY: the caller vouches for the type.
        unsafe { library::function(library::ANALYTICS, name) }
    }
    // SAFETY: these are the types of the functions.
    unsafe {
        let location = find(c"gst_analytics_od_mtd_get_oriented_location");
        let add_rotated = find(c"gst_analytics_relation_meta_add_oriented_od_mtd");
        Some(Functions {
            add: find(c"gst_buffer_add_analytics_relation_meta")?,
            length: find(c"gst_analytics_relation_get_length")?,
            item: find(c"gst_analytics_relation_meta_get_mtd")?,
            item_type: find(c"gst_analytics_mtd_get_mtd_type")?,
            type_name: find(c"gst_analytics_mtd_type_get_name")?,
            relation: find(c"gst_analytics_relation_meta_get_relation")?,
            set_relation: find(c"gst_analytics_relation_meta_set_relation")?,
            object_location: find(c"gst_analytics_od_mtd_get_location")?,
            object_name: find(c"gst_analytics_od_mtd_get_obj_type")?,
            add_object: find(c"gst_analytics_relation_meta_add_od_mtd")?,
            class_count: find(c"gst_analytics_cls_mtd_get_length")?,
            class_level: find(c"gst_analytics_cls_mtd_get_level")?,
            class_name: find(c"gst_analytics_cls_mtd_get_quark")?,
            add_classes: find(c"gst_analytics_relation_meta_add_cls_mtd")?,
            track: find(c"gst_analytics_tracking_mtd_get_info")?,
            add_track: find(c"gst_analytics_relation_meta_add_tracking_mtd")?,
            set_last_seen: find(c"gst_analytics_tracking_mtd_update_last_seen")?,
            set_lost: find(c"gst_analytics_tracking_mtd_set_lost")?,
            rotated: location
                .zip(add_rotated)
                .map(|(location, add)| RotatedFunctions { location, add }),
        })
    }
}

/// What a GstAnalyticsRelationMeta says.
pub(in crate::metas) fn get(meta: &MetaRef<gst::Meta>) -> Option<Analytics> {
    let functions = (*FUNCTIONS)?;
    // The C functions do not change the meta, although they take it as mutable.
    let meta: Meta = meta.as_ptr().cast_mut().cast();
    // SAFETY: the meta is valid and of this type, because of its name.
    let length = unsafe { (functions.length)(meta) };
    let mut analytics = Analytics::default();
    let count = length.min(MAX_ITEMS) as u32;
    for id in 0..count {
        let mut handle = Handle::default();
        // SAFETY: as above; 0 stands for items of any type.
        let is_found = unsafe { (functions.item)(meta, id, 0, &raw mut handle) } != 0;
        // SAFETY: the handle is valid if the item was found.
        let item = is_found.then(|| unsafe { functions.read(&handle) }).flatten();
        analytics.items.push(item);
    }
    // The items beyond the limit are counted as items that cannot be sent.
    analytics.items.resize_with(length.min(u16::MAX.into()), || None);
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
        // SAFETY: as above.
        let kind = unsafe { (functions.relation)(meta, from, to) };
        if kind != 0 {
            analytics.relations.push(Relation { from, to, kind });
        }
    }
    Some(analytics)
}

/// Adds a GstAnalyticsRelationMeta; `None` if this GStreamer does not have it (before 1.24). Relations must name items
/// by their index, and their kind must be at most 255.
pub(in crate::metas) fn add(buffer: &mut gst::BufferRef, analytics: &Analytics) -> Option<()> {
    let functions = (*FUNCTIONS)?;
    // SAFETY: the buffer is writable.
    let meta = unsafe { (functions.add)(buffer.as_mut_ptr()) };
    if meta.is_null() {
        return None;
    }
    for item in analytics.items.iter().flatten() {
        // SAFETY: the meta is valid, and belongs to this function until it returns.
        unsafe { functions.write(meta, item) };
    }
    for relation in &analytics.relations {
        // SAFETY: as above; the caller has checked the relation.
        unsafe { (functions.set_relation)(meta, relation.kind, relation.from, relation.to) };
    }
    Some(())
}

impl Functions {
    /// Reads an item; `None` if items of its type are not sent.
    ///
    /// # Safety
    ///
    /// The handle must be valid.
    unsafe fn read(&self, handle: &Handle) -> Option<Item> {
        // SAFETY: the caller vouches for the handle.
        let name = unsafe { (self.type_name)((self.item_type)(handle)) };
        if name.is_null() {
            return None;
        }
        // SAFETY: the name of a type is a static text.
        match unsafe { CStr::from_ptr(name) }.to_bytes() {
            // SAFETY: the caller vouches for the handle, which is of this type.
            b"object-detection" => unsafe { self.read_object(handle) },
            // SAFETY: as above.
            b"classification" => unsafe { self.read_classes(handle) },
            // SAFETY: as above.
            b"object-tracking" => unsafe { self.read_track(handle) },
            _ => None,
        }
    }

    /// # Safety
    ///
    /// The handle must be that of an object.
    unsafe fn read_object(&self, handle: &Handle) -> Option<Item> {
        let [mut x, mut y, mut width, mut height] = [0; 4];
        let (mut rotation, mut confidence) = (0.0, 0.0);
        let (x_to, y_to, width_to, height_to) = (&raw mut x, &raw mut y, &raw mut width, &raw mut height);
        // SAFETY: the caller vouches for the handle, and all pointers are valid.
        let (is_read, name) = unsafe {
            let is_read = match &self.rotated {
                Some(rotated) => (rotated.location)(
                    handle,
                    x_to,
                    y_to,
                    width_to,
                    height_to,
                    &raw mut rotation,
                    &raw mut confidence,
                ),
                None => (self.object_location)(handle, x_to, y_to, width_to, height_to, &raw mut confidence),
            };
            (is_read != 0, text((self.object_name)(handle)))
        };
        is_read.then_some(Item::Object {
            name,
            rect: [x, y, width, height],
            rotation,
            confidence,
        })
    }

    /// # Safety
    ///
    /// The handle must be that of classes.
    unsafe fn read_classes(&self, handle: &Handle) -> Option<Item> {
        // SAFETY: the caller vouches for the handle, and each index is below the number of classes.
        unsafe {
            let count = (self.class_count)(handle);
            let class = |index| {
                (
                    text((self.class_name)(handle, index)),
                    (self.class_level)(handle, index),
                )
            };
            Some(Item::Classes((0..count).map(class).collect()))
        }
    }

    /// # Safety
    ///
    /// The handle must be that of a track.
    unsafe fn read_track(&self, handle: &Handle) -> Option<Item> {
        let (mut id, mut first_seen, mut last_seen, mut is_lost) = (0, 0, 0, 0);
        // SAFETY: the caller vouches for the handle, and all pointers are valid.
        let is_read = unsafe {
            (self.track)(
                handle,
                &raw mut id,
                &raw mut first_seen,
                &raw mut last_seen,
                &raw mut is_lost,
            )
        };
        (is_read != 0).then_some(Item::Track {
            id,
            first_seen,
            last_seen,
            is_lost: is_lost != 0,
        })
    }

    /// Adds an item to a meta.
    ///
    /// # Safety
    ///
    /// The meta must be valid, and nothing else may use it.
    unsafe fn write(&self, meta: Meta, item: &Item) {
        let mut handle = Handle::default();
        let to = &raw mut handle;
        match item {
            Item::Object {
                name,
                rect: [x, y, width, height],
                rotation,
                confidence,
            } => {
                let name = quark(name);
                // SAFETY: the caller vouches for the meta, and the handle is valid.
                unsafe {
                    match &self.rotated {
                        Some(rotated) if *rotation != 0.0 => {
                            (rotated.add)(meta, name, *x, *y, *width, *height, *rotation, *confidence, to);
                        }
                        _ => {
                            (self.add_object)(meta, name, *x, *y, *width, *height, *confidence, to);
                        }
                    }
                }
            }
            Item::Classes(classes) => {
                let (names, levels): (Vec<_>, Vec<_>) =
                    classes.iter().map(|(name, level)| (quark(name), *level)).unzip();
                // SAFETY: as above, and both arrays have as many values as the number says. The meta copies them.
                unsafe { (self.add_classes)(meta, names.len(), levels.as_ptr(), names.as_ptr(), to) };
            }
            Item::Track {
                id,
                first_seen,
                last_seen,
                is_lost,
            } => {
                // SAFETY: as above, and the handle is valid once the track has been added.
                unsafe {
                    if (self.add_track)(meta, *id, *first_seen, to) != 0 {
                        (self.set_last_seen)(to, *last_seen);
                        if *is_lost {
                            (self.set_lost)(to);
                        }
                    }
                }
            }
        }
    }
}

/// The text of a quark, which is empty for the quark 0.
fn text(quark: u32) -> String {
    if quark == 0 {
        return String::new();
    }
    // SAFETY: the analytics library gives only valid quarks.
    let quark = unsafe { Quark::from_glib(quark) };
    quark.as_str().to_string()
}

/// The quark of a text, which is 0 for an empty text.
fn quark(text: &str) -> u32 {
    if text.is_empty() {
        return 0;
    }
    Quark::from_str(text).into_glib()
}
