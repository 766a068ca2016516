//! How our times grow with the input: texts, images and audio from small to large, as a table and a plot.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::arm::Arm;
use super::{BenchArgs, Place};

/// A kind of input with its sizes: what the size is called, and the case of each.
const SERIES: [(&str, &str, &[&str]); 3] = [
    (
        "text",
        "tokens",
        &[
            "text:1x64",
            "text:1x128",
            "text:1x256",
            "text:1x512",
            "text:1x1024",
            "text:1x2048",
            "text:1x4096",
            "text:1x8192",
        ],
    ),
    (
        "picture",
        "pixels a side",
        &["image:512", "image:640", "image:768", "image:896", "image:1024", "image:1120", "image:2048"],
    ),
    ("sound", "seconds", &["audio:1s", "audio:3s", "audio:10s", "audio:30s", "audio:60s", "audio:120s", "audio:240s"]),
];
/// Longest that is spent on a case, in milliseconds.
const CASE_MS: f64 = 8_000.0;

/// Sizes of a series with `--quick`: the smallest.
const QUICK: usize = 4;

/// A point of a curve.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    size: f64,
    case: String,
    ms: f64,
    flops: f64,
}

/// Measures every series of each full-size family and writes `growth-<family>.svg` and `.md` beside the benches.
///
/// # Errors
/// When ours does not start, or a file cannot be written.
pub fn run(root: &Path, place: &Place, families: &[&str], args: &BenchArgs) -> Result<u8> {
    for family in families {
        let mut command = Command::new(&place.ours);
        command.args(["--family", family, "--dtype", &args.dtype]);
        let mut arm = match Arm::start(command) {
            Ok(arm) => arm,
            Err(why) => bail!("our arm: {why}"),
        };
        let mut all = Vec::new();
        for (name, unit, cases) in SERIES {
            let mut points = Vec::new();
            for case in cases.iter().take(if args.quick { QUICK } else { cases.len() }) {
                let point = measure(&mut arm, case).map_err(|why| anyhow::anyhow!("{case}: {why}"))?;
                eprintln!("{family} {case}: {:.1} ms, {:.1} GFLOP/s", point.ms, point.flops / point.ms / 1e6);
                points.push(point);
            }
            all.push((name, unit, points));
        }
        let about = format!("{family}, {}", arm.ready);
        for (ending, text) in [("md", table(&about, &all)), ("svg", plot(&about, &all))] {
            let path = root.join("benches").join(format!("growth-{family}.{ending}"));
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    Ok(0)
}

/// The middle of as many runs as time allows, seven at most; of a long one the first alone.
fn measure(arm: &mut Arm, case: &str) -> Result<Point, String> {
    let first = arm.run(case, 0, 1)?;
    let once = first.ms[0];
    let runs = ((CASE_MS / once) as usize).min(7);
    let mut ms = if runs > 0 { arm.run(case, 0, runs)?.ms } else { first.ms };
    ms.sort_by(f64::total_cmp);
    let size = case.rsplit([':', 'x']).next().unwrap_or_default().trim_end_matches('s');
    let size = size.parse().map_err(|_| "no size".to_string())?;
    Ok(Point { size, case: case.into(), ms: ms[ms.len() / 2], flops: first.flops.unwrap_or(0.0) })
}

/// How fast times grow from one point to the next: 1 is in step with the size, 2 with its square.
fn exponent(from: &Point, to: &Point) -> f64 {
    (to.ms / from.ms).ln() / (to.size / from.size).ln()
}

fn table(about: &str, series: &[(&str, &str, Vec<Point>)]) -> String {
    let mut text = format!(
        "# How time grows: {about}\n\nOne input alone, in one segment. The exponent is that of the size since the row above: for \
         texts and sounds 1 is linear, for pictures 2 is linear in pixels.\n"
    );
    for (name, unit, points) in series {
        write!(text, "\n| {name}, {unit} | ms | GFLOP | GFLOP/s | exponent |\n|--:|--:|--:|--:|--:|\n")
            .expect("a string");
        for (i, point) in points.iter().enumerate() {
            let grown =
                i.checked_sub(1).map_or(String::new(), |before| format!("{:.2}", exponent(&points[before], point)));
            let (size, ms, gflop) = (point.size, point.ms, point.flops / 1e9);
            writeln!(text, "| {size} | {ms:.1} | {gflop:.1} | {:.1} | {grown} |", gflop / ms * 1000.0)
                .expect("a string");
        }
    }
    text
}

/// Three panels side by side, both axes by powers of ten; beside the measured points a line of exponent 1 in operations,
/// which is what a machine of constant speed would need.
fn plot(about: &str, series: &[(&str, &str, Vec<Point>)]) -> String {
    const PANEL: f64 = 300.0;
    const HEIGHT: f64 = 260.0;
    let width = PANEL * series.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"16\">{about}: milliseconds by size; dashed: \
         the operations at the best speed of the panel</text>\n",
        HEIGHT + 30.0
    );
    for (i, (name, unit, points)) in series.iter().enumerate() {
        let best = points.iter().map(|p| p.ms / p.flops.max(1.0)).fold(f64::INFINITY, f64::min);
        let ideal: Vec<f64> = points.iter().map(|p| p.flops * best).collect();
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
            (low.max(1e-3).log10(), high.max(1e-2).log10())
        };
        let (left, right) = bounds(&mut points.iter().map(|p| p.size));
        let (low, high) = bounds(&mut points.iter().map(|p| p.ms).chain(ideal.iter().copied()));
        let (low, high) = (low.floor(), high.ceil());
        let x = |size: f64| PANEL * i as f64 + 45.0 + (size.log10() - left) / (right - left).max(1e-9) * (PANEL - 70.0);
        let y = |ms: f64| 40.0 + (high - ms.max(1e-3).log10()) / (high - low).max(1e-9) * (HEIGHT - 70.0);
        let path = |values: &mut dyn Iterator<Item = (f64, f64)>| {
            values.map(|(size, ms)| format!("{:.1},{:.1}", x(size), y(ms))).collect::<Vec<_>>().join(" ")
        };
        for power in low as i32..=high as i32 {
            let (ms, at) = (10f64.powi(power), y(10f64.powi(power)));
            writeln!(
                svg,
                "<line x1=\"{0:.1}\" y1=\"{at:.1}\" x2=\"{1:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{2:.1}\" \
                 y=\"{3:.1}\" text-anchor=\"end\">{ms}</text>",
                x(10f64.powf(left)),
                x(10f64.powf(right)),
                x(10f64.powf(left)) - 5.0,
                at + 4.0
            )
            .expect("a string");
        }
        let ideal = path(&mut points.iter().map(|p| p.size).zip(ideal.iter().copied()));
        let measured = path(&mut points.iter().map(|p| (p.size, p.ms)));
        writeln!(svg, "<polyline points=\"{ideal}\" fill=\"none\" stroke=\"#999\" stroke-dasharray=\"4 3\"/>")
            .expect("a string");
        writeln!(svg, "<polyline points=\"{measured}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>")
            .expect("a string");
        for point in points {
            let (px, py) = (x(point.size), y(point.ms));
            writeln!(
                svg,
                "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"#06c\"/><text x=\"{px:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\" font-size=\"9\">{}</text>",
                HEIGHT - 16.0,
                point.size
            )
            .expect("a string");
        }
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}, {unit}</text>",
            PANEL * (i as f64 + 0.5),
            HEIGHT + 4.0
        )
        .expect("a string");
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<(&'static str, &'static str, Vec<Point>)> {
        let point = |size: f64, ms: f64| Point { size, case: format!("text:1x{size}"), ms, flops: size * 1e9 };
        vec![("text", "tokens", vec![point(64.0, 10.0), point(128.0, 20.0), point(256.0, 80.0)])]
    }

    #[test]
    fn growth_is_an_exponent_a_row() {
        let text = table("x", &points());
        assert!(text.contains("| 128 | 20.0 | 128.0 | 6400.0 | 1.00 |"), "{text}");
        assert!(text.contains("| 256 | 80.0 | 256.0 | 3200.0 | 2.00 |"), "{text}");
    }

    #[test]
    fn a_plot_is_a_small_file_with_every_point() {
        let svg = plot("x", &points());
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.ends_with("</svg>\n") && svg.len() < 5000 && !svg.contains("NaN"), "{svg}");
    }
}
