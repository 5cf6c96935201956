//! Figures for Prometheus: what was asked, of whom, how it went and how long it took.
//!
//! A meter is kept for each route and fleet, from the first request that takes the one to the other until the fleet is
//! gone. Everything is counted where it happens, with one addition; text is made only when somebody asks for it.

mod by_cause;
mod stores;
mod tcp;
mod tls;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kiln_model::{FleetCount, FleetId, ReleaseId};

use crate::counts::{Tally, Totals};
use crate::refusal::Refusal;
pub(crate) use by_cause::{ByCause, Cause, Flaw, Reason};
use stores::Stores;
use tcp::TcpFigures;
pub(crate) use tcp::{OpenConnection, TcpMeter};
use tls::TlsFigures;

/// Upper bounds of the buckets of durations, in microseconds.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 60_000_000,
];

/// What is counted of one route at one fleet.
#[derive(Debug)]
pub(crate) struct Meter {
    labels: String,
    tally: Arc<Tally>,
    /// By the first digit of the status, from 1 to 5.
    answers: [AtomicU64; 5],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    bytes: AtomicU64,
    /// What went wrong; most routes never have anything.
    drops: OnceLock<Box<Drops>>,
}

/// What went wrong at one route and fleet.
#[derive(Debug, Default)]
struct Drops {
    refused: Causes,
    spoilt: ByCause<Flaw>,
}

impl Meter {
    fn new(labels: String, tally: Arc<Tally>) -> Arc<Self> {
        Arc::new(Self {
            labels,
            tally,
            answers: Default::default(),
            buckets: Default::default(),
            micros: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            drops: OnceLock::new(),
        })
    }

    /// Counts a request that no instance answered.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.drops.get_or_init(Box::default).refused.count(refusal);
    }

    /// Counts an answer that was not what it promised.
    pub(crate) fn spoilt(&self, flaw: Flaw) {
        self.drops.get_or_init(Box::default).spoilt.count(flaw);
    }

    /// Counts a request that has ended.
    pub(crate) fn count(&self, status: u16, took: Duration, bytes: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.answers[class].fetch_add(1, Relaxed);
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

/// Why the edge did not get an answer from an instance, counted.
#[derive(Debug, Default)]
pub(crate) struct Causes([AtomicU64; Refusal::CAUSES.len()]);

impl Causes {
    pub(crate) fn count(&self, refusal: Refusal) {
        if let Some(at) = Refusal::CAUSES.iter().position(|cause| *cause == refusal.cause()) {
            self.0[at].fetch_add(1, Relaxed);
        }
    }

    /// Those of which there are any.
    fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Refusal::CAUSES.iter().zip(&self.0).map(|(cause, count)| (*cause, count.load(Relaxed)));
        all.filter(|(_, count)| *count > 0)
    }
}

/// Meters by fleet, then by place.
type ByFleet = HashMap<FleetId, HashMap<String, Arc<Meter>>>;

/// All meters of the edge.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    meters: Mutex<ByFleet>,
    /// The fleets of the table in force.
    fleets: Mutex<Vec<Arc<Tally>>>,
    /// Requests that no instance answered, by cause.
    pub(crate) causes: Causes,
    pub(crate) tls: TlsFigures,
    pub(crate) stores: Stores,
    pub(crate) tcp: TcpFigures,
    /// Connections of clients.
    pub(crate) turned_away: ByCause<Reason>,
    /// Answers of instances.
    pub(crate) flaws: ByCause<Flaw>,
}

impl Registry {
    fn all(&self) -> MutexGuard<'_, ByFleet> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn meters(&self) -> Meters<'_> {
        Meters(self.all())
    }

    fn fleets(&self) -> MutexGuard<'_, Vec<Arc<Tally>>> {
        self.fleets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Figures are those of these fleets from now on.
    pub(crate) fn follow(&self, mut fleets: Vec<Arc<Tally>>) {
        fleets.sort_by_key(|tally| tally.fleet().to_string());
        *self.fleets() = fleets;
    }

