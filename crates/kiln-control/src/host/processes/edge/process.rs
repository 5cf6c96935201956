//! A process that may not be our child: one that an earlier control plane started.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// An edge's process.
pub(super) struct Process {
    /// None if it was gone when we looked.
    pidfd: Option<OwnedFd>,
    child: Option<Child>,
}

impl Process {
    /// One that we started.
    pub(super) fn ours(child: Child) -> Self {
        Self { pidfd: open(child.id()), child: Some(child) }
    }

    /// One that somebody else started.
    pub(super) fn other(pid: u32) -> Self {
        Self { pidfd: open(pid), child: None }
    }

    /// Another handle to wait with.
    pub(super) fn watch(&self) -> Option<OwnedFd> {
        self.pidfd.as_ref()?.try_clone().ok()
    }

    /// Whether it has ended; it is no zombie then.
    pub(super) fn has_ended(&mut self) -> bool {
        let ended = self.pidfd.as_ref().is_none_or(|fd| ends_within(fd, Duration::ZERO));
        if let (true, Some(child)) = (ended, &mut self.child) {
            let _ = child.wait();
        }
        ended
    }

    /// Of one that has ended: how, if it was ours to learn.
    pub(super) fn how_it_ended(&mut self) -> String {
        let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        status.map_or_else(|| "nobody knows how".to_owned(), |status| status.to_string())
    }

    /// Ends it at once, whatever it is at. It has ended if it cannot be signalled.
    pub(super) fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// Waits for its end, which has been asked for; brings it about if it was in vain.
    pub(super) fn finish(mut self, by_force: bool) {
        const PATIENCE: Duration = Duration::from_secs(5);
        if let Some(pidfd) = &self.pidfd
            && (by_force || !ends_within(pidfd, PATIENCE))
        {
            self.kill();
            ends_within(pidfd, PATIENCE);
        }
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}

fn open(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Whether the process ends within this time; returns as soon as it does.
pub(super) fn ends_within(pidfd: &OwnedFd, span: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: span.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0)
}
