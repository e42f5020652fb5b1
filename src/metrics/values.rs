//! Numbers by series, and how they are written in Prometheus' text format.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text},
    metrics::MetricType,
    registry::Registry,
};

use super::families::{FAMILIES, Family, Kind, Source};

/// The format of [`Values::text`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;
/// Between the labels of a [`Total`]; no label holds it.
const SEPARATOR: char = ',';
const SUM: &str = "sum";
const BUCKET: &str = "le=";

/// A label's value; most are known when the program is compiled.
pub type Label = Cow<'static, str>;

/// A number as the database keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// The family's name.
    pub metric: String,
    /// Values of its labels, in the family's order, separated by commas.
    pub labels: String,
    /// Empty for a counter; of a histogram `sum`, or `le=` and a bucket's upper bound.
    pub part: String,
    /// How much it is.
    pub value: f64,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The family's place in [`FAMILIES`].
    family: usize,
    labels: Vec<Label>,
    part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Of a counter or a gauge.
    Value,
    Sum,
    /// What fell below this bound and above the one before.
    Bucket(usize),
}

/// Numbers by series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(BTreeMap<Key, f64>);

impl Values {
    /// Adds `by` to a counter, or sets a gauge that is not there yet.
    pub fn add(&mut self, family: &Family, labels: &[Label], by: f64) {
        self.add_part(family, labels, Part::Value, by);
    }

    /// Adds an observation to a histogram.
    pub fn observe(&mut self, family: &Family, labels: &[Label], value: f64) {
        let Kind::Histogram(bounds) = family.kind else {
            return;
        };
        let bucket = bounds.iter().position(|&bound| value <= bound);
        let bucket = Part::Bucket(bucket.unwrap_or(bounds.len()));
        self.add_part(family, labels, bucket, 1.0);
        self.add_part(family, labels, Part::Sum, value);
    }

    fn add_part(&mut self, family: &Family, labels: &[Label], part: Part, by: f64) {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let Some(family) = place(family.name) else {
            return;
        };
        let key = Key {
            family,
            labels: labels.to_vec(),
            part,
        };
        *self.0.entry(key).or_default() += by;
    }

    /// Adds every number of `other`.
    pub fn extend(&mut self, other: Self) {
        for (key, value) in other.0 {
            *self.0.entry(key).or_default() += value;
        }
    }

    /// Whether there is anything to tell.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the database keeps them, in one order everywhere: two processes that add to the same rows
    /// must not wait for each other.
    pub fn totals(&self) -> Vec<Total> {
        let total = |(key, value): (&Key, &f64)| {
            let family = FAMILIES[key.family];
            Total {
                metric: family.name.to_owned(),
                labels: key.labels.join(&SEPARATOR.to_string()),
                part: key.part.text(family),
                value: *value,
            }
        };
        self.0.iter().map(total).collect()
    }

    /// From what the database keeps. What another version of the program keeps there, and this one
    /// does not know, is left out.
    pub fn from_totals(totals: Vec<Total>) -> Self {
        let mut values = Self::default();
        for total in totals {
            if let Some(key) = key_of(&total) {
                *values.0.entry(key).or_default() += total.value;
            }
        }
        values
    }

    /// All of it in Prometheus' text format, version 0.0.4.
    pub fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Labels and parts of a family's series, in order.
    fn series(&self, place: usize) -> BTreeMap<&[Label], Vec<(Part, f64)>> {
        let mut series: BTreeMap<&[Label], Vec<(Part, f64)>> = BTreeMap::new();
        for (key, value) in self.0.iter().filter(|(key, _)| key.family == place) {
            let parts = series.entry(key.labels.as_slice()).or_default();
            parts.push((key.part, *value));
        }
        series
    }
}

impl Collector for Values {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (place, family) in FAMILIES.iter().enumerate() {
            let series = self.series(place);
            if series.is_empty() {
                continue;
            }
            let (name, kind) = match family.kind {
                // The encoder adds the suffix.
                Kind::Counter => (family.name.trim_end_matches("_total"), MetricType::Counter),
                Kind::Gauge => (family.name, MetricType::Gauge),
                Kind::Histogram(_) => (family.name, MetricType::Histogram),
            };
            let mut metric = encoder.encode_descriptor(name, family.help, None, kind)?;
            for (values, parts) in series {
                let labels: Vec<(&str, &str)> = family
                    .labels
                    .iter()
                    .zip(values)
                    .map(|(name, value)| (*name, value.as_ref()))
                    .collect();
                encode_series(family, &parts, metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn encode_series(
    family: &Family,
    parts: &[(Part, f64)],
    mut metric: MetricEncoder<'_>,
) -> fmt::Result {
    let number = |wanted: Part| {
        let mut found = parts.iter().filter(|(part, _)| *part == wanted);
        found.next().map_or(0.0, |(_, value)| *value)
    };
    match family.kind {
        Kind::Counter => {
            let value = number(Part::Value);
            if value.fract() == 0.0 {
                return metric.encode_counter::<NoLabelSet, u64, f64>(&(value as u64), None);
            }
            metric.encode_counter::<NoLabelSet, f64, f64>(&value, None)
        }
        Kind::Gauge => {
            let value = number(Part::Value);
            if value.fract() == 0.0 {
                return metric.encode_gauge(&(value as i64));
            }
            metric.encode_gauge(&value)
        }
        Kind::Histogram(bounds) => {
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds
                .enumerate()
                .map(|(index, bound)| (bound, number(Part::Bucket(index)) as u64))
                .collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            metric.encode_histogram::<NoLabelSet>(number(Part::Sum), count, &buckets, None)
        }
    }
}

impl Part {
    fn text(self, family: &Family) -> String {
        match (self, family.kind) {
            (Self::Sum, _) => SUM.to_owned(),
            (Self::Bucket(index), Kind::Histogram(bounds)) => {
                format!("{BUCKET}{}", bounds.get(index).unwrap_or(&f64::INFINITY))
            }
            _ => String::new(),
        }
    }

    fn of(text: &str, family: &Family) -> Option<Self> {
        let Kind::Histogram(bounds) = family.kind else {
            return text.is_empty().then_some(Self::Value);
        };
        if text == SUM {
            return Some(Self::Sum);
        }
        let mut parts = (0..=bounds.len()).map(Self::Bucket);
        parts.find(|part| part.text(family) == text)
    }
}

fn place(name: &str) -> Option<usize> {
    FAMILIES.iter().position(|family| family.name == name)
}

fn key_of(total: &Total) -> Option<Key> {
    let place = place(&total.metric)?;
    let family = FAMILIES[place];
    let labels: Vec<Label> = total
        .labels
        .split(SEPARATOR)
        .map(|label| Label::Owned(label.to_owned()))
        .collect();
    if family.source != Source::Totals || labels.len() != family.labels.len() {
        return None;
    }
    Some(Key {
        family: place,
        labels,
        part: Part::of(&total.part, family)?,
    })
}
