//! Connections to ports that are passed on as they are, by port and fleet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_model::{FleetId, ReleaseId, ServiceName};

use super::{Causes, family, line};
use crate::counts::Tally;
use crate::refusal::Refusal;

/// What is counted of one port at one fleet, or of those that went to none.
#[derive(Debug)]
pub(crate) struct TcpMeter {
    labels: String,
    /// None of a port that leads nowhere.
    tally: Option<Arc<Tally>>,
    connections: AtomicU64,
    open: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    failed: Causes,
}

impl TcpMeter {
    /// Counts a connection that is passed on, until this is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> OpenConnection {
        self.connections.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        OpenConnection(self.clone())
    }

    /// Counts a connection that nobody took.
    pub(crate) fn failed(&self, why: Refusal) {
        self.connections.fetch_add(1, Relaxed);
        self.failed.count(why);
    }
}

/// A connection that is passed on.
pub(crate) struct OpenConnection(Arc<TcpMeter>);

impl OpenConnection {
    /// So many bytes have come from the client.
    pub(crate) fn received(&self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Relaxed);
    }

    /// So many bytes have gone to the client.
    pub(crate) fn sent(&self, bytes: usize) {
        self.0.sent.fetch_add(bytes as u64, Relaxed);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A port, and a fleet if it leads to one.
type Way = (u16, Option<FleetId>);

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct TcpFigures(Mutex<BTreeMap<Way, Arc<TcpMeter>>>);

/// One figure of a port.
type Figure = fn(&TcpMeter) -> &AtomicU64;

impl TcpFigures {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Way, Arc<TcpMeter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The meter of `port`, which is for `service`, at a fleet and its release, or at none.
    pub(crate) fn at(
        &self,
        port: u16,
        service: &ServiceName,
        fleet: Option<(&Arc<Tally>, Option<&ReleaseId>)>,
    ) -> Arc<TcpMeter> {
        let way = (port, fleet.map(|(tally, _)| tally.fleet().clone()));
        let mut all = self.all();
        let is_same = |meter: &&Arc<TcpMeter>| match (&meter.tally, fleet) {
            (Some(ours), Some((theirs, _))) => Arc::ptr_eq(ours, theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        if let Some(known) = all.get(&way).filter(is_same) {
            return known.clone();
        }
        let labels = match fleet {
            Some((tally, release)) => {
                let FleetId { app, service, generation } = tally.fleet();
                let release = release.map_or("", ReleaseId::as_str);
                let generation = generation.0;
                format!(
                    "app=\"{app}\",service=\"{service}\",release=\"{release}\",generation=\"{generation}\",port=\"{port}\""
                )
            }
            None => format!("service=\"{service}\",port=\"{port}\""),
        };
        let (connections, open, received, sent, failed) = Default::default();
        let tally = fleet.map(|(tally, _)| tally.clone());
        let meter = Arc::new(TcpMeter { labels, tally, connections, open, received, sent, failed });
        all.insert(way, meter.clone());
        meter
    }

    /// Forgets the fleets that are no more.
    pub(super) fn forget_gone(&self) {
        self.all().retain(|_, meter| !meter.tally.as_ref().is_some_and(|tally| tally.is_gone()));
    }

    pub(super) fn text(&self, text: &mut String) {
        let all: Vec<Arc<TcpMeter>> = self.all().values().cloned().collect();
        let figures: [(&str, &str, &str, Figure); 4] = [
            (
                "kiln_tcp_connections_total",
                "counter",
                "Connections to a port, those that failed included.",
                |m| &m.connections,
            ),
            ("kiln_tcp_open_connections", "gauge", "Connections that are passed on.", |m| &m.open),
            ("kiln_tcp_received_bytes_total", "counter", "Bytes from clients.", |m| &m.received),
            ("kiln_tcp_sent_bytes_total", "counter", "Bytes to clients.", |m| &m.sent),
        ];
        for (name, kind, help, of) in figures {
            family(text, name, kind, help);
            all.iter().for_each(|meter| line(text, name, &meter.labels, of(meter).load(Relaxed)));
        }
        let name = "kiln_tcp_failed_connections_total";
        family(text, name, "counter", "Connections that no instance took, by cause.");
        for meter in &all {
            for (cause, count) in meter.failed.counted() {
                line(text, name, &format!("{},cause=\"{cause}\"", meter.labels), count);
            }
        }
    }
}
