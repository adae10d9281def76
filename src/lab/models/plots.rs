//! The plots of the page, as SVG text: bars with spreads, percentile curves, memory against connections. Pure.

use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, ChartBuilder, DrawingArea, EmptyElement, IntoDrawingArea, IntoLogRange,
    IntoSegmentedCoord, LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, SegmentValue,
    ShapeStyle, Text, WHITE,
};
use plotters::style::{Color, IntoFont};

use super::report::Row;
use crate::lab::shape::Shape;
use crate::lab::stats::curve;
use crate::settings::units::as_f64;

/// The size of a plot, in pixels.
const SIZE: (u32, u32) = (640, 340);

/// The furthest percentile that is drawn: 99.99 %.
const ONE_IN_MAX: f64 = 1e4;

/// Distinct also without red and green.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// An SVG element; empty if there is nothing to draw, or if it cannot be drawn: the tables hold the figures.
fn svg(draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut text = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area));
        drawn.and_then(|()| area.present().map_err(Into::into))
    };
    if drawn.is_ok() { text } else { String::new() }
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A chart with its caption and room for its axes; at the right this many pixels, for a legend if there is one.
fn framed<'a, 'b>(
    area: &'a Area<'b>,
    caption: &str,
    right: u32,
) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.caption(caption, ("sans-serif", 14).into_font()).margin(12).margin_right(right);
    chart.x_label_area_size(40).y_label_area_size(76);
    chart
}

/// A figure at an axis, without digits that say nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as the axis calls it")]
fn tick(value: &f64) -> String {
    let rounded = (value * 1e3).round() / 1e3;
    format!("{rounded}")
}

/// Megabytes a second of the models of one shape, each bar with a line from its lowest to its highest run.
pub(super) fn throughput(shape: &Shape, rows: &[&Row]) -> String {
    let bars: Vec<_> =
        rows.iter().filter_map(|row| Some((row.model(), row.get("bytes_per_second")?))).collect();
    let highest = bars.iter().map(|(_, rate)| rate.max / 1e6).fold(0.0, f64::max);
    if highest <= 0.0 {
        return String::new();
    }
    svg(|area| {
        let mut chart = framed(area, &shape.words(), 32).build_cartesian_2d(
            (0..bars.len().saturating_sub(1)).into_segmented(),
            0.0..highest * 1.1,
        )?;
        let name = |value: &SegmentValue<usize>| match value {
            SegmentValue::CenterOf(at) => bars.get(*at).map_or(String::new(), |bar| bar.0.clone()),
            SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(1)
            .y_label_formatter(&tick)
            .x_labels(bars.len())
            .x_label_formatter(&name)
            .y_desc("MB/s, median and spread")
            .draw()?;
        chart.draw_series(bars.iter().enumerate().map(|(at, (_, rate))| {
            let corners =
                [(SegmentValue::Exact(at), 0.0), (SegmentValue::Exact(at + 1), rate.median / 1e6)];
            let mut bar = Rectangle::new(corners, colour(at).filled());
            bar.set_margin(0, 0, 12, 12);
            bar
        }))?;
        chart.draw_series(bars.iter().enumerate().map(|(at, (_, rate))| {
            let ends = [rate.min, rate.max].map(|rate| (SegmentValue::CenterOf(at), rate / 1e6));
            PathElement::new(ends.to_vec(), ShapeStyle::from(&BLACK).stroke_width(2))
        }))?;
        Ok(())
    })
}

/// Names at the right ends of lines, one below the other where they would overlap: a legend without a box.
fn legend(area: &Area<'_>, names: &[String]) -> Drawn {
    for (at, name) in names.iter().enumerate() {
        let y = 40 + 18 * i32::try_from(at).unwrap_or(0);
        let x = i32::try_from(SIZE.0).unwrap_or(0) - 120;
        let style = ShapeStyle::from(&colour(at)).stroke_width(3);
        area.draw(&PathElement::new(vec![(x, y + 6), (x + 20, y + 6)], style))?;
        let text = Text::new(name.clone(), (26, 0), ("sans-serif", 12).into_font());
        area.draw(&(EmptyElement::at((x, y)) + text))?;
    }
    Ok(())
}

/// Latency by percentile, to 99.99 %, of the models of one shape.
pub(super) fn percentiles(shape: &Shape, rows: &[&Row]) -> String {
    let rows: Vec<_> = rows.iter().filter(|row| !row.histogram.is_empty()).collect();
    let lines: Vec<_> = rows.iter().map(|row| curve(&row.histogram, ONE_IN_MAX)).collect();
    let highest = lines.iter().flatten().map(|point| point.1).fold(0.0, f64::max);
    if highest <= 0.0 {
        return String::new();
    }
    svg(|area| {
        let mut chart = framed(area, &shape.words(), 140)
            .build_cartesian_2d((1.0..ONE_IN_MAX).log_scale(), 0.0..highest * 1.1)?;
        let percent = |one_in: &f64| format!("{} %", 100.0 - 100.0 / one_in);
        chart
            .configure_mesh()
            .max_light_lines(1)
            .y_label_formatter(&tick)
            .x_labels(5)
            .x_label_formatter(&|one_in| short(&percent(one_in)))
            .x_desc("percentile")
            .y_desc("latency, ms")
            .draw()?;
        for (at, line) in lines.iter().enumerate() {
            let style = ShapeStyle::from(&colour(at)).stroke_width(2);
            chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
        }
        legend(area, &rows.iter().map(|row| row.model()).collect::<Vec<_>>())
    })
}

/// A percentage without the noise of floating point: `99.99 %`.
fn short(percent: &str) -> String {
    let number = percent.trim_end_matches(" %").parse::<f64>().unwrap_or(0.0);
    format!("{} %", (number * 1e4).round() / 1e4)
}

/// Memory of the process, in MiB, against how many connections are held.
pub(super) fn memory(rows: &[&Row]) -> String {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in rows {
        let Some(memory) = row.get("anonymous_bytes") else { continue };
        let point = (as_f64(row.shape.connections), memory.median / 1_048_576.0);
        match lines.iter_mut().find(|(name, _)| *name == row.model()) {
            Some((_, line)) => line.push(point),
            None => lines.push((row.model(), vec![point])),
        }
    }
    lines.iter_mut().for_each(|(_, line)| line.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let points = || lines.iter().flat_map(|(_, line)| line);
    let (most, highest) =
        points().fold((0.0_f64, 0.0_f64), |max, at| (max.0.max(at.0), max.1.max(at.1)));
    if highest <= 0.0 {
        return String::new();
    }
    svg(|area| {
        let mut chart = framed(area, "memory against connections", 140)
            .build_cartesian_2d((1.0..most.max(10.0)).log_scale(), 0.0..highest * 1.1)?;
        chart
            .configure_mesh()
            .max_light_lines(1)
            .y_label_formatter(&tick)
            .x_labels(5)
            .x_label_formatter(&|connections| format!("{connections:.0}"))
            .x_desc("connections")
            .y_desc("own memory, MiB")
            .draw()?;
        for (at, (_, line)) in lines.iter().enumerate() {
            let style = ShapeStyle::from(&colour(at)).stroke_width(2);
            chart.draw_series(LineSeries::new(line.iter().copied(), style).point_size(3))?;
        }
        legend(area, &lines.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())
    })
}
