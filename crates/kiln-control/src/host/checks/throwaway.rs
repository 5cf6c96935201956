//! Instances that exist for one check.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kiln_engine::EngineError;
use kiln_model::{
    AppName, ByteSize, Exit, ImageRecord, InstanceId, InstanceOrder, InstanceState, InstanceStatus, Limits,
};

use super::Verdict;
use crate::host::serve::Asker;
use crate::host::{LocalHost, failure};
use crate::world::{Clock, Trouble};

/// What one may use; generous, for a check is no place to run out of memory.
const LIMITS: Limits = Limits { memory: ByteSize(1 << 30), cpu_millis: 2000, pids: 512, io: None };

/// What the names of all of them begin with.
const PREFIX: &str = "check-";

/// How long the next keeper may take where one was killed with its holder.
const NEXT_KEEPER: Duration = Duration::from_secs(10);

/// An instance that is thrown away when this value is dropped.
pub(super) struct Throwaway<'a> {
    host: &'a LocalHost,
    id: InstanceId,
}

/// Whether an instance is one for a check. Of those that are not, none has a moment where its plan has a number.
pub(in crate::host) fn is_throwaway(id: &InstanceId) -> bool {
    let mut parts = id.as_str().rsplit('-').skip(1);
    let is_moment = |part: &str| part.len() > "9999999999".len();
    id.as_str().starts_with(PREFIX) && parts.next().is_some_and(is_moment)
}

impl LocalHost {
    /// Starts one of `image`, with `argv` in place of its program if there is any.
    pub(super) fn throwaway(
        &self,
        app: &AppName,
        image: &ImageRecord,
        argv: Option<&[String]>,
    ) -> Result<Throwaway<'_>, Verdict> {
        let first = self.try_throwaway(app, image, argv)?;
        // That its keeper was ended while it was being started is one of the reasons, and is none of the image's.
        let not_started = match first {
            Ok(throwaway) => return Ok(throwaway),
            Err(_) => self.try_throwaway(app, image, argv)?,
        };
        not_started.map_err(|exit| Verdict::failed(exit.to_string()))
    }

    fn try_throwaway(
        &self,
        app: &AppName,
        image: &ImageRecord,
        argv: Option<&[String]>,
    ) -> Result<Result<Throwaway<'_>, Exit>, Verdict> {
        let mut order = self.throwaway_order(app, image)?;
        order.run.argv = argv.map_or(order.run.argv, <[String]>::to_vec);
        self.driver.board.expect(&order.id);
        let throwaway = Throwaway { host: self, id: order.id.clone() };
        let orders = [order];
        let made = self.patiently(|| self.engine.create(&orders));
        let made = made.map_err(|e| Verdict::Unlearnt { why: Trouble::of(&e).0 })?;
        self.driver.board.post(&made);
        Ok(match made.into_iter().next().map(|s| s.state) {
            Some(InstanceState::Ended { exit: exit @ Exit::NotStarted { .. } }) => Err(exit),
            _ => Ok(throwaway),
        })
    }

    fn throwaway_order(&self, app: &AppName, image: &ImageRecord) -> Result<InstanceOrder, Verdict> {
        let handle = self.store.handle(&image.digest).map_err(|e| Verdict::Lacking(failure::store(&e)))?;
        Ok(InstanceOrder {
            id: self.throwaway_id(image),
            app: app.clone(),
            service: None,
            release: None,
            image: handle,
            run: image.run.clone(),
            env: image.run.env.clone(),
            limits: LIMITS,
            volatile: image.volatile.clone(),
            capabilities: Default::default(),
            secrets: Vec::new(),
            needs: Vec::new(),
        })
    }

    /// A name nothing had before: the moment tells control planes apart, the number instances of one.
    fn throwaway_id(&self, image: &ImageRecord) -> InstanceId {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (moment, number) = (self.clock.now().0, MADE.fetch_add(1, Ordering::Relaxed));
        format!("{PREFIX}{}-{moment}-{number}", image.digest.short())
            .parse()
            .expect("letters, digits and dashes")
    }

    /// Asks the engine until somebody answers: all calls are safe to repeat, and where a keeper was killed there is
    /// soon another one.
    fn patiently<T>(&self, call: impl Fn() -> Result<T, EngineError>) -> Result<T, EngineError> {
        let deadline = Instant::now() + NEXT_KEEPER;
        loop {
            match call() {
                Err(EngineError::Unreachable { .. })
                    if Instant::now() < deadline && !self.driver.is_stopped() =>
                {
                    self.driver.pause();
                }
                answered => return answered,
            }
        }
    }
}

impl Throwaway<'_> {
    pub(super) fn id(&self) -> &InstanceId {
        &self.id
    }

    pub(super) fn verdict(&self, cause: String) -> Verdict {
        Verdict::Failed { cause, instance: Some(self.id.clone()) }
    }

    /// How it ended, if it has by then.
    ///
    /// One that a keeper took with it is nowhere to be found any more, and nobody will tell of its end.
    pub(super) fn wait(&self, until: Instant, asker: &Asker<'_>) -> Result<Option<Exit>, Verdict> {
        /// How often it is looked whether it is still there.
        const LOOK: Duration = Duration::from_secs(1);
        loop {
            let now = Instant::now();
            let slice = until.min(now + LOOK);
            let exit = self.host.driver.board.wait(&self.id, slice, &|| asker.is_gone());
            if exit.is_some() || asker.is_gone() || slice == until {
                return Ok(exit);
            }
            self.is_still_there()?;
        }
    }

    pub(super) fn is_still_there(&self) -> Result<(), Verdict> {
        let unlearnt = |why: String| Verdict::Unlearnt { why };
        let listed = self.host.patiently(|| self.host.engine.list());
        let listed = listed.map_err(|e| unlearnt(Trouble::of(&e).0))?;
        let is_it = |status: &InstanceStatus| status.id == self.id;
        let has_ended = || self.host.driver.board.wait(&self.id, Instant::now(), &|| true).is_some();
        if listed.iter().any(is_it) || has_ended() {
            return Ok(());
        }
        Err(unlearnt(format!("{} is gone with the keeper that made it", self.id)))
    }
}

impl Drop for Throwaway<'_> {
    fn drop(&mut self) {
        let (host, ids) = (self.host, std::slice::from_ref(&self.id));
        // It outlives its keeper; if nobody can be told, the next start of control removes what is left over.
        let _ = host.patiently(|| host.engine.kill(ids).and_then(|()| host.engine.forget(ids)));
        host.driver.board.forget(&self.id);
    }
}
