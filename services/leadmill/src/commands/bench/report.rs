//! The numbers of a benchmark: gathered per run, then printed as a table or as JSON.

use serde_json::{Map, Value, json};

use crate::output::{self, Table};

/// What a number counts; decides how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// So many of something a second.
    PerSecond(&'static str),
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Of 100.
    Percent,
    /// Mebibytes.
    Mebibytes,
    /// Bytes.
    Bytes,
    /// A count, or a mean of counts.
    Count,
}

/// One number of one run.
#[derive(Debug, Clone)]
struct Number {
    key: String,
    label: String,
    unit: Unit,
    /// `None` where it can't be known.
    value: Option<f64>,
}

/// Numbers that belong together.
#[derive(Debug, Clone)]
pub struct Section {
    key: String,
    title: String,
    numbers: Vec<Number>,
}

impl Section {
    /// Without numbers. `key` names it in JSON.
    pub fn new(key: impl Into<String>, title: impl Into<String>) -> Self {
        Self { key: key.into(), title: title.into(), numbers: Vec::new() }
    }

    /// Adds a number, or that it can't be known. `key` names it in JSON.
    pub fn add(
        &mut self,
        key: impl Into<String>,
        label: impl Into<String>,
        unit: Unit,
        value: impl Into<Option<f64>>,
    ) -> &mut Self {
        let value = value.into().filter(|value| value.is_finite());
        self.numbers.push(Number { key: key.into(), label: label.into(), unit, value });
        self
    }
}

/// Everything that one run has measured.
#[derive(Debug, Clone, Default)]
pub struct Report {
    sections: Vec<Section>,
    /// What has to be known to read the numbers rightly.
    notes: Vec<String>,
}

impl Report {
    /// Adds numbers.
    pub fn section(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Adds something that has to be known to read the numbers rightly.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A number that is in it.
    pub fn value(&self, section: &str, key: &str) -> Option<f64> {
        let section = self.sections.iter().find(|found| found.key == section)?;
        section.numbers.iter().find(|found| found.key == key)?.value
    }
}

/// The same number of all runs.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(reports: &[Report], section: &str, key: &str) -> Option<Self> {
        let mut values: Vec<f64> = reports.iter().filter_map(|report| report.value(section, key)).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, least, most })
    }
}

/// Prints the reports of all runs: the median of each number, and its range when there are several runs.
pub fn print(reports: &[Report]) -> anyhow::Result<()> {
    let Some(first) = reports.first() else { return Ok(()) };
    for section in &first.sections {
        output::line(format_args!("\n{}", section.title))?;
        if reports.len() > 1 {
            let mut table = Table::new(["", "median", "range", ""]);
            for number in &section.numbers {
                let [median, range] = match Spread::of(reports, &section.key, &number.key) {
                    Some(spread) => {
                        let range = format!("{} – {}", digits(spread.least), digits(spread.most));
                        [digits(spread.median), range]
                    }
                    None => ["n/a".to_owned(), String::new()],
                };
                table.row([format!("  {}", number.label), median, range, number.unit.name()]);
            }
            table.print()?;
        } else {
            let mut table = Table::headless();
            for number in &section.numbers {
                let value = number.value.map_or_else(|| "n/a".to_owned(), digits);
                table.row([format!("  {}", number.label), value, number.unit.name()]);
            }
            table.print()?;
        }
    }
    let notes: Vec<&String> = distinct_notes(reports);
    if !notes.is_empty() {
        output::line("")?;
    }
    for note in notes {
        output::line(note)?;
    }
    Ok(())
}

/// The reports as JSON: all of every run, and the median and the range of each number.
pub fn json(reports: &[Report]) -> Value {
    let by_number = |value: &dyn Fn(&str, &str) -> Value| {
        let sections = reports.first().map(|report| report.sections.as_slice()).unwrap_or_default();
        let sections = sections.iter().map(|section| {
            let numbers = section.numbers.iter().map(|number| (number.key.clone(), value(&section.key, &number.key)));
            (section.key.clone(), Value::Object(numbers.collect::<Map<_, _>>()))
        });
        Value::Object(sections.collect::<Map<_, _>>())
    };
    let runs: Vec<Value> =
        reports.iter().map(|report| by_number(&|section, key| json!(report.value(section, key)))).collect();
    let spread = |section: &str, key: &str| Spread::of(reports, section, key);
    json!({
        "median": by_number(&|section, key| json!(spread(section, key).map(|spread| spread.median))),
        "range": by_number(&|section, key| json!(spread(section, key).map(|spread| [spread.least, spread.most]))),
        "runs": runs,
        "notes": distinct_notes(reports),
    })
}

fn distinct_notes(reports: &[Report]) -> Vec<&String> {
    let mut notes = Vec::new();
    for note in reports.iter().flat_map(|report| &report.notes) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

impl Unit {
    fn name(self) -> String {
        match self {
            Self::PerSecond(what) => format!("{what}/s"),
            Self::Milliseconds => "ms".to_owned(),
            Self::Seconds => "s".to_owned(),
            Self::Percent => "%".to_owned(),
            Self::Mebibytes => "MiB".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Count => String::new(),
        }
    }
}

/// Three digits that mean something, and no fewer than there are before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(value: Option<f64>) -> Report {
        let mut section = Section::new("speed", "Speed");
        section.add("leads_per_second", "end to end", Unit::PerSecond("leads"), value);
        let mut report = Report::default();
        report.section(section);
        report
    }

    #[test]
    fn several_runs_give_a_median_and_a_range() {
        let runs = [report(Some(30.0)), report(Some(10.0)), report(Some(12.0))];
        let json = json(&runs);
        assert_eq!(json["median"]["speed"]["leads_per_second"], 12.0);
        assert_eq!(json["range"]["speed"]["leads_per_second"], json!([10.0, 30.0]));
        assert_eq!(json["runs"][1]["speed"]["leads_per_second"], 10.0);
        let two = [report(Some(1.0)), report(Some(2.0))];
        assert_eq!(super::json(&two)["median"]["speed"]["leads_per_second"], 1.5);
    }

    #[test]
    fn what_cannot_be_known_is_null_and_never_a_number() {
        for unknown in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            let json = json(&[report(unknown)]);
            assert!(json["median"]["speed"]["leads_per_second"].is_null(), "{json}");
        }
    }

    #[test]
    fn numbers_are_printed_with_the_digits_that_mean_something() {
        for (value, text) in [(0.0, "0"), (0.0314, "0.031"), (2.55555, "2.56"), (31.4159, "31.4"), (31_415.9, "31416")]
        {
            assert_eq!(digits(value), text);
        }
    }
}
