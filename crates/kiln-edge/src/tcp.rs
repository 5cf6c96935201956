//! Plain TCP: a connection goes to an instance as it is, and is in flight for as long as it lasts.

use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::balance::NoPick;
use crate::connect;
use crate::connection::Connection;
use crate::counted::Counted;
use crate::counts::{Ending, InFlight, Turn};
use crate::lease::{Place, Reply};
use crate::pump::{self, Ended, Talk};
use crate::refusal::Refusal;
use crate::upstream::{Burden, Upstream};
use crate::worker::Worker;

/// Instances one connection is offered to.
const TRIED_AT_MOST: usize = 3;

/// Passes a client's connection on. It is closed at once if there is nobody to pass it to.
pub(crate) async fn pass(worker: &Rc<Worker>, connection: &Rc<Connection>, stream: TcpStream, port: u16) {
    let turn = Turn::begin(worker.totals.clone());
    let reply = Reply::untold(worker.clone(), connection.clone());
    let mut tried: Vec<Rc<Upstream>> = Vec::new();
    let mut flight: Option<InFlight> = None;
    let mut why = Refusal::Unreachable;
    let begun = Instant::now();
    while tried.len() < TRIED_AT_MOST {
        let picked = worker.balance().pick_tcp(port, &tried, &worker.random);
        let pick = match picked {
            Ok(pick) => pick,
            Err(NoPick::NoRoute) => return,
            Err(NoPick::Held(at_most, _)) => {
                let changed = worker.changed.notified();
                if timeout_at(begun + at_most, changed).await.is_err() {
                    why = Refusal::Paused;
                    break;
                }
                continue;
            }
            Err(NoPick::NoTarget) => {
                why = Refusal::NoTarget;
                break;
            }
            Err(NoPick::NoInstance(_)) => {
                why = Refusal::NoInstance;
                break;
            }
            Err(NoPick::AllTried | NoPick::OnlyHttps(_)) => break,
        };
        // Counted before there is an await, as requests are.
        reply.ticket().enter_fleet(pick.tally.clone());
        let here = InFlight::at(pick.tally);
        let burden = Burden::on(pick.upstream);
        match connect::reach(burden.upstream(), worker).await {
            Ok(instance) => {
                let meter = worker.balance().tcp_meter(port, Some(here.tally()));
                let mut place = Place { burden, flight: here, turn, reply };
                place.flight.ends(Ending::Answered);
                let ticket = place.reply.ticket();
                let ended = match meter {
                    Some(meter) => {
                        let counted = Counted::new(stream, meter.open());
                        pump::join(counted, instance, Talk::Opaque, ticket).await
                    }
                    None => pump::join(stream, instance, Talk::Opaque, ticket).await,
                };
                if ended == Ended::Told {
                    place.flight.ends(Ending::Cut);
                }
                return;
            }
            Err(refusal) => {
                why = refusal;
                tried.push(burden.upstream().clone());
                flight = Some(here);
                if refusal.is_the_hosts() {
                    break;
                }
            }
        }
    }
    turn.failed();
    let meter = worker.balance().tcp_meter(port, flight.as_ref().map(InFlight::tally));
    if let Some(meter) = meter {
        meter.failed(why);
    }
    if let Some(flight) = &mut flight {
        flight.ends(Ending::Failed);
    }
}
