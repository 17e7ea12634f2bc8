//! Puts values into the families that the `prometheus` crate encodes.

use std::collections::HashMap;

use prometheus::core::Desc;
use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// A metric: its name, what it says, and the labels that all its series have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Family {
    pub(super) fn describe(&self) -> Result<Desc, prometheus::Error> {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
    }
}

/// The series of one scrape, by family.
pub(super) struct Exposition {
    families: Vec<(Family, Vec<Metric>)>,
}

impl Exposition {
    pub(super) fn new(families: &[Family]) -> Self {
        Self { families: families.iter().map(|family| (*family, Vec::new())).collect() }
    }

    /// A gauge or a counter, by its family; label values in the order of the family's labels. What is not a number is
    /// left out.
    pub(super) fn set(&mut self, family: &Family, labels: &[&str], number: f64) {
        if !number.is_finite() {
            return;
        }
        let mut metric = metric(family, labels);
        match family.kind {
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(number);
                metric.set_gauge(gauge);
            }
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(number);
                metric.set_counter(counter);
            }
            Kind::Histogram => return,
        }
        self.put(family, metric);
    }

    pub(super) fn histogram(&mut self, family: &Family, labels: &[&str], histogram: Histogram) {
        let mut metric = metric(family, labels);
        metric.set_histogram(histogram);
        self.put(family, metric);
    }

    fn put(&mut self, family: &Family, metric: Metric) {
        if let Some((_, metrics)) = self.families.iter_mut().find(|(known, _)| known.name == family.name) {
            metrics.push(metric);
        }
    }

    /// What the registry wants; families without a series are left out.
    pub(super) fn finish(self) -> Vec<MetricFamily> {
        let filled = self.families.into_iter().filter(|(_, metrics)| !metrics.is_empty());
        filled
            .map(|(family, metrics)| {
                let mut shown = MetricFamily::default();
                shown.set_name(family.name.to_owned());
                shown.set_help(family.help.to_owned());
                shown.set_field_type(match family.kind {
                    Kind::Gauge => MetricType::GAUGE,
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Histogram => MetricType::HISTOGRAM,
                });
                shown.set_metric(metrics);
                shown
            })
            .collect()
    }
}

fn metric(family: &Family, values: &[&str]) -> Metric {
    debug_assert_eq!(family.labels.len(), values.len(), "labels of {}", family.name);
    let pairs = family.labels.iter().zip(values);
    Metric::from_label(
        pairs
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value((*value).to_owned());
                pair
            })
            .collect(),
    )
}
