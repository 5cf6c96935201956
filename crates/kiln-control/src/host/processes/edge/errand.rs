//! Calls to an edge that may be stuck: whoever asks waits for a moment, and the answer may come later.
//!
//! The core calls under its lock, and so does whoever wants to know how it is: an edge that does not answer must hold
//! up nobody. One thread carries the calls out, one after another. While it waits for an answer, others are refused at
//! once; a table that was acknowledged late is not sent again.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use kiln_model::{EdgeCounts, FleetCount, RouteTable};

use crate::sync::lock;
use crate::world::Trouble;

/// How long whoever asks waits. Edges that are well answer within a millisecond or two.
const PATIENCE: Duration = Duration::from_millis(500);

/// What an edge is asked.
#[derive(Debug, Clone)]
pub(super) enum Order {
    SetTable(RouteTable),
    Counts,
}

impl Order {
    fn words(&self) -> &'static str {
        match self {
            Self::SetTable(_) => "take a table",
            Self::Counts => "tell what is in flight",
        }
    }
}

type Answered = Result<EdgeCounts, Trouble>;

/// What carries the calls out; it may take its time.
pub(super) type Carrier = Box<dyn Fn(&Order) -> Answered + Send>;

/// The one who carries out calls.
#[derive(Clone)]
pub(super) struct Errands(Arc<Shared>);

struct Shared {
    orders: Mutex<Sender<Order>>,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    under_way: Option<&'static str>,
    answer: Option<Answered>,
    /// A table that was acknowledged when nobody waited for that any more.
    late: Option<(RouteTable, EdgeCounts)>,
    /// What such tables have cut, until somebody hears of it.
    gone: Vec<FleetCount>,
    /// Whether somebody waits for the answer.
    waits: bool,
}

impl Errands {
    /// Starts the thread; `wake` is called when an answer comes that nobody waits for any more.
    pub(super) fn start(carrier: Carrier, wake: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (orders, received) = channel();
        let shared = Shared { orders: Mutex::new(orders), state: Mutex::default(), news: Condvar::default() };
        let errands = Self(Arc::new(shared));
        let weak = Arc::downgrade(&errands.0);
        let body = move || carry(&received, &carrier, &wake, &weak);
        std::thread::Builder::new().name("edge".into()).spawn(body)?;
        Ok(errands)
    }

    /// Has `order` carried out.
    ///
    /// # Errors
    /// If it fails, the one before is not done, or there is no answer within a moment; then it may come later.
    pub(super) fn ask(&self, order: Order) -> Answered {
        let mut state = lock(&self.0.state);
        if let Some(words) = state.under_way {
            return Err(no_answer(words));
        }
        let is_table = matches!(order, Order::SetTable(_));
        if let Order::SetTable(table) = &order
            && let Some((known, mut counts)) = state.late.take()
        {
            state.gone.append(&mut counts.gone);
            if (RouteTable { version: table.version, ..known }) == *table {
                return Ok(EdgeCounts { gone: std::mem::take(&mut state.gone), ..counts });
            }
        }
        let words = order.words();
        (state.under_way, state.answer, state.waits) = (Some(words), None, true);
        if lock(&self.0.orders).send(order).is_err() {
            state.under_way = None;
            return Err(Trouble("the thread that talks to the edge is gone".into()));
        }
        let unanswered = |state: &mut State| state.answer.is_none();
        let waited = self.0.news.wait_timeout_while(state, PATIENCE, unanswered);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.waits = false;
        let mut answer = state.answer.take().unwrap_or_else(|| Err(no_answer(words)));
        if let (true, Ok(counts)) = (is_table, &mut answer) {
            counts.gone.append(&mut state.gone);
        }
        answer
    }
}

/// Without how long that is: whoever was told of it is not told again.
fn no_answer(words: &str) -> Trouble {
    Trouble(format!("the edge was asked to {words} and has not answered yet"))
}

