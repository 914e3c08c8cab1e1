// SPDX-License-Identifier: MIT OR Apache-2.0

//! The elements that are installed.

use gst::prelude::*;

/// The elements with this word in their class, such as `Muxer`. Bins are left out, because they choose other elements.
pub fn factories(word: &str) -> Vec<gst::ElementFactory> {
    let all = gst::Registry::get().features(gst::ElementFactory::static_type());
    let factories = all
        .into_iter()
        .filter_map(|feature| feature.downcast::<gst::ElementFactory>().ok());
    let mut found: Vec<_> = factories
        .filter(|factory| {
            let has = |word: &str| has_class(factory, word);
            has(word)
                && !["Bin", "Sink", "Source", "DTLS", "SCTP"].into_iter().any(has)
                && source_caps(factory).is_some()
        })
        .collect();
    found.sort_by_key(|factory| (std::cmp::Reverse(factory.rank()), factory.name()));
    found
}

pub fn has_class(factory: &gst::ElementFactory, word: &str) -> bool {
    let class = factory.metadata("klass").unwrap_or_default();
    class.split('/').any(|part| part.trim() == word)
}

fn templates(
    factory: &gst::ElementFactory,
    direction: gst::PadDirection,
) -> impl Iterator<Item = gst::StaticPadTemplate> {
    factory
        .static_pad_templates()
        .into_iter()
        .filter(move |template| template.direction() == direction)
}

/// The caps of all source pads.
pub fn source_caps(factory: &gst::ElementFactory) -> Option<gst::Caps> {
    merged(templates(factory, gst::PadDirection::Src))
}

/// The caps of all sink pads.
pub fn sink_caps(factory: &gst::ElementFactory) -> Option<gst::Caps> {
    merged(templates(factory, gst::PadDirection::Sink))
}

fn merged(templates: impl Iterator<Item = gst::StaticPadTemplate>) -> Option<gst::Caps> {
    templates.map(|template| template.caps()).reduce(|mut all, caps| {
        all.merge(caps);
        all
    })
}

/// Whether the element has sink pads on request, so that it takes several streams.
pub fn takes_several(factory: &gst::ElementFactory) -> bool {
    templates(factory, gst::PadDirection::Sink).any(|template| template.presence() == gst::PadPresence::Request)
}

/// Whether the element takes these caps. An element that takes anything does not count.
pub fn takes(factory: &gst::ElementFactory, caps: &gst::Caps) -> bool {
    sink_caps(factory).is_some_and(|taken| !taken.is_any() && taken.can_intersect(caps))
}

/// The elements of these classes that take the caps, in order of class and rank.
pub fn consumers(classes: &[&str], caps: &gst::Caps) -> Vec<gst::ElementFactory> {
    let mut found: Vec<gst::ElementFactory> = Vec::new();
    for factory in classes.iter().flat_map(|class| factories(class)) {
        if takes(&factory, caps) && !found.contains(&factory) {
            found.push(factory);
        }
    }
    found
}

/// Whether some element decodes these caps.
pub fn is_decodable(caps: &gst::Caps) -> bool {
    let decoders = gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DECODER, gst::Rank::MARGINAL);
    decoders.iter().any(|decoder| takes(decoder, caps))
}

/// Whether the element has this property.
pub fn has_property(factory: &gst::ElementFactory, name: &str) -> bool {
    let element = factory.create().build();
    element.is_ok_and(|element| element.find_property(name).is_some())
}

/// The strings that a field of the caps can have, in order.
pub fn field_values(caps: &gst::CapsRef, field: &str) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for structure in caps.iter() {
        let Ok(value) = structure.value(field) else {
            continue;
        };
        let found = match (value.get::<String>(), value.get::<gst::List>()) {
            (Ok(text), _) => vec![text],
            (_, Ok(list)) => list.iter().filter_map(|value| value.get::<String>().ok()).collect(),
            _ => Vec::new(),
        };
        for text in found {
            if !values.contains(&text) {
                values.push(text);
            }
        }
    }
    values
}
