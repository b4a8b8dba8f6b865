//! Plots as SVG: grouped bars or lines over named places, with the range of the trials, readable in light and dark.

use std::fmt::Write;

use super::html::escape;

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Its file's name without the end.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What stands at its vertical axis.
    pub y_title: String,
    /// How it is drawn.
    pub kind: Kind,
    /// What is drawn; every series names its places in the same order.
    pub series: Vec<Series>,
    /// A level worth a line of its own, and what it is called.
    pub mark: Option<(f64, String)>,
}

/// How a plot is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bar per point, side by side at each place.
    Bars,
    /// A line per series.
    Lines,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// Their name.
    pub name: String,
    /// From left to right.
    pub points: Vec<Point>,
}

/// One median and the range of its trials.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its place.
    pub x: String,
    /// The median.
    pub y: f64,
    /// The smallest trial.
    pub min: f64,
    /// The largest trial.
    pub max: f64,
}

impl Plot {
    /// The plot as a document that stands alone or inside a page. The vertical axis begins at zero.
    pub fn to_svg(&self) -> String {
        let places = self.places();
        let top = self.top();
        let frame = Frame {
            places: places.len().max(1),
            top,
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n",
            escape(&self.title)
        );
        svg += &self.axes(&frame, &places);
        for (at, series) in self.series.iter().enumerate() {
            svg += &match self.kind {
                Kind::Bars => self.bars(&frame, &places, at, series),
                Kind::Lines => lines(&frame, &places, at, series),
            };
        }
        if let Some((level, name)) = &self.mark {
            let y = frame.y(*level);
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"soft\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                y - 4.0,
                escape(name)
            );
        }
        svg += &self.legend();
        svg + "</svg>\n"
    }

    /// The names of the places, in the order they first occur.
    fn places(&self) -> Vec<&str> {
        let mut places: Vec<&str> = Vec::new();
        for point in self.series.iter().flat_map(|series| &series.points) {
            if !places.contains(&point.x.as_str()) {
                places.push(&point.x);
            }
        }
        places
    }

    /// A round number above everything.
    fn top(&self) -> f64 {
        let points = self.series.iter().flat_map(|series| &series.points);
        let level = self.mark.as_ref().map_or(0.0, |(level, _)| *level);
        let highest = points.fold(level, |highest, point| highest.max(point.max));
        if !(highest > 0.0 && highest.is_finite()) {
            return 1.0;
        }
        let unit = 10f64.powf(highest.log10().floor());
        let steps = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
        let fits = steps.iter().find(|step| *step * unit >= highest);
        fits.unwrap_or(&10.0) * unit
    }

    fn axes(&self, frame: &Frame, places: &[&str]) -> String {
        let mut svg = String::new();
        for tick in 0..=TICKS {
            let value = frame.top * f64::from(tick) / f64::from(TICKS);
            let y = frame.y(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                short(value)
            );
        }
        for (at, place) in places.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                frame.x(at),
                BOTTOM + 18.0,
                escape(place)
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"soft\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>",
            TOP - 12.0,
            escape(&self.y_title)
        );
        svg
    }

    fn bars(&self, frame: &Frame, places: &[&str], number: usize, series: &Series) -> String {
        let slot = frame.step() * 0.8 / self.series.len() as f64;
        let mut svg = String::new();
        for point in &series.points {
            let Some(at) = places.iter().position(|place| *place == point.x) else {
                continue;
            };
            let x = frame.x(at) + slot * (number as f64 - self.series.len() as f64 / 2.0);
            let y = frame.y(point.y);
            let middle = x + slot / 2.0;
            let _ = writeln!(
                svg,
                "<rect class=\"f{}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>\
                 <line class=\"range\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                number % COLOURS,
                x + 1.0,
                (slot - 2.0).max(1.0),
                BOTTOM - y,
                tip(series, point),
                frame.y(point.max),
                frame.y(point.min)
            );
        }
        svg
    }

    fn legend(&self) -> String {
        let mut svg = String::new();
        let mut x = LEFT;
        for (at, series) in self.series.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<rect class=\"f{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                at % COLOURS,
                HEIGHT - 20.0,
                x + 18.0,
                HEIGHT - 10.0,
                escape(&series.name)
            );
            x += 34.0 + 7.5 * series.name.chars().count() as f64;
        }
        svg
    }
}

