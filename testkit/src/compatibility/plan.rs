// SPDX-License-Identifier: MIT OR Apache-2.0

//! The plan: all cases, for the elements that are installed.
//!
//! An element appears in the plan by its class. Its input is the first known stream that it accepts. Streams are raw
//! sources, the outputs of encoders, and those of other elements that the plan has found to work.

use gst::prelude::*;

use super::{
    assemblies,
    case::{Case, Steps},
    discover::{self, Answer, Answers, Question},
    made, parallel, registry,
    stream::{self, Media, Stream},
};

/// The most inputs that are tried for one element.
const MAX_CANDIDATES: usize = 14;

/// Sizes of raw video: even, odd, narrow and tiny.
const PICTURES: [&str; 8] = ["320x240", "642x482", "65x49", "33x1", "1x33", "3x3", "2x2", "1x1"];
/// Rates and channels of raw audio.
const SOUNDS: [&str; 5] = ["8000x1", "44100x2", "48000x3", "48000x6", "96000x8"];

/// A stream that may work.
#[derive(Clone)]
struct Candidate {
    stream: Stream,
    /// The names of the streams that its last element gets.
    inputs: Vec<String>,
}

/// Elements of one kind.
struct Kind {
    group: &'static str,
    /// The class of the elements.
    class: &'static str,
    /// The classes of the elements that take their output, the preferred ones first.
    consumers: &'static [&'static str],
    /// Whether the cases include a reader that joins late.
    joins_late: bool,
}

const ENCODERS: Kind = Kind {
    group: "Encoders",
    class: "Encoder",
    consumers: &["Parser", "Demuxer"],
    joins_late: true,
};
const MUXERS: Kind = Kind {
    group: "Muxers",
    class: "Muxer",
    consumers: &["Demuxer", "Parser", "Depayloader"],
    joins_late: true,
};
const PAYLOADERS: Kind = Kind {
    group: "Payloaders",
    class: "Payloader",
    consumers: &["Depayloader", "Demuxer", "Parser"],
    joins_late: true,
};

/// Variants of muxers: a property that lets a muxer write a live stream.
const LIVE_PROPERTIES: [(&str, &str); 2] = [
    ("streamable", "streamable=true"),
    ("fragment-duration", "fragment-duration=200"),
];

/// Makes the plan, with `jobs` discoveries at the same time. Each discovery is a process.
pub fn plan(jobs: usize) -> Vec<Case> {
    let mut cases = raw_video();
    cases.extend(raw_audio());
    cases.extend(made_streams());
    let raw = stream::raw();
    let (encoders, mut pool) = ENCODERS.cases(&raw, jobs);
    cases.extend(encoders);
    pool.extend(raw);
    // Payloaders need muxers (MPEG-TS), and some muxers need payloaders (RTP).
    let (muxers, multiplexed) = MUXERS.cases(&pool, jobs);
    pool.extend(multiplexed);
    let (payloaders, packets) = PAYLOADERS.cases(&pool, jobs);
    pool.extend(packets);
    cases.extend(muxers);
    cases.extend(payloaders);
    cases.extend(parsers(&pool, jobs));
    cases.extend(assemblies::cases());
    cases
}

impl Kind {
    /// The cases of all elements of this kind, and the streams of those that work.
    fn cases(&self, pool: &[Stream], jobs: usize) -> (Vec<Case>, Vec<Stream>) {
        let factories = registry::factories(self.class);
        let of_each = parallel(&factories, jobs, |factory| self.cases_of(factory, pool));
        let mut cases = Vec::new();
        let mut streams = Vec::new();
        for (case, stream) in of_each.into_iter().flatten() {
            cases.push(case);
            streams.extend(stream);
        }
        // Slow encoders come last, so that other elements get their input from fast ones.
        streams.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        (cases, streams.into_iter().map(|(_, stream)| stream).collect())
    }

