// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pipelines in the process of the test.

use std::ops::Deref;

use gst::prelude::*;

use super::init;
use crate::{PATIENCE, on_this_machine};

/// A pipeline in this process. Dropping the value sets the pipeline to NULL.
pub struct Pipeline(gst::Pipeline);

impl Pipeline {
    /// Makes a pipeline from a description in the syntax of `gst-launch-1.0`.
    #[track_caller]
    pub fn new(description: &str) -> Self {
        init();
        let pipeline = gst::parse::launch(description).unwrap_or_else(|error| panic!("{description}: {error}"));
        Self(pipeline.downcast().unwrap())
    }

    /// Makes a pipeline and sets it to PLAYING.
    #[track_caller]
    pub fn playing(description: &str) -> Self {
        let pipeline = Self::new(description);
        pipeline.play();
        pipeline
    }

    /// Sets the pipeline to PLAYING. Panics if the pipeline refuses.
    #[track_caller]
    pub fn play(&self) {
        self.0.set_state(gst::State::Playing).unwrap();
    }

    /// The element whose name is `name`.
    pub fn element(&self, name: &str) -> gst::Element {
        self.0.by_name(name).unwrap()
    }

    /// The first element of this factory.
    pub fn by_factory(&self, factory: &str) -> gst::Element {
        self.0
            .iterate_recurse()
            .into_iter()
            .flatten()
            .find(|element| element.factory().is_some_and(|it| it.name() == factory))
            .unwrap()
    }

    /// The pad `src` or `sink` of the first element of this factory.
    pub fn pad(&self, factory: &str, pad: &str) -> gst::Pad {
        self.by_factory(factory).static_pad(pad).unwrap()
    }

    /// The structure `channel-stats` of an element.
    pub fn stats(&self, factory: &str) -> gst::Structure {
        self.by_factory(factory).property("channel-stats")
    }

    /// A field of the structure `channel-stats` of an element.
    pub fn stat(&self, factory: &str, field: &str) -> u64 {
        let stats = self.stats(factory);
        stats
            .get::<u64>(field)
            .or_else(|_| stats.get::<u32>(field).map(u64::from))
            .unwrap_or_else(|error| panic!("{field}: {error} in {stats}"))
    }

    /// The property `num-clients` of rsshmsink.
    pub fn num_clients(&self) -> u32 {
        self.by_factory("rsshmsink").property("num-clients")
    }

    /// A source's answer to the LATENCY query. It says whether the source is live, and gives the minimum and the
    /// maximum latency.
    pub fn source_latency(&self, factory: &str) -> (bool, gst::ClockTime, Option<gst::ClockTime>) {
        let mut query = gst::query::Latency::new();
        assert!(self.pad(factory, "src").query(&mut query));
        query.result()
    }

    /// Waits for EOS. Panics if an error message comes first.
    #[track_caller]
    pub fn wait_eos(&self) {
        let message = self.message(&[gst::MessageType::Eos, gst::MessageType::Error]);
        if let gst::MessageView::Error(error) = message.view() {
            panic!("{} ({:?})", error.error(), error.debug());
        }
    }

    /// Ends the stream after the frames so far, and waits for EOS.
    #[track_caller]
    pub fn end(&self) {
        assert!(self.send_event(gst::event::Eos::new()));
        self.wait_eos();
    }

    /// Waits for an error message. Panics if EOS comes first.
    #[track_caller]
    pub fn wait_error(&self) -> gst::glib::Error {
        match self.message(&[gst::MessageType::Eos, gst::MessageType::Error]).view() {
            gst::MessageView::Error(error) => error.error(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a message of one of the types.
    #[track_caller]
    pub fn message(&self, types: &[gst::MessageType]) -> gst::Message {
        let timeout = gst::ClockTime::from_seconds(on_this_machine(PATIENCE).as_secs());
        self.0
            .bus()
            .unwrap()
            .timed_pop_filtered(timeout, types)
            .unwrap_or_else(|| panic!("no message of {types:?}"))
    }

    /// Takes the messages of one type that are on the bus now.
    pub fn take_messages(&self, kind: gst::MessageType) -> Vec<gst::Message> {
        let bus = self.0.bus().unwrap();
        std::iter::from_fn(|| bus.pop_filtered(&[kind])).collect()
    }
}

impl From<gst::Pipeline> for Pipeline {
    fn from(pipeline: gst::Pipeline) -> Self {
        Self(pipeline)
    }
}

impl Deref for Pipeline {
    type Target = gst::Pipeline;

    fn deref(&self) -> &gst::Pipeline {
        &self.0
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// The domain and the code of an error, such as `ResourceError::Busy`.
pub fn error_kind(error: &gst::glib::Error) -> String {
    let resource = error
        .kind::<gst::ResourceError>()
        .map(|kind| format!("ResourceError::{kind:?}"));
    let stream = error
        .kind::<gst::StreamError>()
        .map(|kind| format!("StreamError::{kind:?}"));
    resource.or(stream).unwrap_or_else(|| format!("{error:?}"))
}
