//! Metrics: handles bound at setup, one add into the worker's own cell while serving, summed on scrape.
//!
//! The `prometheus` crate is registry and text encoder; the values live in cells that only one worker writes,
//! because a counter that two cores share costs a hundred times as much. Handles with the same name and labels
//! are the same metric, across server blocks and reloads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter as CounterProto, Gauge as GaugeProto, Histogram as HistogramProto, LabelPair,
    Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, Registry, TextEncoder};

use super::query::{Facts, Transport};
use super::wire::Rtype;
use super::worker::{self, WORKERS_MAX};

/// Buckets of durations, in seconds: 0.25 ms doubling to 8.192 s.
pub const TIME_BUCKETS: [f64; 16] = [
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
    2.048, 4.096, 8.192,
];
/// Few buckets of durations, in seconds: 0.25 ms, times ten, to 2.5 s.
pub const SLIM_TIME_BUCKETS: [f64; 5] = [0.00025, 0.0025, 0.025, 0.25, 2.5];
/// Buckets of message sizes, in octets.
pub const SIZE_BUCKETS: [f64; 14] = [
    0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16000.0, 32000.0,
    48000.0, 64000.0,
];

/// Help of `coredns_dns_requests_total`.
pub(crate) const REQUESTS_HELP: &str =
    "Counter of DNS requests made per zone, protocol and family.";
/// Help of `coredns_dns_responses_total`.
pub(crate) const RESPONSES_HELP: &str = "Counter of response status codes.";

/// The types that have a label of their own; all others are `other`.
pub(crate) const TYPE_LABELS: &[(&str, Rtype)] = &[
    ("A", Rtype::A),
    ("AAAA", Rtype::AAAA),
    ("CNAME", Rtype::CNAME),
    ("DNSKEY", Rtype::DNSKEY),
    ("DS", Rtype::DS),
    ("HTTPS", Rtype::HTTPS),
    ("IXFR", Rtype::IXFR),
    ("AXFR", Rtype::AXFR),
    ("ANY", Rtype::ANY),
    ("MX", Rtype::MX),
    ("NS", Rtype::NS),
    ("NSEC", Rtype::NSEC),
    ("NSEC3", Rtype::NSEC3),
    ("PTR", Rtype::PTR),
    ("RRSIG", Rtype::RRSIG),
    ("SOA", Rtype::SOA),
    ("SRV", Rtype::SRV),
    ("SVCB", Rtype::SVCB),
    ("TXT", Rtype::TXT),
];

/// Places of a query in the label sets proto (`udp`, `tcp`), family (`1`, `2`) and type ([`TYPE_LABELS`], then `other`).
pub(crate) fn request_labels(query: &Facts) -> [usize; 3] {
    let proto = usize::from(query.transport() != Transport::Udp);
    let family = usize::from(!query.client().ip().to_canonical().is_ipv4());
    let qtype = TYPE_LABELS
        .iter()
        .position(|(_, rtype)| *rtype == query.qtype())
        .unwrap_or(TYPE_LABELS.len());
    [proto, family, qtype]
}

/// Cells of one metric: one run of values per worker, far enough apart that no two workers share a cache line.
struct Cells {
    rows: usize,
    workers: Box<[Box<[AtomicU64]>]>,
}

/// A cache line holds eight; runs are rounded up to whole lines and one more, since the allocator aligns to 16 octets.
const LINE: usize = 8;

impl Cells {
    fn new(rows: usize, workers: usize) -> Cells {
        let run = rows.next_multiple_of(LINE) + LINE;
        let workers = (0..(workers + 1).min(WORKERS_MAX))
            .map(|_| (0..run).map(|_| AtomicU64::new(0)).collect())
            .collect();
        Cells { rows, workers }
    }

    #[inline]
    fn add(&self, row: usize, n: u64) {
        let worker = worker::index();
        match self.workers.get(worker) {
            // A worker is the only writer of its cells: no locked instruction.
            Some(cells) if worker > 0 => {
                if let Some(cell) = cells.get(row) {
                    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
                }
            }
            _ => {
                if let Some(cell) = self.workers.first().and_then(|cells| cells.get(row)) {
                    cell.fetch_add(n, Relaxed);
                }
            }
        }
    }

    fn sum(&self, row: usize) -> u64 {
        self.workers
            .iter()
            .filter_map(|cells| cells.get(row))
            .fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }
}