    /// A case, the stream that it makes, and how long that took.
    fn cases_of(&self, factory: &gst::ElementFactory, pool: &[Stream]) -> Vec<(Case, Option<(f64, Stream)>)> {
        let mut variants = vec![factory.name().to_string()];
        if self.class == "Muxer" {
            let live = LIVE_PROPERTIES
                .iter()
                .filter(|(name, _)| registry::has_property(factory, name));
            variants.extend(live.map(|(_, property)| format!("{} {property}", factory.name())));
        }
        variants
            .iter()
            .map(|element| self.case_of(factory, element, pool))
            .collect()
    }

    fn case_of(&self, factory: &gst::ElementFactory, element: &str, pool: &[Stream]) -> (Case, Option<(f64, Stream)>) {
        let candidates = candidates(factory, element, pool);
        let found = ask(&candidates, self.consumers, false);
        let case = |input: &str, consumer: &str, steps| Case {
            group: self.group,
            element: element.to_owned(),
            input: input.to_owned(),
            consumer: consumer.to_owned(),
            steps,
        };
        let Some(answer) = found.answers.first() else {
            let reason = found
                .failure
                .unwrap_or_else(|| "no installed element makes its input".to_owned());
            return (case("", "", Steps::None(reason)), None);
        };
        let Candidate { stream, inputs } = &candidates[answer.candidate];
        let stream = narrowed(stream, answer, factory);
        if let Some(refusing) = &answer.refusing {
            let reason = format!("{refusing} makes nothing of its live output");
            return (
                case(&inputs.join(" + "), refusing, Steps::None(reason)),
                Some((answer.seconds, stream)),
            );
        }
        let consumer = answer.consumer.clone().unwrap_or_default();
        let steps = Steps::Run {
            writer: stream.text.clone(),
            reader: consumer.clone(),
            joins_late: self.joins_late && !is_audio_encoder(factory) && can_be_decoded(answer),
            is_live: true,
        };
        let case = case(&inputs.join(" + "), &consumer, steps);
        // A rank of GStreamer says which encoder is usual.
        let rank = if self.class == "Encoder" {
            -f64::from(i32::from(factory.rank()))
        } else {
            0.0
        };
        (case, Some((rank + answer.seconds, stream)))
    }
}

/// Whether a late reader has something to decode.
fn can_be_decoded(answer: &Answer) -> bool {
    let caps = answer.caps.parse::<gst::Caps>();
    answer.consumer.is_some() || caps.is_ok_and(|caps| registry::is_decodable(&caps))
}

fn is_audio_encoder(factory: &gst::ElementFactory) -> bool {
    registry::has_class(factory, "Encoder") && registry::has_class(factory, "Audio")
}

/// The stream with the caps that the element can make. If these are anything, the caps are those that it has made.
fn narrowed(stream: &Stream, answer: &Answer, factory: &gst::ElementFactory) -> Stream {
    let all = registry::source_caps(factory).filter(|caps| !caps.is_any());
    let made = answer.caps.parse::<gst::Caps>().ok();
    let caps = match (all, made) {
        // An encoder can make each of its stream formats; a payloader makes one encoding of the many in its caps.
        (Some(all), Some(made)) if registry::has_class(factory, "Encoder") => {
            let name = made.structure(0).map(|structure| structure.name().to_owned());
            let structures = all
                .iter()
                .filter(|structure| Some(structure.name().as_str()) == name.as_deref());
            structures.map(|structure| structure.to_owned()).collect()
        }
        (_, Some(made)) => made,
        (all, None) => all.unwrap_or_else(gst::Caps::new_any),
    };
    Stream { caps, ..stream.clone() }
}

fn ask(candidates: &[Candidate], consumers: &[&str], wants_all: bool) -> Answers {
    if candidates.is_empty() {
        return Answers::default();
    }
    let texts = candidates
        .iter()
        .map(|candidate| (candidate.stream.text.clone(), candidate.inputs.len()));
    discover::ask(&Question {
        candidates: texts.collect(),
        consumers: consumers.iter().map(|&class| class.to_owned()).collect(),
        wants_all,
    })
}

