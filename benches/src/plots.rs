//! The pictures: how the latencies are distributed, what more readers cost the writer, what larger frames cost.

use std::path::Path;

use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

use crate::{
    case::Case,
    figures,
    report::{Measured, Report},
    transport::Transport,
};

const SIZE: (u32, u32) = (1000, 540);
const FONT: &str = "sans-serif";
/// Room for the names of the lines, beside the picture.
const LEGEND: u32 = 160;
const LEAST: f64 = 0.1;

/// A line of points, with where its figures lie apart.
struct Line {
    name: String,
    colour: RGBColor,
    points: Vec<Point>,
}

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

/// Draws all pictures that the report has figures for.
pub fn draw(report: &Report, folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for case in report.cases() {
        let latencies = latencies(report, case);
        if !latencies.lines.is_empty() {
            draw_distribution(&latencies, folder).map_err(|error| format!("{}: {error}", latencies.file))?;
        }
    }
    for picture in by_readers(report).into_iter().chain(by_size(report)) {
        draw_lines(&picture, folder).map_err(|error| format!("{}: {error}", picture.file))?;
    }
    Ok(())
}

fn colour(transport: Transport) -> RGBColor {
    match transport {
        Transport::Rsshm => RGBColor(214, 39, 40),
        Transport::RsshmLossless => RGBColor(255, 127, 14),
        Transport::Shm => RGBColor(31, 119, 180),
        Transport::Unixfd => RGBColor(44, 160, 44),
        Transport::Tcp => RGBColor(148, 103, 189),
        Transport::Futex => RGBColor(90, 90, 90),
        Transport::Memcpy => RGBColor(140, 86, 75),
        Transport::Fakesink => RGBColor(170, 170, 170),
    }
}

/// The median over the rounds of each quantile.
fn latencies(report: &Report, case: Case) -> Picture<'static> {
    let line = |measured: &Measured| {
        let rounds: Vec<_> = measured.runs.iter().filter_map(|run| run.latency.as_ref()).collect();
        let steps = rounds.iter().map(|latency| latency.quantiles_us.len()).min()?;
        let points = (0..steps).filter_map(|step| {
            let of_step = rounds
                .iter()
                .filter_map(|latency| latency.quantiles_us.get(step).copied());
            let spread = crate::statistics::Spread::of(of_step)?;
            Some(Point {
                x: spread.median.max(LEAST),
                y: step as f64 * 100.0 / (steps.max(2) - 1) as f64,
                low: 0.0,
                high: 0.0,
            })
        });
        Some(Line {
            name: measured.transport.to_string(),
            colour: colour(measured.transport),
            points: points.collect(),
        })
    };
    Picture {
        file: format!("latency-{}.svg", case.slug()),
        title: format!("Latency: {case}"),
        x_title: "µs from the sink to the source's pad, logarithmic",
        y_title: "% of the frames that have arrived",
        lines: report
            .results
            .iter()
            .filter(|measured| measured.case == case)
            .filter_map(line)
            .collect(),
    }
}

