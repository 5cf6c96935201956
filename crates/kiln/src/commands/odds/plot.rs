//! The odds as a picture: chance of a whole fleet over its size, one line for each chance of a server.

use std::fmt::Write;

use kiln_model::odds::Chance;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Points of a line.
const STEPS: u32 = 120;
/// Colours that people who see few still tell apart.
const COLOURS: [&str; 6] = ["#d55e00", "#0072b2", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b"];
const REPLACED: &str = "#009e73";

/// The picture, the same for the same numbers.
pub(super) fn svg(chances: &[Chance], servers: &[u64], retries: &dyn Fn(u64) -> u64) -> String {
    let scale = Scale::over(servers);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">Chance that a whole fleet comes out right</text>\n"
    );
    scale.grid(&mut out);
    for (n, p) in chances.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        scale.line(&mut out, colour, |size| p.in_place(size, 6).about());
        let label = format!("{p}, in place");
        scale.label(&mut out, colour, &label, p.in_place(scale.most, 6).about());
    }
    if let Some(worst) = chances.iter().min_by(|a, b| a.about().total_cmp(&b.about())) {
        scale.line(&mut out, REPLACED, |size| worst.replaced(size, retries(size), 6).about());
        let label = format!("{worst}, replaced");
        scale.label(&mut out, REPLACED, &label, worst.replaced(scale.most, retries(scale.most), 6).about());
    }
    out.push_str("</svg>\n");
    out
}

/// Where sizes and chances are in the picture; sizes by their logarithm.
struct Scale {
    least: u64,
    most: u64,
}

impl Scale {
    fn over(servers: &[u64]) -> Self {
        let least = servers.iter().min().copied().unwrap_or(1);
        let most = servers.iter().max().copied().unwrap_or(1);
        Self { least, most: most.max(least.saturating_mul(10)) }
    }

    fn x(&self, size: u64) -> f64 {
        let from = (self.least as f64).ln();
        let part = ((size as f64).ln() - from) / ((self.most as f64).ln() - from);
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn y(chance: f64) -> f64 {
        TOP + (1.0 - chance) * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(&self, out: &mut String) {
        for tenth in (0..=10).step_by(2) {
            let y = Self::y(f64::from(tenth) / 10.0);
            let (end, text) = (WIDTH - RIGHT, LEFT - 8.0);
            let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                out,
                "<text x=\"{text}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>",
                y + 4.0,
                tenth * 10
            );
        }
        let powers = std::iter::successors(Some(1_u64), |n| n.checked_mul(10));
        for size in powers.skip_while(|n| *n < self.least).take_while(|n| *n <= self.most) {
            let (x, bottom) = (self.x(size), HEIGHT - BOTTOM);
            let _ = writeln!(out, "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{size}</text>",
                bottom + 18.0
            );
        }
        let (middle, y) = (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT - 10.0);
        let _ = writeln!(out, "<text x=\"{middle}\" y=\"{y}\" text-anchor=\"middle\">servers</text>");
    }

    fn line(&self, out: &mut String, colour: &str, chance: impl Fn(u64) -> f64) {
        let (from, to) = ((self.least as f64).ln(), (self.most as f64).ln());
        let size =
            |step| (from + (to - from) * f64::from(step) / f64::from(STEPS)).exp().round().max(1.0) as u64;
        let mut sizes: Vec<u64> = (0..=STEPS).map(size).collect();
        sizes.dedup();
        let points: Vec<String> =
            sizes.iter().map(|n| format!("{:.1},{:.1}", self.x(*n), Self::y(chance(*n)))).collect();
        let points = points.join(" ");
        let _ = writeln!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
    }

    fn label(&self, out: &mut String, colour: &str, text: &str, chance: f64) {
        let (x, y) = (WIDTH - RIGHT + 6.0, Self::y(chance) + 4.0);
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{y:.1}\" fill=\"{colour}\">{text}</text>");
    }
}
