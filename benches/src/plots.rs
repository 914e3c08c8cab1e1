// SPDX-License-Identifier: MIT OR Apache-2.0

//! Draws the pictures. They show the distribution of the latencies, and the CPU time by the number of readers and by
//! the size of the frames.

use std::path::Path;

use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

use crate::{
    case::Case,
    figures,
    report::{Measurement, Report},
    statistics::Spread,
    transport::Transport,
};

const PICTURE_SIZE: (u32, u32) = (1000, 540);
const FONT: &str = "sans-serif";
/// Width of the legend beside the chart.
const LEGEND_WIDTH: u32 = 160;
/// The lowest value that a logarithmic axis shows.
const AXIS_MIN: f64 = 0.1;

/// A line with its name and points.
struct Line {
    name: String,
    colour: RGBColor,
    points: Vec<Point>,
}

/// A point of a line: the median over the rounds, with the lowest and the highest value.
#[derive(Clone, Copy)]
struct Point {
    x: f64,
    y: f64,
    low: f64,
    high: f64,
}

struct Picture<'a> {
    file: String,
    title: String,
    x_title: &'a str,
    y_title: &'a str,
    lines: Vec<Line>,
}

/// Draws all pictures for which the report has figures.
pub fn draw(report: &Report, directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for case in report.cases() {
        let latencies = latencies(report, case);
        if !latencies.lines.is_empty() {
            draw_distribution(&latencies, directory).map_err(|error| format!("{}: {error}", latencies.file))?;
        }
    }
    for picture in by_readers(report).into_iter().chain(by_size(report)) {
        draw_lines(&picture, directory).map_err(|error| format!("{}: {error}", picture.file))?;
    }
    Ok(())
}

fn colour(transport: Transport) -> RGBColor {
    match transport {
        Transport::Rsshm => RGBColor(214, 39, 40),
        Transport::RsshmLossless => RGBColor(255, 127, 14),
        Transport::Shm => RGBColor(31, 119, 180),
        Transport::Unixfd => RGBColor(44, 160, 44),
        Transport::Iceoryx2 => RGBColor(188, 189, 34),
        Transport::Tcp => RGBColor(148, 103, 189),
        Transport::Udp => RGBColor(227, 119, 194),
        Transport::Futex => RGBColor(90, 90, 90),
        Transport::Memcpy => RGBColor(140, 86, 75),
        Transport::Fakesink => RGBColor(170, 170, 170),
    }
}

/// The distribution of the latencies in a case. Each quantile is the median over the rounds.
fn latencies(report: &Report, case: Case) -> Picture<'static> {
    let line = |measurement: &Measurement| {
        let rounds: Vec<_> = measurement.runs.iter().filter_map(|run| run.latency.as_ref()).collect();
        let steps = rounds.iter().map(|latency| latency.quantiles_us.len()).min()?;
        let points = (0..steps).filter_map(|step| {
            let of_step = rounds
                .iter()
                .filter_map(|latency| latency.quantiles_us.get(step).copied());
            let spread = Spread::of(of_step)?;
            Some(Point {
                x: spread.median.max(AXIS_MIN),
                y: step as f64 * 100.0 / (steps.max(2) - 1) as f64,
                low: 0.0,
                high: 0.0,
            })
        });
        Some(Line {
            name: measurement.transport.to_string(),
            colour: colour(measurement.transport),
            points: points.collect(),
        })
    };
    Picture {
        file: format!("latency-{}.svg", case.slug()),
        title: format!("Latency: {case}"),
        x_title: "latency from push to the source's pad, µs, logarithmic",
        y_title: "frames that have arrived, %",
        lines: report
            .results
            .iter()
            .filter(|measurement| measurement.case == case)
            .filter_map(line)
            .collect(),
    }
}

/// The lines of one picture, and its case. The measured cases in a picture differ only in what the x axis shows.
type Group = (Case, Vec<Line>);

/// The lines of a figure, grouped by picture. `x` returns the position of a case on the x axis. `group` replaces the
/// part of the case that the x axis shows by a constant, so that all cases of one picture become equal.
fn lines(report: &Report, name: &str, group: impl Fn(Case) -> Case, x: impl Fn(Case) -> f64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for measurement in &report.results {
        let Some(spread) = measurement.figures.get(name) else {
            continue;
        };
        line_of(&mut groups, group(measurement.case), measurement.transport)
            .points
            .push(Point {
                x: x(measurement.case),
                // The logarithmic axis begins at AXIS_MIN.
                y: spread.median.max(AXIS_MIN),
                low: spread.min.max(AXIS_MIN),
                high: spread.max.max(AXIS_MIN),
            });
    }
    for (_, lines) in &mut groups {
        lines.retain(|line| line.points.len() > 1);
        lines
            .iter_mut()
            .for_each(|line| line.points.sort_by(|a, b| a.x.total_cmp(&b.x)));
    }
    groups.retain(|(_, lines)| !lines.is_empty());
    groups
}

/// The line of `transport` in the group of `case`. Adds the group or the line if it is missing.
fn line_of(groups: &mut Vec<Group>, case: Case, transport: Transport) -> &mut Line {
    let index = groups.iter().position(|(other, _)| *other == case).unwrap_or_else(|| {
        groups.push((case, Vec::new()));
        groups.len() - 1
    });
    let lines = &mut groups[index].1;
    let name = transport.to_string();
    let index = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
        lines.push(Line {
            name,
            colour: colour(transport),
            points: Vec::new(),
        });
        lines.len() - 1
    });
    &mut lines[index]
}