    /// Forgets the fleets that are no more: series that nobody adds to would be kept for ever.
    pub(crate) fn forget_gone(&self) {
        self.all().retain(|_, of_fleet| {
            // One that is parted has the counts of before, which are over, and those of what is inside.
            of_fleet.retain(|_, meter| !meter.tally.is_gone());
            !of_fleet.is_empty()
        });
        self.tcp.forget_gone();
    }

    /// All figures, in Prometheus's text format.
    pub(crate) fn text(&self, totals: &Totals) -> String {
        // Requests that need a meter do not wait until thousands are written down.
        let mut all: Vec<Arc<Meter>> = self.all().values().flat_map(HashMap::values).cloned().collect();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut text = String::new();
        requests(&mut text, &all);
        durations(&mut text, &all);
        drops(&mut text, &all);
        self.tcp.text(&mut text);
        fleets(&mut text, &self.fleets().clone());
        self.whole(&mut text, totals);
        let (turned_away, flaws) = ("kiln_edge_refused_connections_total", "kiln_edge_spoilt_answers_total");
        let help = "Connections not let in, or ended for what their client did.";
        self.turned_away.text(&mut text, turned_away, help);
        self.flaws.text(&mut text, flaws, "Answers that broke off, or went on beyond their end.");
        self.stores.text(&mut text);
        self.tls.text(&mut text);
        text
    }

    fn whole(&self, text: &mut String, totals: &Totals) {
        family(
            text,
            "kiln_edge_refused_requests_total",
            "counter",
            "Requests that no instance answered, by cause.",
        );
        for (cause, count) in Refusal::CAUSES.iter().zip(&self.causes.0) {
            line(
                text,
                "kiln_edge_refused_requests_total",
                &format!("cause=\"{cause}\""),
                count.load(Relaxed),
            );
        }
        for (name, kind, help, value) in [
            ("kiln_edge_requests_total", "counter", "All requests begun.", &totals.requests),
            (
                "kiln_edge_failed_requests_total",
                "counter",
                "Of these, failed by service or edge.",
                &totals.failed,
            ),
            ("kiln_edge_in_flight_requests", "gauge", "Requests begun and not ended.", &totals.in_flight),
            ("kiln_edge_connections", "gauge", "Client connections, tunnels included.", &totals.connections),
            ("kiln_edge_retries_total", "counter", "Requests sent a second time.", &totals.retries),
            ("kiln_edge_ejections_total", "counter", "Instances left alone for a while.", &totals.ejections),
        ] {
            family(text, name, kind, help);
            line(text, name, "", value.load(SeqCst));
        }
    }
}

/// All of them, while nobody else has them.
pub(crate) struct Meters<'a>(MutexGuard<'a, ByFleet>);

impl Meters<'_> {
    /// The meter of `place`, a route or a need, at the fleet that `tally` counts.
    pub(crate) fn at(&mut self, place: &str, tally: &Arc<Tally>, release: Option<&ReleaseId>) -> Arc<Meter> {
        let known = self.0.get(tally.fleet()).and_then(|of_fleet| of_fleet.get(place));
        if let Some(meter) = known.filter(|meter| Arc::ptr_eq(&meter.tally, tally)) {
            return meter.clone();
        }
        let fleet = tally.fleet();
        let release = release.map_or("", |r| r.as_str());
        let labels = format!(
            "app=\"{}\",service=\"{}\",release=\"{release}\",generation=\"{}\",route=\"{}\"",
            fleet.app,
            fleet.service,
            fleet.generation.0,
            escaped(place)
        );
        let meter = Meter::new(labels, tally.clone());
        self.0.entry(fleet.clone()).or_default().insert(place.to_owned(), meter.clone());
        meter
    }
}

