//! Results as drawings.
#![expect(clippy::cast_precision_loss, reason = "positions in a drawing")]

use std::fmt::Write as _;

use crate::round::Case;
use crate::round::Side;
use crate::scale::Point;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 380.0;
const ROW: f64 = 18.0;

/// CPU per request in gunicorn by that of gunicorn alone: a bar for each side of each case.
pub fn cases(cases: &[Case]) -> String {
    let sides = [(Side::Observed, "#2b7bba"), (Side::Empty, "#9dc7e5"), (Side::Agent, "#c8553d")];
    let bars: Vec<_> = cases
        .iter()
        .flat_map(|case| {
            let of = move |(side, colour)| Some((case, side, colour, case.ratio(side, |r| r.gunicorn_us)?));
            sides.into_iter().filter_map(of)
        })
        .collect();
    let most = bars.iter().map(|(.., ratio)| *ratio).fold(1.5, f64::max);
    let scale = (WIDTH - LEFT - 70.0) / most;
    let mut text =
        head("CPU per request in gunicorn, by that of gunicorn alone", 50.0 + ROW * bars.len() as f64);
    let mut name = "";
    for (index, (case, side, colour, ratio)) in bars.iter().enumerate() {
        let y = 40.0 + ROW * index as f64;
        if name != case.name {
            name = &case.name;
            label(&mut text, 4.0, y + 12.0, name);
        }
        _ = writeln!(
            text,
            "<rect x='{LEFT}' y='{y:.1}' width='{:.1}' height='{:.1}' fill='{colour}'/>",
            ratio * scale,
            ROW - 3.0
        );
        label(&mut text, LEFT + ratio * scale + 4.0, y + 12.0, &format!("×{ratio:.2} {}", side.name()));
    }
    let one = LEFT + scale;
    _ = writeln!(
        text,
        "<line x1='{one:.1}' x2='{one:.1}' y1='36' y2='{:.1}' stroke='black' stroke-dasharray='3'/>",
        40.0 + ROW * bars.len() as f64
    );
    text + "</svg>\n"
}

/// CPU of an idle observer by workers: a line, and a mark for steps with connections.
pub fn points(points: &[Point]) -> String {
    const HEIGHT: f64 = 320.0;
    let workers = points.iter().map(|point| point.workers).max().unwrap_or(1).max(1) as f64;
    let most = points.iter().map(|point| point.idle_percent).fold(0.5, f64::max);
    let at = |point: &Point| {
        let x = 60.0 + point.workers as f64 / workers * (WIDTH - 320.0);
        (x, HEIGHT - 30.0 - point.idle_percent / most * (HEIGHT - 80.0))
    };
    let mut text = head("CPU of the observer while gunicorn idles, in percent of a core", HEIGHT);
    let bare = points.iter().filter(|point| point.connections == 0 && point.class == "gthread");
    let line: Vec<_> = bare.map(|point| format!("{:.1},{:.1}", at(point).0, at(point).1)).collect();
    _ = writeln!(text, "<polyline points='{}' fill='none' stroke='#2b7bba'/>", line.join(" "));
    for point in points {
        let (x, y) = at(point);
        _ = writeln!(text, "<circle cx='{x:.1}' cy='{y:.1}' r='3' fill='#2b7bba'/>");
        let connections = match point.connections {
            0 => String::new(),
            count => format!(", {count} connections"),
        };
        let what =
            format!("{:.2} %: {} {} workers{connections}", point.idle_percent, point.workers, point.class);
        label(&mut text, x + 6.0, y + 4.0, &what);
    }
    text + "</svg>\n"
}

fn head(title: &str, height: f64) -> String {
    let mut text = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0}' font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n"
    );
    label(&mut text, 4.0, 20.0, title);
    text
}

fn label(text: &mut String, x: f64, y: f64, what: &str) {
    _ = writeln!(text, "<text x='{x:.1}' y='{y:.1}'>{what}</text>");
}
