use gst::{glib, prelude::*};

mod imp;
mod monitor;
mod negotiation;
mod pool;
mod properties;
mod publish;

glib::wrapper! {
    /// Publishes the frames of a pipeline to any number of other programs.
    pub struct RsShmSink(ObjectSubclass<imp::RsShmSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object, @implements gst::URIHandler;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "rsshmsink", gst::Rank::NONE, RsShmSink::static_type())
}