/// A number that only grows.
#[derive(Clone)]
pub struct Counter {
    cells: Arc<Cells>,
}

impl Counter {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.cells.add(0, 1);
    }
    /// `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.cells.add(0, n);
    }
    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.cells.sum(0)
    }
}

/// Counters over the product of a few closed label sets; a row that was never counted is not exported.
#[derive(Clone)]
pub struct CounterTable {
    cells: Arc<Cells>,
    sizes: Arc<[usize]>,
}

impl CounterTable {
    /// One more at these positions in the label sets. Out of range counts nothing.
    #[inline]
    pub fn inc(&self, at: &[usize]) {
        let mut row = 0;
        for (i, size) in at.iter().zip(self.sizes.iter()) {
            row = row * size + i.min(&(size - 1));
        }
        self.cells.add(row, 1);
    }
}

/// A number that goes up and down; set it off the hot path.
#[derive(Clone)]
pub struct Gauge {
    value: Arc<AtomicI64>,
}

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.value.store(value, Relaxed);
    }
    /// Adds to it.
    pub fn add(&self, n: i64) {
        self.value.fetch_add(n, Relaxed);
    }
    /// What it stands at.
    pub fn get(&self) -> i64 {
        self.value.load(Relaxed)
    }
}

/// A distribution.
#[derive(Clone)]
pub struct Histogram {
    cells: Arc<Cells>,
    bounds: Arc<[f64]>,
    // The sum is kept in this many parts of one.
    scale: f64,
}

impl Histogram {
    /// One value. No allocation, no locked instruction on a worker.
    #[inline]
    pub fn observe(&self, value: f64) {
        let bucket = self
            .bounds
            .iter()
            .position(|bound| value <= *bound)
            .unwrap_or(self.bounds.len());
        self.cells.add(bucket, 1);
        self.cells
            .add(self.bounds.len() + 1, (value * self.scale) as u64);
    }
    /// How many values it has seen.
    pub fn count(&self) -> u64 {
        (0..=self.bounds.len()).map(|row| self.cells.sum(row)).sum()
    }
}

type Labels = Vec<(String, String)>;
/// Labels of a table with their values; empty for what is no table.
type Dims = Vec<(String, Vec<String>)>;
type Read = Arc<dyn Fn() -> f64 + Send + Sync>;

enum Series {
    Counter(Counter),
    Gauge(Gauge),
    GaugeFn(Weak<dyn Fn() -> f64 + Send + Sync>),
    CounterFn(Weak<dyn Fn() -> f64 + Send + Sync>),
    Histogram(Histogram),
    Table {
        table: CounterTable,
        dims: Vec<(String, Vec<String>)>,
    },
}

struct Family {
    help: String,
    // Two tables may have the same fixed labels: server blocks of one listener, or a reload that changed the zones.
    series: BTreeMap<(Labels, Dims), Series>,
    // Counts of tables that nobody holds any more: a counter does not go back because a reload changed its table.
    retired: BTreeMap<Labels, u64>,
}

impl Family {
    /// What all tables count, by sorted labels; a row that was never counted is left out.
    fn table_rows(&self) -> BTreeMap<Labels, u64> {
        let mut rows = self.retired.clone();
        for ((labels, _), series) in &self.series {
            if let Series::Table { table, dims } = series {
                table.add_rows(labels, dims, &mut rows);
            }
        }
        rows
    }

    /// Puts the counts of tables that only this family holds aside, and lets them go.
    fn retire_tables(&mut self) {
        let retired = &mut self.retired;
        self.series.retain(|(labels, _), series| match series {
            Series::Table { table, dims } if Arc::strong_count(&table.cells) == 1 => {
                table.add_rows(labels, dims, retired);
                false
            }
            _ => true,
        });
    }
}

impl CounterTable {
    fn add_rows(&self, fixed: &Labels, dims: &Dims, rows: &mut BTreeMap<Labels, u64>) {
        for row in 0..self.cells.rows {
            let value = self.cells.sum(row);
            if value == 0 {
                continue;
            }
            let mut rest = row;
            let mut labels = fixed.clone();
            for (label, values) in dims.iter().rev() {
                let size = values.len().max(1);
                let value = values.get(rest % size).cloned().unwrap_or_default();
                labels.push((label.clone(), value));
                rest /= size;
            }
            labels.sort();
            *rows.entry(labels).or_default() += value;
        }
    }
}

