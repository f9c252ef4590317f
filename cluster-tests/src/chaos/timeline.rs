//! A run as a picture: load, latency and leader over time, and when which fault was in force. SVG, readable without colours.

use std::fmt::Write;

use super::progress::Sample;
use super::run::RunReport;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 44.0;
const PANEL: f64 = 130.0;
const GAP: f64 = 30.0;
const ROW: f64 = 18.0;

/// Shades of the replicas, told apart by their number too.
const SHADES: &[&str] = &["#1b6ca8", "#d17a00", "#3a8f3a", "#8a4fa3", "#a83232", "#5b5b5b"];

/// Pictures need no more precision than this has.
fn real(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

struct Picture<'a> {
    svg: String,
    report: &'a RunReport,
    end_ms: u64,
}

/// Draws a run.
pub(super) fn draw(report: &RunReport) -> String {
    let end_ms = report.samples.last().map_or(report.took_ms, |sample| sample.at_ms).max(1);
    let mut picture = Picture { svg: String::new(), report, end_ms };
    let bottom = TOP + 3.0 * (PANEL + GAP) + ROW;
    let rows = u64::try_from(report.faults.len()).unwrap_or(0);
    picture.begin(bottom + GAP + real(rows) * ROW + 20.0);
    picture.shadows(bottom);
    picture.panel(TOP, "acknowledged a second", |sample| sample.rate);
    picture.panel(TOP + PANEL + GAP, "p99 or waiting, ms", |sample| sample.p99_ms.max(sample.waiting_ms));
    picture.panel(TOP + 2.0 * (PANEL + GAP), "memory of the largest replica, MiB", |sample| real(sample.replica_mib));
    picture.leaders(TOP + 3.0 * (PANEL + GAP));
    picture.seconds(bottom + 14.0);
    picture.faults(bottom + GAP + 6.0);
    picture.svg.push_str("</svg>\n");
    picture.svg
}

impl Picture<'_> {
    fn x(&self, at_ms: u64) -> f64 {
        LEFT + (WIDTH - LEFT - 10.0) * real(at_ms.min(self.end_ms)) / real(self.end_ms)
    }

    fn add(&mut self, part: &str) {
        self.svg.push_str(part);
        self.svg.push('\n');
    }

    fn begin(&mut self, height: f64) {
        let RunReport { scenario, seed, outcome, .. } = self.report;
        self.add(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" \
             font-size=\"11\"><rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"white\"/>\
             <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{scenario}, seed {seed}: {outcome:?}</text>"
        ));
    }

    /// Behind everything, where a fault was in force.
    fn shadows(&mut self, bottom: f64) {
        for fault in &self.report.faults {
            let (from, to) = (self.x(fault.began_ms), self.x(fault.ended_ms));
            self.add(&format!(
                "<rect x=\"{from:.1}\" y=\"32\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#c00\" opacity=\"0.12\"/>",
                (to - from).max(1.0),
                bottom - 32.0
            ));
        }
    }

    fn panel(&mut self, top: f64, title: &str, value: impl Fn(&Sample) -> f64) {
        let most = self.report.samples.iter().map(&value).fold(1.0, f64::max);
        let mut points = String::new();
        for sample in &self.report.samples {
            let y = top + PANEL - PANEL * value(sample) / most;
            let _infallible = write!(points, "{:.1},{y:.1} ", self.x(sample.at_ms));
        }
        let base = top + PANEL;
        self.add(&format!(
            "<text x=\"4\" y=\"{:.1}\">{most:.0}</text><text x=\"4\" y=\"{base:.1}\">0</text>\
             <text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#666\">{title}</text>\
             <line x1=\"{LEFT}\" y1=\"{base:.1}\" x2=\"{WIDTH}\" y2=\"{base:.1}\" stroke=\"#999\"/>\
             <polyline points=\"{points}\" fill=\"none\" stroke=\"#1b6ca8\" stroke-width=\"1.5\"/>",
            top + 10.0,
            top - 4.0,
        ));
    }

    fn leaders(&mut self, top: f64) {
        self.add(&format!("<text x=\"4\" y=\"{:.1}\">leader</text>", top + 12.0));
        let mut samples = self.report.samples.iter().peekable();
        while let Some(first) = samples.next() {
            while samples.next_if(|next| next.leader == first.leader).is_some() {}
            let to = samples.peek().map_or(self.end_ms, |next| next.at_ms);
            let Some(leader) = first.leader else { continue };
            let shade = SHADES[usize::try_from(leader).unwrap_or(0) % SHADES.len()];
            let (from, to) = (self.x(first.at_ms), self.x(to));
            self.add(&format!(
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{ROW}\" fill=\"{shade}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"white\">{leader}</text>",
                (to - from).max(0.5),
                from + 3.0,
                top + 13.0
            ));
        }
    }

    fn seconds(&mut self, y: f64) {
        let step = usize::try_from(self.end_ms / 15_000).unwrap_or(0) + 1;
        for second in (0..=self.end_ms / 1_000).step_by(step) {
            let at = self.x(second * 1_000);
            self.add(&format!("<text x=\"{at:.1}\" y=\"{y:.1}\" fill=\"#666\">{second} s</text>"));
        }
    }

    fn faults(&mut self, top: f64) {
        for (row, fault) in (0_u64..).zip(&self.report.faults) {
            let y = top + real(row) * ROW;
            let (from, to) = (self.x(fault.began_ms), self.x(fault.ended_ms));
            self.add(&format!(
                "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"12\" fill=\"#c00\" opacity=\"0.5\"/>\
                 <text x=\"{LEFT}\" y=\"{:.1}\">{} ({} to {} ms)</text>",
                (to - from).max(1.0),
                y + 10.0,
                fault.fault,
                fault.began_ms,
                fault.ended_ms
            ));
        }
    }
}
