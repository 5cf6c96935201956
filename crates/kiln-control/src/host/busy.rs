//! One deploy at a time per app.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_model::{AppName, CancelAnswer, ExitCode, Failure, Stamped, Timestamp};

use crate::contract::{EventSink, Presence};
use crate::core::Will;
use crate::sync::lock;

/// Who deploys what, and who follows that.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy {
    holders: Arc<Mutex<BTreeMap<AppName, Holder>>>,
    followers: Arc<Mutex<BTreeMap<AppName, usize>>>,
}

/// How long what is given up may take for that before it counts as under way.
const GIVING_UP: Duration = Duration::from_secs(15);

/// Tells those who had the right one after the other apart.
type Number = u64;

#[derive(Debug, Clone)]
struct Holder {
    number: Number,
    what: &'static str,
    by: String,
    since: Timestamp,
    /// Whoever asked has gone, and somebody else followed it then: it goes on to its end, whoever leaves after that.
    is_inherited: bool,
    will: Will,
}

/// The right to deploy an app, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    busy: Busy,
    app: AppName,
    number: Number,
    will: Will,
}

impl Busy {
    /// Takes the right to deploy `app`. What serves already holds up nobody: what is left of it to do goes on, or ends.
    ///
    /// # Errors
    /// If somebody has it; says who.
    pub(crate) fn take(
        &self,
        app: &AppName,
        what: &'static str,
        by: &str,
        now: Timestamp,
    ) -> Result<Turn, Failure> {
        let mut holders = lock(&self.holders);
        if let Some(holder) = holders.get(app).filter(|holder| !holder.will.is_in_force()) {
            let message = format!(
                "app {app} is busy: {} has a {} under way since {}",
                holder.by, holder.what, holder.since
            );
            return Err(Failure::new(ExitCode::Busy, message).hint(WAYS));
        }
        Ok(self.hold(&mut holders, app, what, by, now))
    }

    /// Waits while somebody has the right to deploy `app` for something that is given up, and is about to give it back; not
    /// when whoever wants it has gone, nor for ever.
    pub(crate) fn wait_for_what_is_given_up(&self, app: &AppName, has_gone: &dyn Fn() -> bool) {
        let until = Instant::now() + GIVING_UP;
        let is_given_up = || lock(&self.holders).get(app).is_some_and(|holder| holder.will.is_given_up());
        while is_given_up() && !has_gone() && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Takes the right to deploy `app` from whoever has it, who finds out.
    pub(crate) fn take_over(&self, app: &AppName, what: &'static str, by: &str, now: Timestamp) -> Turn {
        self.hold(&mut lock(&self.holders), app, what, by, now)
    }

    fn hold(
        &self,
        holders: &mut BTreeMap<AppName, Holder>,
        app: &AppName,
        what: &'static str,
        by: &str,
        since: Timestamp,
    ) -> Turn {
        static TAKEN: AtomicU64 = AtomicU64::new(0);
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        let (will, is_inherited) = (Will::default(), false);
        let holder = Holder { number, what, by: by.to_owned(), since, is_inherited, will: will.clone() };
        holders.insert(app.clone(), holder);
        Turn { busy: self.clone(), app: app.clone(), number, will }
    }

    /// Follows whatever is under way for `app`, until what is returned is dropped.
    pub(crate) fn follow(&self, app: &AppName) -> Following {
        *lock(&self.followers).entry(app.clone()).or_default() += 1;
        Following { busy: self.clone(), app: app.clone() }
    }

    /// Whether somebody has the right to deploy `app`.
    pub(crate) fn is_taken(&self, app: &AppName) -> bool {
        lock(&self.holders).contains_key(app)
    }
}

/// Somebody waits for what somebody else has asked for.
#[derive(Debug)]
pub(crate) struct Following {
    busy: Busy,
    app: AppName,
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut followers = lock(&self.busy.followers);
        if let Some(count) = followers.get_mut(&self.app) {
            *count -= 1;
            if *count == 0 {
                followers.remove(&self.app);
            }
        }
    }
}

/// What can be done about something that is under way.
pub(crate) const WAYS: &str =
    "`kiln wait` follows it to its end, `--supersede` takes its place, `kiln cancel` gives it up";

impl Busy {
    /// Has what is under way for `app` given up, what it is; none if there is nothing to give up, because nothing was asked
    /// for, or because it serves.
    pub(crate) fn cancel(&self, app: &AppName, by: &str) -> Option<CancelAnswer> {
        let holders = lock(&self.holders);
        let holder = holders.get(app)?;
        if !holder.will.give_up(format!("it was cancelled by {by}")) {
            return None;
        }
        Some(CancelAnswer { app: app.clone(), cancelled: holder.what.to_owned(), by: holder.by.clone() })
    }
}

impl Turn {
    /// What decides whether it is still wanted.
    pub(crate) fn will(&self) -> &Will {
        &self.will
    }

