//! The measured shares of whole fleets over their size: one colour for each chance of failure.

use std::fmt::Write;

use super::page::{chance, in_place};
use super::statistics::interval;
use super::{Cell, FAILURES, FLEETS};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that people who see few still tell apart.
const COLOURS: [&str; 4] = ["#0072b2", "#56b4e9", "#e69f00", "#d55e00"];
const REPLACED: &str = "#009e73";

/// Where a fleet of this size is, by the logarithm.
fn x(servers: f64) -> f64 {
    let most = FLEETS[FLEETS.len() - 1].0 as f64;
    LEFT + servers.ln() / most.ln() * (WIDTH - LEFT - RIGHT)
}

fn y(share: f64) -> f64 {
    TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)
}

/// The picture, the same for the same numbers.
pub(super) fn svg(cells: &[Cell]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"24\" \
         font-size=\"15\">Fleets that came out whole: measured, with what p^N says as lines</text>\n"
    );
    grid(&mut out);
    for (of_million, colour) in FAILURES.into_iter().zip(COLOURS) {
        calculated(&mut out, of_million, colour);
        for cell in cells.iter().filter(|c| c.of_million == of_million) {
            point(&mut out, cell.servers, cell.upgraded_whole, cell.upgrades, colour, 0.0);
        }
    }
    for (n, of_million) in FAILURES.into_iter().enumerate() {
        for cell in cells.iter().filter(|c| c.of_million == of_million) {
            point(&mut out, cell.servers, cell.deployed_whole, cell.deploys, REPLACED, 3.0 * n as f64 - 4.5);
        }
    }
    legend(&mut out);
    out.push_str("</svg>\n");
    out
}

fn grid(out: &mut String) {
    let (end, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for fifth in 0..=5 {
        let (at, percent) = (y(f64::from(fifth) / 5.0), fifth * 20);
        let _ = writeln!(out, "<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/>");
        let (text, at) = (LEFT - 8.0, at + 4.0);
        let _ = writeln!(out, "<text x=\"{text}\" y=\"{at:.1}\" text-anchor=\"end\">{percent} %</text>");
    }
    for (servers, _) in FLEETS {
        let (at, below) = (x(servers as f64), bottom + 18.0);
        let _ = writeln!(out, "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>");
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{servers}</text>");
    }
    let (middle, below) = (LEFT + (end - LEFT) / 2.0, HEIGHT - 10.0);
    let _ = writeln!(
        out,
        "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">servers in the fleet</text>"
    );
}

fn calculated(out: &mut String, of_million: u64, colour: &str) {
    let sizes = (0..=120).map(|step| 1000_f64.powf(f64::from(step) / 120.0));
    let at = |n: f64| format!("{:.1},{:.1}", x(n), y((in_place(of_million, 1).ln() * n).exp()));
    let points: Vec<String> = sizes.map(at).collect();
    let points = points.join(" ");
    let _ = writeln!(
        out,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
    );
}

/// A share and the interval it is sure to.
fn point(out: &mut String, servers: usize, whole: usize, of: usize, colour: &str, aside: f64) {
    if of == 0 {
        return;
    }
    let (low, high) = interval(whole, of);
    let (at, share) = (x(servers as f64) + aside, y(whole as f64 / of as f64));
    let (low, high) = (y(low), y(high));
    let _ = writeln!(out, "<path d=\"M{at:.1} {high:.1}V{low:.1}\" stroke=\"{colour}\"/>");
    let _ = writeln!(out, "<circle cx=\"{at:.1}\" cy=\"{share:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
}

fn legend(out: &mut String) {
    let left = WIDTH - RIGHT + 16.0;
    let failures = FAILURES
        .into_iter()
        .zip(COLOURS)
        .map(|(f, colour)| (format!("in place, {} fail", chance(f)), colour));
    let lines = [("replaced, all of these".to_owned(), REPLACED)].into_iter().chain(failures);
    for (n, (text, colour)) in lines.enumerate() {
        let at = TOP + 16.0 + 20.0 * n as f64;
        let (text_at, middle) = (left + 12.0, at - 4.0);
        let _ = writeln!(out, "<circle cx=\"{left}\" cy=\"{middle}\" r=\"3.5\" fill=\"{colour}\"/>");
        let _ = writeln!(out, "<text x=\"{text_at}\" y=\"{at}\">{text}</text>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_point_for_each_share() {
        let cell = Cell {
            servers: 10,
            of_million: 100,
            upgrades: 3,
            upgraded_whole: 3,
            deploys: 2,
            ..Cell::default()
        };
        let picture = svg(&[cell]);
        assert_eq!(picture.matches("<circle").count(), 2 + 5, "two shares and the legend");
        assert!(!picture.contains("NaN") && picture.ends_with("</svg>\n"));
    }
}