fn lines(frame: &Frame, places: &[&str], number: usize, series: &Series) -> String {
    let colour = number % COLOURS;
    let mut path = String::new();
    let mut dots = String::new();
    for point in &series.points {
        let Some(at) = places.iter().position(|place| *place == point.x) else {
            continue;
        };
        let (x, y) = (frame.x(at), frame.y(point.y));
        let step = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{step}{x:.1} {y:.1}");
        let _ = writeln!(
            dots,
            "<line class=\"range\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <circle class=\"f{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
            frame.y(point.max),
            frame.y(point.min),
            tip(series, point)
        );
    }
    format!("<path class=\"s{colour}\" d=\"{path}\"/>\n{dots}")
}

/// What a pointer over a point says.
fn tip(series: &Series, point: &Point) -> String {
    escape(&format!(
        "{}, {}: {} ({} to {})",
        series.name,
        point.x,
        short(point.y),
        short(point.min),
        short(point.max)
    ))
}

/// Where data lies on the canvas.
struct Frame {
    places: usize,
    top: f64,
}

impl Frame {
    fn step(&self) -> f64 {
        (RIGHT - LEFT) / self.places as f64
    }

    fn x(&self, at: usize) -> f64 {
        LEFT + self.step() * (at as f64 + 0.5)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (value / self.top).clamp(0.0, 1.0)
    }
}

/// A number for an axis.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        big if big >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 744.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 290.0;
const TICKS: u32 = 5;
/// Colours in [`STYLE`].
const COLOURS: usize = 5;

const STYLE: &str = "
text{font:12px system-ui,sans-serif;fill:#1a1a19}.soft{fill:#5f5e5a}
.grid{stroke:#dddcd6}.range{stroke:#1a1a19;stroke-width:1.5}.mark{stroke:#1a1a19;stroke-dasharray:5 4}
path{fill:none;stroke-width:2}
.f0{fill:#2a78d6}.f1{fill:#d9822b}.f2{fill:#1f9d78}.f3{fill:#8a63d2}.f4{fill:#c24a6a}
.s0{stroke:#2a78d6}.s1{stroke:#d9822b}.s2{stroke:#1f9d78}.s3{stroke:#8a63d2}.s4{stroke:#c24a6a}
@media(prefers-color-scheme:dark){text{fill:#f2f1ec}.soft{fill:#a9a79f}.grid{stroke:#3a3a37}
.range,.mark{stroke:#f2f1ec}}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(kind: Kind, values: &[f64]) -> Plot {
        let points = values.iter().enumerate().map(|(at, y)| Point {
            x: format!("p{at}"),
            y: *y,
            min: *y,
            max: *y,
        });
        let points: Vec<Point> = points.collect();
        let series = |name: &str| Series {
            name: name.to_owned(),
            points: points.clone(),
        };
        Plot {
            name: "x".to_owned(),
            title: "a \"<plot>\"".to_owned(),
            y_title: "ns".to_owned(),
            kind,
            series: vec![series("one"), series("two")],
            mark: None,
        }
    }

    #[test]
    fn there_is_a_bar_or_a_dot_for_every_point() {
        let bars = plot(Kind::Bars, &[1.0, 2.0, 3.0]).to_svg();
        // Two series of three bars, and two in the legend.
        assert_eq!(bars.matches("<rect").count(), 8);
        let lines = plot(Kind::Lines, &[1.0, 2.0, 3.0]).to_svg();
        assert_eq!(lines.matches("<circle").count(), 6);
        assert_eq!(lines.matches("<path").count(), 2);
        assert!(lines.contains("a &quot;&lt;plot&gt;&quot;"));
    }

    #[test]
    fn bars_are_as_high_as_their_values() {
        let svg = plot(Kind::Bars, &[5.0, 10.0]).to_svg();
        let heights: Vec<f64> = svg
            .split("height=\"")
            .skip(1)
            .filter_map(|part| part.split('"').next()?.parse().ok())
            .collect();
        let full = BOTTOM - TOP;
        assert_eq!(heights[1..3], [full / 2.0, full]);
    }

    #[test]
    fn the_axis_ends_at_a_round_number_and_takes_nothing_and_infinity() {
        assert_eq!(plot(Kind::Bars, &[0.97]).top(), 1.0);
        assert_eq!(plot(Kind::Bars, &[1210.0]).top(), 1500.0);
        assert_eq!(plot(Kind::Bars, &[]).top(), 1.0);
        assert_eq!(plot(Kind::Bars, &[0.0]).top(), 1.0);
        assert_eq!(plot(Kind::Bars, &[f64::INFINITY]).top(), 1.0);
        assert!(!plot(Kind::Lines, &[]).to_svg().contains("NaN"));
    }
}
