use gst::{glib, prelude::*};

mod events;
mod imp;
mod properties;
mod stream;
mod timeline;

glib::wrapper! {
    /// Reads the frames that another program publishes.
    pub struct RsShmSrc(ObjectSubclass<imp::RsShmSrc>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object, @implements gst::URIHandler;
}

/// What to do when the writer goes away without an end of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRsShmOnDisconnect")]
pub enum OnDisconnect {
    /// Wait for the next one.
    #[default]
    #[enum_value(name = "None: wait for the next writer", nick = "none")]
    None,
    /// End the stream.
    #[enum_value(name = "EOS: end the stream", nick = "eos")]
    Eos,
    /// Fail.
    #[enum_value(name = "Error: fail", nick = "error")]
    Error,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    OnDisconnect::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "rsshmsrc", gst::Rank::NONE, RsShmSrc::static_type())
}
