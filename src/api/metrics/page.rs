//! The page under construction: families of samples in Prometheus' text format. Each family appears once and begins
//! with its `HELP` and `TYPE`.

use crate::histogram::Observed;
use std::fmt::{Display, Write};

/// The page under construction. Writing to a string cannot fail.
#[derive(Default)]
pub struct Page {
    text: String,
}

/// The labels of a sample: names and values. Values contain no quotes, backslashes or newlines.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// The text written so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// Adds a family with one sample that can increase and decrease.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help).sample(&[], value);
    }

    /// Adds a family with one sample that never decreases while the process runs.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.counters(name, help).sample(&[], value);
    }

    /// Adds a family with one histogram.
    pub fn histogram<const B: usize>(&mut self, name: &str, help: &str, observed: &Observed<B>) {
        self.histograms(name, help).observed(&[], observed);
    }

    /// Begins a family of gauges. The caller adds the samples.
    pub fn gauges<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, help, "gauge")
    }

    /// Begins a family of counters. The caller adds the samples.
    pub fn counters<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, help, "counter")
    }

    /// Begins a family of histograms. The caller adds them.
    pub fn histograms<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, help, "histogram")
    }

    fn family<'a>(&'a mut self, name: &'a str, help: &'a str, kind: &'static str) -> Family<'a> {
        Family {
            text: &mut self.text,
            name,
            head: Some((help, kind)),
        }
    }
}

/// A family under construction. A family without samples is not written.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    /// Help and type, until the first sample is written.
    head: Option<(&'a str, &'static str)>,
}

impl Family<'_> {
    /// Adds one sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, value);
    }

    /// Adds a histogram: its buckets (each counts all smaller values too), its sum and its count.
    pub fn observed<const B: usize>(&mut self, labels: Labels<'_>, observed: &Observed<B>) {
        for (bound, count) in observed.bounds.iter().zip(observed.counts) {
            let bound = match bound {
                bound if bound.is_finite() => bound.to_string(),
                _ => "+Inf".to_owned(),
            };
            let labels = [labels, &[("le", &bound)]].concat();
            self.line("_bucket", &labels, count);
        }
        self.line("_sum", labels, observed.sum);
        self.line("_count", labels, observed.count());
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        let name = self.name;
        if let Some((help, kind)) = self.head.take() {
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let _ = write!(self.text, "{name}{suffix}");
        for (number, (label, value)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{value}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use std::time::Duration;

    #[test]
    fn a_page_of_each_kind() {
        let mut page = Page::default();
        page.gauge("a", "An a.", 1.5);
        page.counters("none_total", "Nothing happened.");
        let mut family = page.counters("b_total", "Some b.");
        family.sample(&[("x", "1")], 2);
        family.sample(&[("x", "2"), ("y", "3")], 4);
        let times = Histogram::<1000, 3>::default();
        times.add(Duration::from_millis(2));
        page.histogram("c_seconds", "Times.", &times.read());
        let wanted = "# HELP a An a.\n# TYPE a gauge\na 1.5\n\
            # HELP b_total Some b.\n# TYPE b_total counter\nb_total{x=\"1\"} 2\nb_total{x=\"2\",y=\"3\"} 4\n\
            # HELP c_seconds Times.\n# TYPE c_seconds histogram\n\
            c_seconds_bucket{le=\"0.001\"} 0\nc_seconds_bucket{le=\"0.002\"} 1\n\
            c_seconds_bucket{le=\"+Inf\"} 1\nc_seconds_sum 0.002\nc_seconds_count 1\n";
        assert_eq!(String::from_utf8(page.into_bytes()).expect("text"), wanted);
    }
}
