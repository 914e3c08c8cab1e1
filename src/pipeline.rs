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

/// The most pads that [`linked_elements`] looks at.
const MAX_PADS: usize = 1000;

/// The elements upstream of a sink pad, or downstream of a source pad. A bin counts as one element if it is entered from
/// outside; the bins that contain `pad` do not count.
pub(crate) fn linked_elements(pad: &gst::Pad) -> Vec<gst::Element> {
    let mut pads = vec![pad.clone()];
    let mut elements: Vec<gst::Element> = Vec::new();
    for _ in 0..MAX_PADS {
        let Some(pad) = pads.pop() else {
            break;
        };
        let Some(peer) = pad.peer() else {
            continue;
        };
        let Some(element) = peer.parent_element() else {
            // The peer is the inner pad of a ghost pad, which leads out of a bin.
            pads.extend(
                peer.downcast_ref::<gst::ProxyPad>()
                    .and_then(ProxyPadExt::internal)
                    .map(|outer| outer.upcast()),
            );
            continue;
        };
        if elements.contains(&element) {
            continue;
        }
        pads.extend(match peer.direction() {
            gst::PadDirection::Src => element.sink_pads(),
            _ => element.src_pads(),
        });
        elements.push(element);
    }
    elements
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
