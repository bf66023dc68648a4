//! Draws a report: time and bus bandwidth over size, both axes of time and that of size logarithmic.

use std::fmt::Write;

use super::report::{Report, Row, Timing};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 432.0;
/// One panel's drawing area: left edge, top, width, height; the second one stands beside it.
const PANEL: (f64, f64, f64, f64) = (64.0, 98.0, 330.0, 270.0);
const NEXT: f64 = 432.0;

/// A line: its name, its colour, where it takes a row's numbers from.
type Series = (&'static str, &'static str, fn(&Row) -> Option<Timing>);
const SERIES: [Series; 2] =
    [("out of place", "#2563a8", |row| row.out_of_place), ("in place", "#d9731a", |row| row.in_place)];

/// The report as an SVG file.
pub(crate) fn svg(report: &Report) -> String {
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="12" fill="#333">
<rect width="100%" height="100%" fill="#fff"/>
<text x="24" y="32" font-size="17" font-weight="600">{}</text>"##,
        title(report)
    );
    legend(&mut svg, report);
    panel(&mut svg, report, 0.0, "time (µs)", Scale::log, |timing| timing.time_us);
    panel(&mut svg, report, NEXT, "bus bandwidth (GB/s)", Scale::linear, |timing| timing.busbw_gbps);
    svg.push_str("</svg>\n");
    svg
}

fn title(report: &Report) -> String {
    let op = report.op.map_or(String::new(), |op| format!(", {op}"));
    let transport = report.transport.as_ref().map_or(String::new(), |name| format!(" over {name}"));
    let Report { collective, dtype, ranks, .. } = report;
    escape(&format!("{collective} of {dtype}{op}: {ranks} ranks{transport}"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn legend(svg: &mut String, report: &Report) {
    let mut x = 24.0;
    for (name, colour, of) in SERIES {
        if report.rows.iter().any(|row| of(row).is_some()) {
            let _ = writeln!(
                svg,
                r#"<circle cx="{}" cy="52" r="4" fill="{colour}"/><text x="{}" y="56">{name}</text>"#,
                x + 4.0,
                x + 14.0
            );
            x += 110.0;
        }
    }
}

fn panel(
    svg: &mut String,
    report: &Report,
    shift: f64,
    name: &str,
    vertical: fn(&[f64]) -> Scale,
    of: fn(Timing) -> f64,
) {
    let (left, top, width, height) = (PANEL.0 + shift, PANEL.1, PANEL.2, PANEL.3);
    let points = |series: &Series| -> Vec<(f64, f64)> {
        let point = |row: &Row| Some((row.bytes as f64, of((series.2)(row)?)));
        report.rows.iter().filter(|row| row.bytes > 0).filter_map(point).collect()
    };
    let all: Vec<(f64, f64)> = SERIES.iter().flat_map(&points).collect();
    let (xs, ys): (Vec<f64>, Vec<f64>) = all.into_iter().unzip();
    let (across, up) = (Scale::log(&xs), vertical(&ys));
    let x = |value: f64| left + width * across.at(value);
    let y = |value: f64| top + height * (1.0 - up.at(value));

    let _ = writeln!(svg, r#"<text x="{left}" y="{}" font-weight="600">{name}</text>"#, top - 10.0);
    for tick in up.ticks(6) {
        let (y, label) = (y(tick), number(tick));
        let _ = writeln!(
            svg,
            r##"<path d="M{left} {y:.1}h{width}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{label}</text>"##,
            left - 8.0,
            y + 4.0
        );
    }
    for tick in across.ticks(7) {
        let (x, bottom, label) = (x(tick), top + height, bytes(tick));
        let _ = writeln!(
            svg,
            r##"<path d="M{x:.1} {bottom}v5" stroke="#999"/><text x="{x:.1}" y="{}" text-anchor="middle">{label}</text>"##,
            bottom + 20.0
        );
    }
    let _ = writeln!(
        svg,
        r##"<path d="M{left} {}h{width}" stroke="#999"/><text x="{}" y="{}" text-anchor="middle">size (bytes)</text>"##,
        top + height,
        left + width / 2.0,
        top + height + 42.0
    );
    for series in &SERIES {
        line(svg, series.1, points(series).into_iter().map(|(size, value)| (x(size), y(value))));
    }
}

fn line(svg: &mut String, colour: &str, points: impl Iterator<Item = (f64, f64)>) {
    let points: Vec<_> = points.collect();
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    if points.len() > 1 {
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join(" ")
        );
    }
    for (x, y) in points {
        let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5" fill="{colour}"/>"#);
    }
}

/// Maps an interval of values to 0 ..= 1.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    fn log(values: &[f64]) -> Self {
        let positive = values.iter().copied().filter(|value| *value > 0.0);
        let low = positive.clone().fold(f64::INFINITY, f64::min);
        let high = positive.fold(0.0, f64::max);
        if high == 0.0 {
            return Self { low: 1.0, high: 10.0, log: true };
        }
        Self { low, high: high.max(low * 2.0), log: true }
    }

    fn linear(values: &[f64]) -> Self {
        let high = values.iter().copied().fold(0.0, f64::max);
        Self { low: 0.0, high: if high > 0.0 { high * 1.05 } else { 1.0 }, log: false }
    }

    fn at(&self, value: f64) -> f64 {
        let Self { low, high, log } = *self;
        let place = match log {
            true => (value.max(low) / low).ln() / (high / low).ln(),
            false => (value - low) / (high - low),
        };
        place.clamp(0.0, 1.0)
    }

    /// At most `most` values worth a label, evenly spread.
    fn ticks(&self, most: usize) -> Vec<f64> {
        let Self { low, high, log } = *self;
        if log {
            // Powers of two or of ten, as many of them apart as it takes.
            let base =
                if low >= 1.0 && high / low < 1e12 && low.log2().fract() == 0.0 { 2.0_f64 } else { 10.0 };
            let first = (low.ln() / base.ln() - 1e-9).ceil() as i32;
            let last = (high.ln() / base.ln() + 1e-9).floor() as i32;
            let step = ((last - first + 1).max(1) as usize).div_ceil(most);
            return (first..=last).step_by(step).map(|power| base.powi(power)).collect();
        }
        let rough = high / most as f64;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * unit).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(high);
        (0..).map(|index| f64::from(index) * step).take_while(|tick| *tick <= high).collect()
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e3 => format!("{}k", v / 1e3),
        v => format!("{}", (v * 1000.0).round() / 1000.0),
    }
}

fn bytes(value: f64) -> String {
    const UNITS: [(&str, f64); 3] = [("G", 1073741824.0), ("M", 1048576.0), ("K", 1024.0)];
    match UNITS.into_iter().find(|(_, unit)| value >= *unit) {
        Some((name, unit)) => format!("{}{name}", value / unit),
        None => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(Scale::linear(&[0.5, 9.0]).ticks(6), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(Scale::log(&[8.0, 64.0]).ticks(7), [8.0, 16.0, 32.0, 64.0]);
        assert!(Scale::log(&[8.0, 67108864.0]).ticks(7).len() <= 7);
        assert_eq!(Scale::log(&[0.3, 20_000.0]).ticks(6), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
    }

    #[test]
    fn nothing_measured_is_no_division_by_zero() {
        for scale in [Scale::log(&[]), Scale::linear(&[]), Scale::log(&[8.0]), Scale::linear(&[0.0])] {
            assert!(scale.at(8.0).is_finite() && !scale.ticks(6).is_empty());
        }
    }
}