/// Streams that end with the element.
fn candidates(factory: &gst::ElementFactory, element: &str, pool: &[Stream]) -> Vec<Candidate> {
    let Some(taken) = registry::sink_caps(factory) else {
        return Vec::new();
    };
    let made = registry::source_caps(factory).unwrap_or_else(gst::Caps::new_any);
    let inputs = inputs(&taken, pool);
    let of = |media| {
        let streams = inputs.iter().filter(move |stream| stream.media() == media);
        streams.collect::<Vec<_>>()
    };
    let (video, audio, mut other) = (of(Media::Video), of(Media::Audio), of(Media::Other));
    // Parsers of subtitles keep text back until its end, and a muxer would wait for it.
    other.sort_by_key(|stream| !stream.is_raw);
    let mut combinations: Vec<Vec<Stream>> = Vec::new();
    if registry::takes_several(factory) {
        for (video, audio) in video.iter().zip(&audio).take(3) {
            let both = vec![(*video).clone(), (*audio).clone()];
            if let Some(other) = other.first() {
                combinations.push([both.as_slice(), &[(*other).clone()]].concat());
            }
            combinations.push(both);
        }
    }
    let longest = video.len().max(audio.len()).max(other.len());
    for index in 0..longest {
        for streams in [&video, &audio, &other] {
            combinations.extend(streams.get(index).map(|stream| vec![(*stream).clone()]));
        }
    }
    combinations.truncate(MAX_CANDIDATES);
    let stream = |streams: Vec<Stream>| Candidate {
        stream: Stream::multiplexed(&streams, element, &made),
        inputs: streams.into_iter().map(|stream| stream.name).collect(),
    };
    combinations.into_iter().map(stream).collect()
}

/// The streams of the pool that the caps accept, also those that a parser makes acceptable.
fn inputs(taken: &gst::Caps, pool: &[Stream]) -> Vec<Stream> {
    let mut inputs = Vec::new();
    for stream in pool {
        let is_taken = stream.caps.can_intersect(taken);
        if is_taken {
            inputs.push(stream.clone());
        }
        if stream.is_raw || taken.is_any() {
            continue;
        }
        let parsers = registry::consumers(&["Parser"], &stream.caps);
        let parsed = parsers.iter().filter_map(|parser| {
            let caps = registry::source_caps(parser)?;
            caps.can_intersect(taken).then(|| stream.then(&parser.name(), &caps))
        });
        inputs.extend(parsed.take(1));
    }
    inputs
}

/// The parsers with each stream format and alignment that they can make.
fn parsers(pool: &[Stream], jobs: usize) -> Vec<Case> {
    let factories = registry::factories("Parser");
    let of_each = parallel(&factories, jobs, |parser| parser_cases(parser, pool));
    of_each.into_iter().flatten().collect()
}

