// SPDX-License-Identifier: MIT OR Apache-2.0

//! Serialized events: streams, tags, gaps and events of applications keep their order among the frames.

mod discontinuities;
mod new_writers;
mod order;
mod players;
mod streams;
mod tag_lists;

use gst::{EventType, TagMergeMode, event, tags};
use rsshm_testkit::gst::SourceRecorder;

fn title(text: &str) -> gst::Event {
    let mut tags = gst::TagList::new();
    tags.make_mut().add::<tags::Title>(&text, TagMergeMode::Append);
    event::Tag::new(tags)
}

fn sticky(name: &str, number: u64) -> gst::Event {
    event::CustomDownstreamSticky::new(gst::Structure::builder(name).field("number", number).build())
}

fn stream_start(id: &str) -> gst::Event {
    event::StreamStart::builder(id).group_id(gst::GroupId::next()).build()
}

/// The titles in the tags that a reader received, in order.
fn titles(reader: &SourceRecorder) -> Vec<String> {
    let title = |event: &gst::Event| match event.view() {
        gst::EventView::Tag(tag) => Some(tag.tag().get::<tags::Title>()?.get().to_owned()),
        _ => None,
    };
    reader.events(EventType::Tag).iter().filter_map(title).collect()
}

/// The words that begin with one of `starts`.
fn only(words: &[String], starts: &[&str]) -> Vec<String> {
    let is_wanted = |word: &&String| starts.iter().any(|start| word.starts_with(start));
    words.iter().filter(is_wanted).cloned().collect()
}
