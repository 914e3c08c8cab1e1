// SPDX-License-Identifier: MIT OR Apache-2.0

//! Parts of events that not all supported versions of GStreamer have.

use std::sync::LazyLock;

use gst::{
    ffi::GstEvent,
    glib::{
        self, FlagsClass,
        translate::{FromGlib, ToGlibPtr, ToGlibPtrMut},
    },
};

use crate::library;

type GetType = unsafe extern "C" fn() -> glib::ffi::GType;

/// GstNavigationModifierType, the pressed modifier keys and mouse buttons; `None` before version 1.22.
static MODIFIERS: LazyLock<Option<glib::Type>> = LazyLock::new(|| {
    // SAFETY: this is the type of the function.
    let get_type: GetType = unsafe { library::function(library::VIDEO, c"gst_navigation_modifier_type_get_type") }?;
    // SAFETY: the function takes no arguments, and the type that it returns is valid.
    Some(unsafe { glib::Type::from_glib(get_type()) })
});

/// The pressed modifier keys and mouse buttons as bits; `None` if the value is something else.
pub(super) fn modifier_bits(value: &glib::Value) -> Option<u32> {
    MODIFIERS.filter(|modifiers| *modifiers == value.type_())?;
    // SAFETY: the value has flags.
    Some(unsafe { glib::gobject_ffi::g_value_get_flags(value.to_glib_none().0) })
}

/// The pressed modifier keys and mouse buttons of these bits; `None` if this GStreamer does not have them. Bits that
/// this GStreamer does not know are left out.
pub(super) fn modifiers(bits: u32) -> Option<glib::SendValue> {
    let class = FlagsClass::with_type((*MODIFIERS)?)?;
    let known = class.values().iter().fold(0, |known, flag| known | flag.value());
    let mut value = glib::Value::from_type(class.type_());
    // SAFETY: the value has flags.
    unsafe { glib::gobject_ffi::g_value_set_flags(value.to_glib_none_mut().0, bits & known) };
    // SAFETY: flags are a plain number, which any thread may use.
    Some(unsafe { glib::translate::from_glib_none(value.to_glib_none().0) })
}

/// The flags of gaps that GStreamer knows: only GST_GAP_FLAG_MISSING_DATA.
const KNOWN_GAP_FLAGS: u32 = 1;

/// The flags of a GAP event as bits. GStreamer before version 1.20 has none.
pub(super) fn gap_flags(gap: &gst::event::Gap) -> u32 {
    type Parse = unsafe extern "C" fn(*mut GstEvent, *mut u32);
    static PARSE: LazyLock<Option<Parse>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::CORE, c"gst_event_parse_gap_flags") });
    let mut flags = 0;
    if let Some(parse) = *PARSE {
        // SAFETY: the event is a GAP event, and the function does not change it.
        unsafe { parse(gap.as_ptr().cast_mut(), &raw mut flags) };
    }
    flags
}

/// The GAP event with flags of these bits, as far as GStreamer has flags of gaps.
pub(crate) fn with_gap_flags(mut gap: gst::Event, bits: u32) -> gst::Event {
    type Set = unsafe extern "C" fn(*mut GstEvent, u32);
    static SET: LazyLock<Option<Set>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::CORE, c"gst_event_set_gap_flags") });
    let bits = bits & KNOWN_GAP_FLAGS;
    if let Some(set) = SET.filter(|_| bits != 0) {
        // SAFETY: the event is a GAP event, and it is writable.
        unsafe { set(gap.make_mut().as_mut_ptr(), bits) };
    }
    gap
}
