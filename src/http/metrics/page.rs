//! The page as it grows: families of samples in Prometheus' text format, each family once, its `HELP` and `TYPE`
//! first.

use crate::histogram::Observed;
use std::fmt::{Display, Write};

/// The page as it grows. Writing to a string does not fail.
#[derive(Default)]
pub struct Page {
    text: String,
}

/// The labels of a sample: names and values. Values have no quotes, backslashes or ends of lines.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// What has been written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// A family of one sample that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help).sample(&[], value);
    }

    /// A family of one sample that never falls while the process lives.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.counters(name, help).sample(&[], value);
    }

    /// A family of one histogram.
    pub fn histogram<const B: usize>(&mut self, name: &str, help: &str, observed: &Observed<B>) {
        self.histograms(name, help).observed(&[], observed);
    }

    /// A family of gauges, to be added.
    pub fn gauges<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, help, "gauge")
    }

    /// A family of counters, to be added.
    pub fn counters<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, help, "counter")
    }

    /// A family of histograms, to be added.
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

/// A family that is being written. Without a sample nothing is written of it.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    /// What is still to be said first.
    head: Option<(&'a str, &'static str)>,
}

impl Family<'_> {
    /// Adds one sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, value);
    }

    /// Adds a histogram: its buckets, each with all that are below it, their sum and count.
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