fn pairs(labels: &Labels) -> Vec<LabelPair> {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.clone());
        pair.set_value(value.clone());
        pair
    });
    pairs.collect()
}

#[derive(Default)]
struct Hub {
    families: Mutex<BTreeMap<String, Family>>,
}

/// The metrics of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    hub: Arc<Hub>,
    workers: usize,
    registry: Registry,
}

/// Keeps a [`Metrics::gauge_fn`] or [`Metrics::counter_fn`] alive; when it is dropped the series ends.
pub struct Reading {
    _read: Read,
}

impl Metrics {
    /// Metrics for this many workers.
    pub fn new(workers: usize) -> Metrics {
        let hub = Arc::new(Hub::default());
        let registry = Registry::new();
        // Our collector describes nothing in advance, so the registry has nothing to refuse.
        registry
            .register(Box::new(HubCollector {
                hub: Arc::clone(&hub),
                none: Vec::new(),
            }))
            .ok();
        Metrics {
            hub,
            workers,
            registry,
        }
    }

    fn series<T>(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        dims: Dims,
        pick: impl Fn(&Series) -> Option<T>,
        make: impl FnOnce() -> (Series, T),
    ) -> T {
        let mut families = self
            .hub
            .families
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let family = families.entry(name.to_owned()).or_insert_with(|| Family {
            help: help.to_owned(),
            series: BTreeMap::new(),
            retired: BTreeMap::new(),
        });
        let labels: Labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let key = (labels, dims);
        if let Some(found) = family.series.get(&key).and_then(&pick) {
            return found;
        }
        if !key.1.is_empty() {
            family.retire_tables();
        }
        let (series, handle) = make();
        family.series.insert(key, series);
        handle
    }

    /// The counter with this full name and these labels.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        self.series(
            name,
            help,
            labels,
            Dims::new(),
            |series| {
                if let Series::Counter(counter) = series {
                    Some(counter.clone())
                } else {
                    None
                }
            },
            || {
                let counter = Counter {
                    cells: Arc::new(Cells::new(1, self.workers)),
                };
                (Series::Counter(counter.clone()), counter)
            },
        )
    }

    /// The counters over `dims` (label and its values, in order) beside fixed labels. The values must be the same for the same name and labels.
    pub fn table(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        dims: &[(&str, &[&str])],
    ) -> CounterTable {
        let owned: Dims = dims
            .iter()
            .map(|(label, values)| {
                (
                    (*label).to_owned(),
                    values.iter().map(|v| (*v).to_owned()).collect(),
                )
            })
            .collect();
        self.series(
            name,
            help,
            labels,
            owned.clone(),
            |series| match series {
                Series::Table { table, .. } => Some(table.clone()),
                _ => None,
            },
            || {
                let sizes: Arc<[usize]> =
                    dims.iter().map(|(_, values)| values.len().max(1)).collect();
                let table = CounterTable {
                    cells: Arc::new(Cells::new(sizes.iter().product(), self.workers)),
                    sizes,
                };
                (
                    Series::Table {
                        table: table.clone(),
                        dims: owned.clone(),
                    },
                    table,
                )
            },
        )
    }

    /// The gauge with this full name and these labels.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        self.series(
            name,
            help,
            labels,
            Dims::new(),
            |series| {
                if let Series::Gauge(gauge) = series {
                    Some(gauge.clone())
                } else {
                    None
                }
            },
            || {
                let gauge = Gauge {
                    value: Arc::new(AtomicI64::new(0)),
                };
                (Series::Gauge(gauge.clone()), gauge)
            },
        )
    }

    /// A gauge that is read when it is scraped. Replaces an earlier one of the same name and labels.
    pub fn gauge_fn(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Reading {
        let read: Read = Arc::new(read);
        self.series(
            name,
            help,
            labels,
            Dims::new(),
            |_| None,
            || (Series::GaugeFn(Arc::downgrade(&read)), ()),
        );
        Reading { _read: read }
    }

    /// A counter that is kept elsewhere and read when it is scraped.
    pub fn counter_fn(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Reading {
        let read: Read = Arc::new(read);
        self.series(
            name,
            help,
            labels,
            Dims::new(),
            |_| None,
            || (Series::CounterFn(Arc::downgrade(&read)), ()),
        );
        Reading { _read: read }
    }

    /// The histogram with this full name, these buckets and these labels.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[(&str, &str)],
    ) -> Histogram {
        self.series(
            name,
            help,
            labels,
            Dims::new(),
            |series| {
                if let Series::Histogram(histogram) = series {
                    Some(histogram.clone())
                } else {
                    None
                }
            },
            || {
                // Seconds are summed in nanoseconds, octets in octets.
                let scale = if buckets.last().is_some_and(|last| *last > 1000.0) {
                    1.0
                } else {
                    1e9
                };
                let histogram = Histogram {
                    cells: Arc::new(Cells::new(buckets.len() + 2, self.workers)),
                    bounds: buckets.into(),
                    scale,
                };
                (Series::Histogram(histogram.clone()), histogram)
            },
        )
    }

    /// Removes a series, so that it is no longer exported.
    pub fn remove(&self, name: &str, labels: &[(&str, &str)]) {
        let mut families = self
            .hub
            .families
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let labels: Labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        if let Some(family) = families.get_mut(name) {
            family.series.remove(&(labels, Dims::new()));
        }
    }

    /// Everything as Prometheus text (version 0.0.4).
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        // Encoding fails only on families without a metric, which `collect` leaves out.
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .ok();
        String::from_utf8_lossy(&out).into_owned()
    }

    /// One value by its text form (`coredns_cache_hits_total{type="success"}`; labels may be a part of all): the sum of what matches.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let families = self.registry.gather();
        let matches = |metric: &Metric| {
            labels.iter().all(|(k, v)| {
                metric
                    .get_label()
                    .iter()
                    .any(|pair| pair.name() == *k && pair.value() == *v)
            })
        };
        let mut sum = None;
        for family in &families {
            let suffix = name.strip_prefix(family.name());
            for metric in family.get_metric().iter().filter(|metric| matches(metric)) {
                let value = match (family.get_field_type(), suffix) {
                    (MetricType::COUNTER, Some("")) => metric.get_counter().get_value(),
                    (MetricType::GAUGE, Some("")) => metric.get_gauge().get_value(),
                    (MetricType::HISTOGRAM, Some("_count")) => {
                        metric.get_histogram().get_sample_count() as f64
                    }
                    (MetricType::HISTOGRAM, Some("_sum")) => {
                        metric.get_histogram().get_sample_sum()
                    }
                    _ => continue,
                };
                *sum.get_or_insert(0.0) += value;
            }
        }
        sum
    }
}