fn parser_cases(parser: &gst::ElementFactory, pool: &[Stream]) -> Vec<Case> {
    let name = parser.name().to_string();
    let case = |element: String, input: String, steps| Case {
        group: "Parsers",
        element,
        input,
        consumer: String::new(),
        steps,
    };
    let (Some(taken), Some(made)) = (registry::sink_caps(parser), registry::source_caps(parser)) else {
        return Vec::new();
    };
    let streams: Vec<_> = pool.iter().filter(|stream| stream.caps.can_intersect(&taken)).collect();
    let candidate = |input: &Stream, text: &str| Candidate {
        stream: input.then(text, &made),
        inputs: vec![input.name.clone()],
    };
    let alone: Vec<_> = streams.iter().take(6).map(|stream| candidate(stream, &name)).collect();
    let found = ask(&alone, &[], false);
    let Some(answer) = found.answers.first() else {
        let reason = found
            .failure
            .unwrap_or_else(|| "no installed element makes its input".to_owned());
        return vec![case(name, String::new(), Steps::None(reason))];
    };
    let input = streams[answer.candidate];
    let mut variants = Vec::new();
    let media = answer.caps.parse::<gst::Caps>().ok();
    let media = media
        .as_ref()
        .and_then(|caps| caps.structure(0))
        .map_or("", |structure| structure.name().as_str());
    let values = |field| {
        let values = registry::field_values(&made, field);
        if values.is_empty() { vec![String::new()] } else { values }
    };
    for format in values("stream-format") {
        for alignment in values("alignment") {
            let fields = [("stream-format", &format), ("alignment", &alignment)];
            let fields = fields.iter().filter(|(_, value)| !value.is_empty());
            let filter: String = fields
                .clone()
                .map(|(field, value)| format!(",{field}={value}"))
                .collect();
            let label: String = fields.map(|(_, value)| format!(" {value}")).collect();
            let text = if filter.is_empty() {
                name.clone()
            } else {
                format!("{name} ! {media}{filter}")
            };
            variants.push((label, candidate(input, &text)));
        }
    }
    let candidates: Vec<_> = variants.iter().map(|(_, candidate)| candidate.clone()).collect();
    let found = ask(&candidates, &[], true);
    let cases = found.answers.iter().map(|answer| {
        let (label, Candidate { stream, .. }) = &variants[answer.candidate];
        let steps = Steps::Run {
            writer: stream.text.clone(),
            reader: String::new(),
            joins_late: input.media() == Media::Video,
            is_live: true,
        };
        case(format!("{name}{label}"), input.name.clone(), steps)
    });
    cases.collect()
}

/// A row for each format of raw video.
fn raw_video() -> Vec<Case> {
    let formats = formats_of("videoconvert");
    let cases = formats.iter().map(|format| {
        let parts = PICTURES.iter().map(|size| {
            format!("{{picture:{size}}} ! videoconvert ! video/x-raw,format={format},width=[1,10000] ! c. ")
        });
        one_after_another("Raw video", format.clone(), &PICTURES, parts.collect())
    });
    cases.collect()
}

/// A row for each format and layout of raw audio.
fn raw_audio() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in formats_of("audioconvert") {
        for layout in ["interleaved", "non-interleaved"] {
            let parts = SOUNDS.iter().map(|sound| {
                format!("{{sound:{sound}}} ! audioconvert ! audio/x-raw,format={format},layout={layout} ! c. ")
            });
            cases.push(one_after_another(
                "Raw audio",
                format!("{format} {layout}"),
                &SOUNDS,
                parts.collect(),
            ));
        }
    }
    cases
}

/// A case whose caps change several times.
fn one_after_another(group: &'static str, element: String, inputs: &[&str], parts: String) -> Case {
    Case {
        group,
        element,
        input: inputs.join(", "),
        consumer: String::new(),
        steps: Steps::Run {
            writer: format!("{parts}concat name=c"),
            reader: String::new(),
            joins_late: false,
            is_live: false,
        },
    }
}

/// The formats in the caps of an element's source pad.
fn formats_of(element: &str) -> Vec<String> {
    let factory = gst::ElementFactory::find(element);
    let caps = factory.as_ref().and_then(registry::source_caps);
    caps.map_or_else(Vec::new, |caps| registry::field_values(&caps, "format"))
}

/// A row for each stream without an encoder.
fn made_streams() -> Vec<Case> {
    let cases = made::kinds().iter().enumerate().map(|(index, kind)| Case {
        group: "Text, captions, metadata and tensors",
        element: stream::made_name(&kind.caps),
        input: "a generator".to_owned(),
        consumer: String::new(),
        steps: Steps::Run {
            writer: format!("{{made:{index}}}"),
            reader: String::new(),
            joins_late: false,
            is_live: true,
        },
    });
    cases.collect()
}