fn by_readers(report: &Report) -> Vec<Picture<'static>> {
    let group = |case| Case { readers: 0, ..case };
    let groups = lines(report, figures::WRITER, group, |case| f64::from(case.readers));
    let pictures = groups.into_iter().map(|(case, lines)| Picture {
        file: format!("readers-{}.svg", case.slug().trim_end_matches("-0")),
        title: format!("CPU of the writer by number of readers: {}", without_readers(case)),
        x_title: "readers",
        y_title: "CPU of the writer's process per frame, µs",
        lines,
    });
    pictures.collect()
}

fn by_size(report: &Report) -> Vec<Picture<'static>> {
    let group = |case| Case {
        size: Case::USUAL.size,
        ..case
    };
    let x = |case: Case| case.size.bytes() as f64 / 1e6;
    let groups = lines(report, figures::BOTH_OVER, group, x);
    let mut copies = lines(report, figures::WRITER_OVER, group, x);
    let pictures = groups.into_iter().map(|(case, mut lines)| {
        // memcpy has no reader, so it has no BOTH_OVER. The picture shows its WRITER_OVER instead.
        let copy = copies.iter_mut().find(|(other, _)| *other == case);
        let copy =
            copy.and_then(|(_, lines)| Some(lines.swap_remove(lines.iter().position(|line| line.name == "memcpy")?)));
        lines.extend(copy);
        Picture {
            file: format!("sizes-{}.svg", case.slug().split_once('-').map_or("", |(_, rest)| rest)),
            title: format!("CPU by size of the frames: {}", without_size(case)),
            x_title: "size of a frame, MB",
            y_title: "CPU per frame, writer over fakesink and one reader, µs",
            lines,
        }
    });
    pictures.collect()
}

/// The description of a case without its number of readers.
fn without_readers(case: Case) -> String {
    let text = case.to_string();
    text.rsplit_once(", ").map_or(text.clone(), |(rest, _)| rest.to_owned())
}

/// The description of a case without the size of its frames.
fn without_size(case: Case) -> String {
    let text = case.to_string();
    text.split_once(", ").map_or(String::new(), |(_, rest)| rest.to_owned())
}

type DrawResult = Result<(), Box<dyn std::error::Error>>;

/// The range of an axis. Its ends are the nearest powers of `base` below and above all values.
fn axis_range(values: impl Iterator<Item = f64> + Clone, base: f64) -> std::ops::Range<f64> {
    let high = values.clone().fold(AXIS_MIN, f64::max);
    let low = values.fold(high, f64::min);
    // The margin of 1e-9 is for rounding errors. Without it, a value that is a power of `base` could move an end of the
    // range to the next power.
    base.powf((low.log(base) + 1e-9).floor())
        ..base.powf((high.log(base) - 1e-9).ceil().max(low.log(base).floor() + 1.0))
}

fn draw_distribution(picture: &Picture, directory: &Path) -> DrawResult {
    let points = picture.lines.iter().flat_map(|line| &line.points);
    let x = axis_range(points.map(|point| point.x), 10.0).log_scale();
    draw_chart(picture, directory, x, 0.0..100.0, false)
}

fn draw_lines(picture: &Picture, directory: &Path) -> DrawResult {
    let points = picture.lines.iter().flat_map(|line| &line.points);
    let y = axis_range(points.clone().flat_map(|point| [point.low, point.high]), 10.0).log_scale();
    let x = axis_range(points.map(|point| point.x), 2.0).log_scale().base(2.0);
    draw_chart(picture, directory, x, y, true)
}

/// Draws the lines on the axes `x` and `y`. With `has_markers`, also draws each point and its range over the rounds.
fn draw_chart<X, Y>(picture: &Picture, directory: &Path, x: X, y: Y, has_markers: bool) -> DrawResult
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let path = directory.join(&picture.file);
    let area = SVGBackend::new(&path, PICTURE_SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&picture.title, (FONT, 20))
        .margin(12)
        .margin_right(LEGEND_WIDTH)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(picture.x_title)
        .y_desc(picture.y_title)
        .axis_desc_style((FONT, 15))
        .label_style((FONT, 13))
        .light_line_style(BLACK.mix(0.06))
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .draw()?;
    for line in &picture.lines {
        let points = line.points.iter().map(|point| (point.x, point.y));
        chart.draw_series(LineSeries::new(points, line.colour.stroke_width(2)))?;
        if has_markers {
            let markers = line.points.iter().map(|point| (point.x, point.y));
            chart.draw_series(markers.map(|at| Circle::new(at, 3, line.colour.filled())))?;
            let ranges = line.points.iter().map(|point| {
                PathElement::new(
                    [(point.x, point.low), (point.x, point.high)],
                    line.colour.stroke_width(1),
                )
            });
            chart.draw_series(ranges)?;
        }
    }
    for (index, line) in picture.lines.iter().enumerate() {
        let (x, y) = ((PICTURE_SIZE.0 - LEGEND_WIDTH + 8) as i32, 60 + 20 * index as i32);
        area.draw(&PathElement::new([(x, y), (x + 22, y)], line.colour.stroke_width(2)))?;
        area.draw(&Text::new(line.name.as_str(), (x + 28, y - 7), (FONT, 14)))?;
    }
    area.present()?;
    Ok(())
}

/// The text at a tick of an axis.
fn label(value: &f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