    /// Whoever took it can no longer be told how it goes. Whether it goes on all the same: somebody follows it, or has taken
    /// it over.
    fn goes_on_alone(&self) -> bool {
        let is_followed = lock(&self.busy.followers).contains_key(&self.app);
        let mut holders = lock(&self.busy.holders);
        let Some(holder) = holders.get_mut(&self.app).filter(|h| h.number == self.number) else {
            return true;
        };
        holder.is_inherited |= is_followed;
        holder.is_inherited
    }

    /// Who has taken the right to deploy meanwhile, if anybody has, also if they need it no longer.
    pub(crate) fn superseded_by(&self) -> Option<String> {
        match lock(&self.busy.holders).get(&self.app) {
            Some(holder) if holder.number == self.number => None,
            Some(holder) => Some(holder.by.clone()),
            // Only another's turn takes the place of this one, and it was given back since.
            None => Some("a newer request, which has ended".into()),
        }
    }
}

/// Events of what is under way, which counts as unwanted as soon as it is given up.
pub(crate) struct Cancellable<'a> {
    pub(crate) events: &'a dyn EventSink,
    pub(crate) turn: &'a Turn,
}

impl EventSink for Cancellable<'_> {
    fn event(&self, event: Stamped) {
        self.events.event(event);
    }

    fn presence(&self) -> Presence {
        if self.turn.will.is_given_up() {
            return Presence::GaveUp;
        }
        match self.events.presence() {
            Presence::Gone if self.turn.goes_on_alone() => Presence::Here,
            presence => presence,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut holders = lock(&self.busy.holders);
        if holders.get(&self.app).is_some_and(|h| h.number == self.number) {
            holders.remove(&self.app);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who asked for something, and what has become of them.
    struct Asked(Presence);

    impl EventSink for Asked {
        fn event(&self, _: Stamped) {}

        fn presence(&self) -> Presence {
            self.0
        }
    }

    #[test]
    fn what_somebody_follows_goes_on_when_whoever_asked_has_gone_and_not_when_they_gave_it_up() {
        let (busy, app) = (Busy::default(), "hello".parse().unwrap());
        let turn = busy.take(&app, "deploy", "ann", Timestamp(1)).unwrap();
        let presence = |was| Cancellable { events: &Asked(was), turn: &turn }.presence();
        assert_eq!(presence(Presence::Gone), Presence::Gone, "nobody follows it");
        let (one, two) = (busy.follow(&app), busy.follow(&app));
        drop(one);
        assert_eq!(presence(Presence::GaveUp), Presence::GaveUp);
        assert_eq!(presence(Presence::Gone), Presence::Here);
        drop(two);
        assert_eq!(presence(Presence::Gone), Presence::Here, "who only follows gives nothing up by leaving");
        busy.cancel(&app, "bob").unwrap();
        assert_eq!(presence(Presence::Gone), Presence::GaveUp);
    }

    #[test]
    fn what_serves_holds_up_nobody() {
        let (busy, app) = (Busy::default(), "hello".parse().unwrap());
        let first = busy.take(&app, "deploy", "ann", Timestamp(1)).unwrap();
        assert!(busy.take(&app, "rollback", "bob", Timestamp(2)).is_err());
        assert!(first.will().put_in_force());
        let second = busy.take(&app, "rollback", "bob", Timestamp(3)).unwrap();
        drop(first);
        assert!(busy.is_taken(&app) && second.superseded_by().is_none());
    }

    #[test]
    fn what_is_given_up_is_waited_for() {
        let (busy, app) = (Busy::default(), "hello".parse().unwrap());
        let turn = busy.take(&app, "deploy", "ann", Timestamp(1)).unwrap();
        busy.wait_for_what_is_given_up(&app, &|| panic!("it is wanted"));
        busy.cancel(&app, "bob").unwrap();
        busy.wait_for_what_is_given_up(&app, &|| true);
        let giving_back = std::thread::spawn(move || drop(turn));
        busy.wait_for_what_is_given_up(&app, &|| false);
        giving_back.join().unwrap();
        assert!(busy.take(&app, "deploy", "eve", Timestamp(2)).is_ok());
    }

    #[test]
    fn who_was_superseded_stays_so_when_the_newer_request_has_ended() {
        let (busy, app) = (Busy::default(), "hello".parse().unwrap());
        let first = busy.take(&app, "deploy", "ann", Timestamp(1)).unwrap();
        assert_eq!(first.superseded_by(), None);
        let second = busy.take_over(&app, "deploy", "bob", Timestamp(2));
        assert_eq!((first.superseded_by().as_deref(), second.superseded_by()), (Some("bob"), None));
        drop(second);
        assert_eq!(first.superseded_by().as_deref(), Some("a newer request, which has ended"));
        let third = busy.take(&app, "deploy", "eve", Timestamp(3)).unwrap();
        drop(first);
        assert_eq!(third.superseded_by(), None, "what the first gives back was not its any more");
    }
}
