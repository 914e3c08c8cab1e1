// SPDX-License-Identifier: MIT OR Apache-2.0

//! Looks at the pipeline that an element is in.

use gst::prelude::*;

/// The outermost bin that contains `element`; `None` if the element is in no bin.
fn outermost_bin(element: &gst::Element) -> Option<gst::Bin> {
    let mut object = element.clone().upcast::<gst::Object>();
    while let Some(parent) = object.parent() {
        object = parent;
    }
    object.downcast().ok()
}

/// All sources in the pipeline of `element`, also those in nested bins.
pub(crate) fn sources(element: &gst::Element) -> Vec<gst::Element> {
    let Some(bin) = outermost_bin(element) else {
        return Vec::new();
    };
    let mut sources = Vec::new();
    let mut elements = bin.iterate_recurse();
    loop {
        match elements.next() {
            Ok(Some(element)) => {
                if element.element_flags().contains(gst::ElementFlags::SOURCE) {
                    sources.push(element);
                }
            }
            // Elements were added or removed meanwhile, so the iteration begins again.
            Err(gst::IteratorError::Resync) => {
                elements.resync();
                sources.clear();
            }
            Ok(None) | Err(gst::IteratorError::Error) => return sources,
        }
    }
}

/// Whether a thread is changing the state of `source`, or is sending it an event.
///
/// A source that is pushing a buffer keeps a thread that sends it EOS waiting until downstream has taken the buffer.
pub(crate) fn is_in_use(source: &gst::Element) -> bool {
    let element = source.as_ptr();
    // SAFETY: the element is alive, and its lock is valid for as long as the element. A lock that was free is released
    // at once by the thread that took it.
    unsafe {
        let lock = &raw mut (*element).state_lock;
        let is_free = gst::glib::ffi::g_rec_mutex_trylock(lock) != gst::glib::ffi::GFALSE;
        if is_free {
            gst::glib::ffi::g_rec_mutex_unlock(lock);
        }
        !is_free
    }
}
