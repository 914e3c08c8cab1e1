// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm metrics`: all channels as OpenMetrics text, which Prometheus reads.

use clap::Args;

use crate::{failure::Failure, names, output::Output, process::Processes, report::Report};

/// Prints all channels as OpenMetrics text, for Prometheus.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm metrics
  rsshm metrics > /var/lib/node_exporter/rsshm.prom.part && mv /var/lib/node_exporter/rsshm.prom{.part,}

The second line is for the textfile collector of node_exporter, from a timer.")]
pub(crate) struct Metrics {
    /// Names, URIs or patterns; all channels if none is given.
    #[arg(value_name = "CHANNEL")]
    channels: Vec<String>,
}

/// The samples of one metric.
struct Family {
    name: &'static str,
    kind: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    samples: Vec<String>,
}

/// The labels of a sample.
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Metrics {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let names = names::select_or_all(&self.channels)?;
        let mut processes = Processes::default();
        // A channel that has just disappeared has no metrics.
        let reports: Vec<Report> = names
            .iter()
            .filter_map(|name| Report::new(name, &mut processes).ok())
            .collect();
        for family in families(&reports) {
            output.line(format!("# TYPE {} {}", family.name, family.kind))?;
            if let Some(unit) = family.unit {
                output.line(format!("# UNIT {} {unit}", family.name))?;
            }
            output.line(format!("# HELP {} {}", family.name, family.help))?;
            family.samples.iter().try_for_each(|sample| output.line(sample))?;
        }
        output.line("# EOF")
    }
}

fn families(reports: &[Report]) -> Vec<Family> {
    let channel = |report: &Report| vec![("channel", report.channel.clone())];
    let seconds = |nanoseconds: u64| format!("{:.6}", nanoseconds as f64 / 1e9);
    let each = |value: &dyn Fn(&Report) -> Option<String>| -> Vec<(Vec<(&'static str, String)>, String)> {
        reports
            .iter()
            .filter_map(|report| Some((channel(report), value(report)?)))
            .collect()
    };
    let readers = |value: &dyn Fn(&crate::report::Reader) -> Option<String>| {
        let all = reports
            .iter()
            .flat_map(|report| report.readers.iter().map(move |reader| (report, reader)));
        all.filter_map(|(report, reader)| {
            let mut labels = channel(report);
            labels.push(("entry", reader.entry.to_string()));
            labels.push(("pid", reader.pid.map(|pid| pid.to_string()).unwrap_or_default()));
            labels.push(("program", reader.program.clone().unwrap_or_default()));
            Some((labels, value(reader)?))
        })
        .collect::<Vec<_>>()
    };
    let family = |name, kind, unit, help, suffix: &str, samples: Vec<(Vec<(&'static str, String)>, String)>| Family {
        name,
        kind,
        unit,
        help,
        samples: samples
            .iter()
            .map(|(labels, value)| {
                let labels: Labels<'_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                sample(&format!("{name}{suffix}"), &labels, value)
            })
            .collect(),
    };
    let number = |flag: bool| u8::from(flag).to_string();
    let info = reports
        .iter()
        .map(|report| {
            let mut labels = channel(report);
            labels.push(("media", report.media.clone().unwrap_or_default()));
            labels.push(("format", report.format.clone().unwrap_or_default()));
            labels.push(("size", report.summary.size().unwrap_or_default()));
            labels.push(("framerate", report.framerate.clone().unwrap_or_default()));
            labels.push(("state", report.state.name().to_owned()));
            (labels, "1".to_owned())
        })
        .collect();
    let memory = |value: fn(&crate::report::Memory) -> u64| {
        each(&|report| report.memory.as_ref().map(|memory| value(memory).to_string()))
    };
    vec![
        family(
            "rsshm_channel",
            "info",
            None,
            "The channel and its format.",
            "_info",
            info,
        ),
        family(
            "rsshm_up",
            "gauge",
            None,
            "1 if the channel has a living writer.",
            "",
            each(&|report| Some(number(report.state.has_writer()))),
        ),
        family(
            "rsshm_writer_stopped",
            "gauge",
            None,
            "1 if a signal has stopped the writer.",
            "",
            each(&|report| report.writer.as_ref()?.stopped.map(number)),
        ),
        family(
            "rsshm_frames",
            "counter",
            None,
            "Frames published.",
            "_total",
            each(&|report| report.head.map(|head| head.to_string())),
        ),
        family(
            "rsshm_frame_age_seconds",
            "gauge",
            Some("seconds"),
            "Time since the timestamp of the newest frame.",
            "",
            each(&|report| report.newest_age_ns.map(seconds)),
        ),
        family(
            "rsshm_latency_seconds",
            "gauge",
            Some("seconds"),
            "Latency that the writer states.",
            "",
            each(&|report| report.latency_ns.map(seconds)),
        ),
        family(
            "rsshm_readers",
            "gauge",
            None,
            "Attached readers.",
            "",
            each(&|report| report.reader_count.map(|count| count.to_string())),
        ),
        family(
            "rsshm_memory_bytes",
            "gauge",
            Some("bytes"),
            "Memory of the channel.",
            "",
            memory(|memory| memory.bytes),
        ),
        family(
            "rsshm_slots",
            "gauge",
            None,
            "Slots that have memory.",
            "",
            memory(|memory| memory.slots_with_memory.into()),
        ),
        family(
            "rsshm_slots_held",
            "gauge",
            None,
            "Slots that readers use.",
            "",
            memory(|memory| memory.slots_held.into()),
        ),
        family(
            "rsshm_reader_behind_frames",
            "gauge",
            Some("frames"),
            "Frames that the reader has not taken yet.",
            "",
            readers(&|reader| reader.behind.map(|behind| behind.to_string())),
        ),
        family(
            "rsshm_reader_missed_frames",
            "counter",
            Some("frames"),
            "Frames that the reader has missed; a reader of the newest frames skips some on purpose.",
            "_total",
            readers(&|reader| reader.missed.map(|missed| missed.to_string())),
        ),
        family(
            "rsshm_reader_held_slots",
            "gauge",
            Some("slots"),
            "Slots that the reader uses.",
            "",
            readers(&|reader| Some(reader.holds.to_string())),
        ),
        family(
            "rsshm_reader_stopped",
            "gauge",
            None,
            "1 if a signal has stopped the reader.",
            "",
            readers(&|reader| reader.stopped.map(number)),
        ),
    ]
}

/// One line: the name, the labels and the value.
fn sample(name: &str, labels: &Labels<'_>, value: &str) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    format!("{name}{{{}}} {value}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let labels = vec![("channel", "a\\\"b\nc"), ("pid", "1")];
        assert_eq!(
            sample("rsshm_up", &labels, "1"),
            r#"rsshm_up{channel="a\\\"b\nc",pid="1"} 1"#
        );
    }
}