struct HubCollector {
    hub: Arc<Hub>,
    none: Vec<Desc>,
}

impl Collector for HubCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.none.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self
            .hub
            .families
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut out = Vec::new();
        for (name, family) in families.iter_mut() {
            family.series.retain(|_, series| match series {
                Series::GaugeFn(read) | Series::CounterFn(read) => read.strong_count() > 0,
                _ => true,
            });
            let mut proto = MetricFamily::default();
            proto.set_name(name.clone());
            proto.set_help(family.help.clone());
            let mut metrics = Vec::new();
            for ((labels, _), series) in &family.series {
                if !matches!(series, Series::Table { .. }) {
                    proto.set_field_type(collect_series(labels, series, &mut metrics));
                }
            }
            for (labels, value) in family.table_rows() {
                proto.set_field_type(MetricType::COUNTER);
                let mut metric = Metric::default();
                metric.set_label(pairs(&labels));
                let mut counter = CounterProto::default();
                counter.set_value(value as f64);
                metric.set_counter(counter);
                metrics.push(metric);
            }
            if !metrics.is_empty() {
                proto.set_metric(metrics);
                out.push(proto);
            }
        }
        out
    }
}

fn collect_series(labels: &Labels, series: &Series, metrics: &mut Vec<Metric>) -> MetricType {
    let base = |more: &[(&str, &str)]| {
        let mut metric = Metric::default();
        let own = labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let mut pairs: Vec<LabelPair> = own
            .chain(more.iter().copied())
            .map(|(k, v)| {
                let mut pair = LabelPair::default();
                pair.set_name(k.to_owned());
                pair.set_value(v.to_owned());
                pair
            })
            .collect();
        pairs.sort_by(|a, b| a.name().cmp(b.name()));
        metric.set_label(pairs);
        metric
    };
    let counter = |value: f64, more: &[(&str, &str)]| {
        let mut metric = base(more);
        let mut proto = CounterProto::default();
        proto.set_value(value);
        metric.set_counter(proto);
        metric
    };
    let gauge = |value: f64| {
        let mut metric = base(&[]);
        let mut proto = GaugeProto::default();
        proto.set_value(value);
        metric.set_gauge(proto);
        metric
    };
    match series {
        Series::Counter(handle) => {
            metrics.push(counter(handle.get() as f64, &[]));
            MetricType::COUNTER
        }
        Series::CounterFn(read) => {
            metrics.extend(read.upgrade().map(|read| counter(read(), &[])));
            MetricType::COUNTER
        }
        Series::Gauge(handle) => {
            metrics.push(gauge(handle.get() as f64));
            MetricType::GAUGE
        }
        Series::GaugeFn(read) => {
            metrics.extend(read.upgrade().map(|read| gauge(read())));
            MetricType::GAUGE
        }
        // Tables are summed over all of a family, see `Family::table_rows`.
        Series::Table { .. } => MetricType::COUNTER,
        Series::Histogram(histogram) => {
            let mut metric = base(&[]);
            let mut proto = HistogramProto::default();
            let mut total = 0;
            let mut buckets = Vec::with_capacity(histogram.bounds.len());
            for (row, bound) in histogram.bounds.iter().enumerate() {
                total += histogram.cells.sum(row);
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(total);
                buckets.push(bucket);
            }
            total += histogram.cells.sum(histogram.bounds.len());
            proto.set_bucket(buckets);
            proto.set_sample_count(total);
            proto.set_sample_sum(
                histogram.cells.sum(histogram.bounds.len() + 1) as f64 / histogram.scale,
            );
            metric.set_histogram(proto);
            metrics.push(metric);
            MetricType::HISTOGRAM
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_one_name_are_one_metric() {
        let metrics = Metrics::new(2);
        metrics
            .counter("a_total", "A.", &[("server", "dns://:53")])
            .inc();
        metrics
            .counter("a_total", "A.", &[("server", "dns://:53")])
            .add(2);
        assert_eq!(
            metrics.value("a_total", &[("server", "dns://:53")]),
            Some(3.0)
        );
        assert!(
            metrics.text().contains("a_total{server=\"dns://:53\"} 3\n"),
            "{}",
            metrics.text()
        );
    }

    #[test]
    fn a_table_exports_what_was_counted() {
        let metrics = Metrics::new(1);
        let table = metrics.table(
            "t_total",
            "T.",
            &[("s", "x")],
            &[
                ("proto", &["udp", "tcp"]),
                ("type", &["A", "AAAA", "other"]),
            ],
        );
        table.inc(&[1, 2]);
        let text = metrics.text();
        assert!(
            text.contains("t_total{proto=\"tcp\",s=\"x\",type=\"other\"} 1\n"),
            "{text}"
        );
        assert_eq!(text.matches("t_total{").count(), 1, "{text}");
    }

    #[test]
    fn tables_with_the_same_labels_add_up_and_outlive_their_holders() {
        let metrics = Metrics::new(1);
        let table = |zones: &[&str]| metrics.table("t_total", "T.", &[], &[("zone", zones)]);
        let (first, second) = (table(&["a.", "b."]), table(&["b.", "c."]));
        first.inc(&[1]);
        second.inc(&[0]);
        second.inc(&[1]);
        assert_eq!(metrics.value("t_total", &[("zone", "b.")]), Some(2.0));
        drop((first, second));
        table(&["b."]).inc(&[0]);
        assert_eq!(metrics.value("t_total", &[("zone", "b.")]), Some(3.0));
        assert_eq!(metrics.value("t_total", &[("zone", "c.")]), Some(1.0));
    }

    #[test]
    fn a_histogram_counts_from_workers_and_others() {
        let metrics = Metrics::new(1);
        let histogram = metrics.histogram("h_seconds", "H.", &TIME_BUCKETS, &[]);
        histogram.observe(0.0001);
        std::thread::spawn({
            let histogram = histogram.clone();
            move || {
                worker::become_worker(0);
                histogram.observe(100.0);
            }
        })
        .join()
        .expect("the thread only observes");
        assert_eq!(histogram.count(), 2);
        assert_eq!(metrics.value("h_seconds_sum", &[]), Some(100.0001));
    }

    #[test]
    fn a_reading_ends_with_its_guard() {
        let metrics = Metrics::new(1);
        let reading = metrics.gauge_fn("g", "G.", &[], || 4.0);
        assert_eq!(metrics.value("g", &[]), Some(4.0));
        drop(reading);
        assert_eq!(metrics.value("g", &[]), None);
    }
}