/// The lines of a picture whose cases differ in one thing alone: `x` is that, `group` makes it the same in all.
fn lines(report: &Report, name: &str, group: impl Fn(Case) -> Case, x: impl Fn(Case) -> f64) -> Vec<(Case, Vec<Line>)> {
    let mut groups: Vec<(Case, Vec<Line>)> = Vec::new();
    for measured in &report.results {
        let Some(spread) = measured.figures.get(name) else {
            continue;
        };
        let case = group(measured.case);
        let index = groups.iter().position(|(other, _)| *other == case).unwrap_or_else(|| {
            groups.push((case, Vec::new()));
            groups.len() - 1
        });
        let lines = &mut groups[index].1;
        let title = measured.transport.to_string();
        let index = lines.iter().position(|line| line.name == title).unwrap_or_else(|| {
            lines.push(Line {
                name: title,
                colour: colour(measured.transport),
                points: Vec::new(),
            });
            lines.len() - 1
        });
        lines[index].points.push(Point {
            x: x(measured.case),
            // Nothing less has a place on a logarithmic axis.
            y: spread.median.max(LEAST),
            low: spread.min.max(LEAST),
            high: spread.max.max(LEAST),
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

fn by_readers(report: &Report) -> Vec<Picture<'static>> {
    let group = |case| Case { readers: 0, ..case };
    let groups = lines(report, figures::WRITER, group, |case| f64::from(case.readers));
    let pictures = groups.into_iter().map(|(case, lines)| Picture {
        file: format!("readers-{}.svg", case.slug().trim_end_matches("-0")),
        title: format!("What readers cost the writer: {}", named(case)),
        x_title: "readers",
        y_title: "CPU µs a frame, all of the writer's process",
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
    let pictures = groups.into_iter().map(|(case, mut all)| {
        // Who copies has no reader.
        let copy = copies.iter_mut().find(|(other, _)| *other == case);
        let copy =
            copy.and_then(|(_, lines)| Some(lines.swap_remove(lines.iter().position(|line| line.name == "memcpy")?)));
        all.extend(copy);
        let (_, rest) = named_rest(case);
        Picture {
            file: format!("sizes-{}.svg", case.slug().split_once('-').map_or("", |(_, rest)| rest)),
            title: format!("What larger frames cost: {rest}"),
            x_title: "MB a frame",
            y_title: "CPU µs a frame, writer over fakesink and one reader",
            lines: all,
        }
    });
    pictures.collect()
}

/// A case without its number of readers.
fn named(case: Case) -> String {
    let text = case.to_string();
    text.rsplit_once(", ").map_or(text.clone(), |(rest, _)| rest.to_owned())
}

/// A case's size, and the rest.
fn named_rest(case: Case) -> (String, String) {
    let text = case.to_string();
    text.split_once(", ")
        .map_or((text.clone(), String::new()), |(size, rest)| {
            (size.to_owned(), rest.to_owned())
        })
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Powers of the base around all values.
fn around(values: impl Iterator<Item = f64> + Clone, base: f64) -> std::ops::Range<f64> {
    let high = values.clone().fold(LEAST, f64::max);
    let low = values.fold(high, f64::min);
    // A little apart, as a value on the edge is one beyond it after rounding.
    base.powf((low.log(base) + 1e-9).floor())
        ..base.powf((high.log(base) - 1e-9).ceil().max(low.log(base).floor() + 1.0))
}

fn draw_distribution(picture: &Picture, folder: &Path) -> Drawn {
    let points = picture.lines.iter().flat_map(|line| &line.points);
    let x = around(points.map(|point| point.x), 10.0).log_scale();
    finish(picture, folder, x, 0.0..100.0, false)
}

fn draw_lines(picture: &Picture, folder: &Path) -> Drawn {
    let points = picture.lines.iter().flat_map(|line| &line.points);
    let y = around(points.clone().flat_map(|point| [point.low, point.high]), 10.0).log_scale();
    let x = around(points.map(|point| point.x), 2.0).log_scale().base(2.0);
    finish(picture, folder, x, y, true)
}

/// Draws the lines between these axes; `marked`: each point, and how far its figures lie apart.
fn finish<X, Y>(picture: &Picture, folder: &Path, x: X, y: Y, marked: bool) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let path = folder.join(&picture.file);
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&picture.title, (FONT, 20))
        .margin(12)
        .margin_right(LEGEND)
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
        let style = line.colour.stroke_width(2);
        let points = line.points.iter().map(|point| (point.x, point.y));
        chart.draw_series(LineSeries::new(points, style))?;
        if marked {
            chart.draw_series(
                line.points
                    .iter()
                    .map(|point| Circle::new((point.x, point.y), 3, line.colour.filled())),
            )?;
            let bars = line.points.iter().map(|point| {
                PathElement::new(
                    [(point.x, point.low), (point.x, point.high)],
                    line.colour.stroke_width(1),
                )
            });
            chart.draw_series(bars)?;
        }
    }
    for (index, line) in picture.lines.iter().enumerate() {
        let (x, y) = ((SIZE.0 - LEGEND + 8) as i32, 60 + 20 * index as i32);
        area.draw(&PathElement::new([(x, y), (x + 22, y)], line.colour.stroke_width(2)))?;
        area.draw(&Text::new(line.name.as_str(), (x + 28, y - 7), (FONT, 14)))?;
    }
    area.present()?;
    Ok(())
}

fn label(value: &f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