fn requests(text: &mut String, all: &[Arc<Meter>]) {
    family(text, "kiln_requests_total", "counter", "Requests answered, by class of status.");
    for meter in all {
        for (class, count) in (1..).zip(&meter.answers) {
            let labels = format!("{},status=\"{class}xx\"", meter.labels);
            line(text, "kiln_requests_total", &labels, count.load(Relaxed));
        }
    }
    family(text, "kiln_response_bytes_total", "counter", "Bytes of bodies answered.");
    for meter in all {
        line(text, "kiln_response_bytes_total", &meter.labels, meter.bytes.load(Relaxed));
    }
}

fn durations(text: &mut String, all: &[Arc<Meter>]) {
    let name = "kiln_request_duration_seconds";
    family(text, name, "histogram", "From the head of a request to the end of its answer.");
    for meter in all {
        let mut sum = 0;
        for (at, bucket) in meter.buckets.iter().enumerate() {
            sum += bucket.load(Relaxed);
            let bound = BOUNDS.get(at).map_or("+Inf".to_owned(), |micros| (*micros as f64 / 1e6).to_string());
            line(text, &format!("{name}_bucket"), &format!("{},le=\"{bound}\"", meter.labels), sum);
        }
        let seconds = meter.micros.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "{name}_sum{{{}}} {seconds}", meter.labels);
        line(text, &format!("{name}_count"), &meter.labels, sum);
    }
}

/// Series begin with the first drop: there are more causes than most routes ever have drops.
fn drops(text: &mut String, all: &[Arc<Meter>]) {
    let dropped: Vec<_> = all.iter().filter_map(|meter| Some((&meter.labels, meter.drops.get()?))).collect();
    let cause = |labels: &str, cause: &str| format!("{labels},cause=\"{cause}\"");
    let name = "kiln_refused_requests_total";
    family(text, name, "counter", "Requests that no instance answered, by cause.");
    for (labels, drops) in &dropped {
        drops.refused.counted().for_each(|(why, count)| line(text, name, &cause(labels, why), count));
    }
    let name = "kiln_spoilt_answers_total";
    family(text, name, "counter", "Answers that broke off, or went on beyond their end.");
    for (labels, drops) in &dropped {
        drops.spoilt.counted().for_each(|(why, count)| line(text, name, &cause(labels, why), count));
    }
}

/// One of those that wait, and those that were refused.
type Waits = fn((u64, u64)) -> u64;

/// What one figure of a fleet is.
type Figure = fn(&FleetCount) -> u64;

fn fleets(text: &mut String, tallies: &[Arc<Tally>]) {
    let counts: Vec<_> = tallies.iter().map(|tally| tally.count()).collect();
    let figures: [(&str, &str, &str, Figure); 3] = [
        ("kiln_fleet_in_flight_requests", "gauge", "In flight at a fleet.", |c| c.in_flight),
        ("kiln_fleet_failed_requests_total", "counter", "Failed by a fleet, or in its place.", |c| c.failed),
        ("kiln_fleet_cut_requests_total", "counter", "Ended because the fleet's time was up.", |c| c.cut),
    ];
    let queues: [(&str, &str, &str, Waits); 2] = [
        ("kiln_fleet_waiting_requests", "gauge", "Waiting for room at a fleet.", |(waiting, _)| waiting),
        ("kiln_fleet_overloaded_requests_total", "counter", "Refused for want of room.", |(_, refused)| {
            refused
        }),
    ];
    for (name, kind, help, of) in queues {
        family(text, name, kind, help);
        for tally in tallies {
            line(text, name, &fleet_labels(tally.fleet()), of(tally.queue()));
        }
    }
    for (name, kind, help, of) in figures {
        family(text, name, kind, help);
        for count in &counts {
            line(text, name, &fleet_labels(&count.fleet), of(count));
        }
    }
}

fn fleet_labels(FleetId { app, service, generation }: &FleetId) -> String {
    format!("app=\"{app}\",service=\"{service}\",generation=\"{}\"", generation.0)
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// What stands between quotes in that format.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