fn carry(orders: &Receiver<Order>, carrier: &Carrier, wake: &dyn Fn(), shared: &std::sync::Weak<Shared>) {
    while let Ok(order) = orders.recv() {
        let answer = carrier(&order);
        let Some(shared) = shared.upgrade() else { return };
        let mut state = lock(&shared.state);
        state.under_way = None;
        if state.waits {
            state.answer = Some(answer);
            shared.news.notify_all();
            continue;
        }
        if let (Order::SetTable(table), Ok(counts)) = (order, answer) {
            state.late = Some((table, counts));
        }
        drop(state);
        wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// An edge that answers when it is told to; it never does by itself.
    fn stuck() -> (Errands, Sender<()>, Receiver<()>) {
        let (let_go, held) = channel::<()>();
        let (woken, wakes) = channel();
        let held = Mutex::new(held);
        let carrier: Carrier = Box::new(move |order| {
            let _ = lock(&held).recv();
            let Order::SetTable(table) = order else {
                return Ok(EdgeCounts { version: 7, ..EdgeCounts::default() });
            };
            // Each has cut something.
            let generation = kiln_model::Generation(table.version);
            let (app, service) = ("hello".parse().unwrap(), "web".parse().unwrap());
            let fleet = kiln_model::FleetId { app, service, generation };
            let gone = vec![FleetCount { fleet, in_flight: 0, served: 1, failed: 0, cut: 1 }];
            Ok(EdgeCounts { version: table.version, gone, ..EdgeCounts::default() })
        });
        let wake = move || {
            let _ = woken.send(());
        };
        let errands = Errands::start(carrier, wake).unwrap();
        (errands, let_go, wakes)
    }

    fn table(version: u64, port: u16) -> RouteTable {
        let tcp = kiln_model::TcpRoute { port, service: "web".parse().unwrap(), targets: vec![], hold: None };
        RouteTable { version, tcp: vec![tcp], ..RouteTable::default() }
    }

    #[test]
    fn whoever_asks_an_edge_that_is_stuck_is_not() {
        let (errands, let_go, wakes) = stuck();
        let trouble = errands.ask(Order::SetTable(table(4, 80))).unwrap_err();
        assert!(trouble.0.contains("has not answered yet"), "{trouble}");
        // The edge is still stuck: nobody else waits for it.
        let trouble = errands.ask(Order::Counts).unwrap_err();
        assert!(trouble.0.contains("was asked to take a table"), "{trouble}");
        let_go.send(()).unwrap();
        wakes.recv().unwrap();
        // What it has acknowledged late is in force, under the version it was sent with.
        assert_eq!(errands.ask(Order::SetTable(table(5, 80))).unwrap().version, 4);
        // That is told once; another table is sent.
        let_go.send(()).unwrap();
        assert_eq!(errands.ask(Order::SetTable(table(6, 80))).unwrap().version, 6);
        let_go.send(()).unwrap();
        assert_eq!(errands.ask(Order::Counts).unwrap().version, 7);
    }

    #[test]
    fn another_table_is_not_taken_for_the_late_one() {
        let (errands, let_go, wakes) = stuck();
        errands.ask(Order::SetTable(table(4, 80))).unwrap_err();
        let_go.send(()).unwrap();
        wakes.recv().unwrap();
        let_go.send(()).unwrap();
        let counts = errands.ask(Order::SetTable(table(5, 443))).unwrap();
        assert_eq!(counts.version, 5);
        // What it cut is told all the same, once.
        assert_eq!(cut(&counts), ["hello/web@5", "hello/web@4"]);
        let_go.send(()).unwrap();
        assert_eq!(cut(&errands.ask(Order::SetTable(table(6, 80))).unwrap()), ["hello/web@6"]);
    }

    fn cut(counts: &EdgeCounts) -> Vec<String> {
        counts.gone.iter().map(|count| count.fleet.to_string()).collect()
    }
}
