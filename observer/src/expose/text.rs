//! Prometheus' text format, version 0.0.4.
//!
//! By hand, since the official crate writes OpenMetrics only: there a counter's family has not the name of its samples, and
//! `promtool check metrics` reads it as one without type and help.
use std::fmt::Display;
use std::fmt::Write as _;

use crate::meter::definition::Kind;

/// What a scraper takes it for.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page being written.
#[derive(Debug, Default)]
pub struct Text {
    written: String,
}

/// A family being written: its samples follow one another.
pub struct Family<'a> {
    text: &'a mut Text,
    name: &'a str,
}

impl Text {
    /// Begins a family. A counter's name ends in `_total`.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let out = &mut self.written;
        for (word, rest) in [("HELP", help), ("TYPE", kind)] {
            out.extend(["# ", word, " ", name, " "]);
            escape(out, rest, false);
            out.push('\n');
        }
        Family { text: self, name }
    }

    /// The page.
    pub fn finish(self) -> String {
        self.written
    }
}

impl Family<'_> {
    /// A sample with these labels. What is no number is left out.
    pub fn sample<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        value: impl Value,
    ) -> &mut Self {
        if !value.is_number() {
            return self;
        }
        let out = &mut self.text.written;
        out.push_str(self.name);
        let mut before = '{';
        for (name, value) in labels {
            out.push(before);
            before = ',';
            out.extend([name, "=\""]);
            escape(out, value, true);
            out.push('"');
        }
        if before == ',' {
            out.push('}');
        }
        // Writing to a string cannot fail.
        let _infallible = writeln!(out, " {value}");
        self
    }
}

/// What a sample can be.
pub trait Value: Display {
    /// Whether it is one.
    fn is_number(&self) -> bool {
        true
    }
}

impl Value for u64 {}

impl Value for f64 {
    fn is_number(&self) -> bool {
        self.is_finite()
    }
}

/// Backslashes and line ends have a form of their own everywhere, quotes in values of labels.
fn escape(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_its_help_its_type_and_its_samples() {
        let mut text = Text::default();
        text.family("a_total", Kind::Counter, "Line\nbreak \"and\" \\.")
            .sample([], 7)
            .sample([("x", "1"), ("y", "two")], 18_446_744_073_709_551_615);
        text.family("b_ratio", Kind::Gauge, "B.").sample([("x", "")], 0.25);
        assert_eq!(
            text.finish(),
            "# HELP a_total Line\\nbreak \"and\" \\\\.\n# TYPE a_total counter\na_total 7\n\
             a_total{x=\"1\",y=\"two\"} 18446744073709551615\n\
             # HELP b_ratio B.\n# TYPE b_ratio gauge\nb_ratio{x=\"\"} 0.25\n"
        );
    }

    #[test]
    fn no_label_ends_its_line_or_its_quotes() {
        let mut text = Text::default();
        text.family("a", Kind::Gauge, "A.").sample([("x", "q\"\n\\ü} 1")], 1);
        assert!(text.finish().ends_with("\na{x=\"q\\\"\\n\\\\ü} 1\"} 1\n"));
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let mut text = Text::default();
        text.family("a", Kind::Gauge, "A.").sample([], f64::NAN).sample([], f64::INFINITY).sample([], 1e21);
        assert!(text.finish().ends_with("gauge\na 1000000000000000000000\n"));
    }
}
