//! One launch under way.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use kiln_model::{Inside, InstanceId};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::super::cgroup::{Allowance, Groups};
use super::error::LaunchError;
use super::ids::AppIds;
use super::main_process::MainProcess;
use super::script::Script;
use super::slots::Slot;
use super::stack::Stack;
use super::step::Report;
use super::times::ParentTimes;
use super::{Host, diagnosis};

/// A child that has not executed its program yet, with the memory it uses.
pub(crate) struct Launching {
    main: MainProcess,
    channel: OwnedFd,
    /// What the child takes from the parent's table, until it has one of its own.
    slot: Option<Slot>,
    script: Box<Script>,
    /// Taken only when the child has left it.
    stack: Option<Stack>,
    /// Those to be mapped; none for a child that joins an instance, which has them.
    ids: Option<AppIds>,
    /// Where what it needs is reached, and the sockets that listen there once they do.
    addresses: Vec<SocketAddrV4>,
    listeners: Vec<OwnedFd>,
    failure: Option<LaunchError>,
    is_over: bool,
    /// How long its parent's part of it took.
    pub(super) times: Option<ParentTimes>,
}

/// How far a launch has come.
pub(crate) enum Progress {
    /// The child is still at it.
    UnderWay,
    /// It has become its program, or was killed on the way: its end tells.
    Over,
    /// It could not, and is ending.
    Failed(LaunchError),
}

impl Launching {
    pub(super) fn new(
        main: MainProcess,
        (channel, slot): (OwnedFd, Option<Slot>),
        script: Box<Script>,
        stack: Stack,
        ids: Option<AppIds>,
    ) -> Self {
        let (addresses, listeners) = Default::default();
        Self {
            main,
            channel,
            slot,
            script,
            stack: Some(stack),
            ids,
            addresses,
            listeners,
            failure: None,
            is_over: false,
            times: None,
        }
    }

    /// What becomes readable when there is progress.
    pub(crate) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// The process that is becoming the program.
    pub(crate) fn main(&self) -> &MainProcess {
        &self.main
    }

    /// Who it is on the host, and who its namespaces are charged to.
    pub(crate) fn ids(&self) -> Option<(AppIds, u32)> {
        self.ids.map(|ids| (ids, self.script.accounting_uid))
    }

    /// The child has ended, and with it its end of the channel if nobody else has that.
    pub(crate) fn child_ended(&mut self) {
        self.slot = None;
    }

    /// Puts the child under the limits it was not born under. It waits for its id maps before it goes further than
    /// preparing, and those come later.
    pub(super) fn join(&mut self, groups: &Groups, id: &InstanceId) {
        if let Err(e) = groups.join(id, self.main.pid()) {
            self.give_up(LaunchError::new("join its control groups", e));
        }
    }

    /// Makes the groups the child was not born into, while it prepares itself, and tells it to join them.
    pub(super) fn make_groups(&mut self, groups: &Groups, id: &InstanceId, allowed: Allowance<'_>) {
        let mut made = groups.create_others(id, allowed);
        if allowed.io.is_some() {
            made = made.and_then(|()| groups.join_for_reading(id, self.main.pid()));
        }
        let told = made.and_then(|()| Ok(send(&self.channel, b"j", SendFlags::NOSIGNAL)?));
        if let Err(e) = told {
            self.give_up(LaunchError::new("make its control groups", e));
        }
    }

    /// Goes on as far as possible without waiting.
    pub(crate) fn proceed(&mut self, host: &Host) -> Progress {
        loop {
            let mut bytes = [0; Report::BYTES];
            match recv(&self.channel, &mut bytes, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => return Progress::UnderWay,
                Ok((_, 0)) | Err(_) => return self.close(),
                Ok((_, n)) => self.hear(host, Report::decode(&bytes[..n])),
            }
        }
    }

    fn hear(&mut self, host: &Host, report: Option<Report>) {
        // Whatever it says, it says with a table of its own, or is about to end.
        self.slot = None;
        match report {
            Some(Report::WantsMaps) if self.failure.is_none() => {
                if let Err(e) = self.listen(host) {
                    return self.give_up(LaunchError::new("listen inside for what it needs", e));
                }
                if let Err(e) = self.map_ids(host) {
                    self.give_up(LaunchError::new("map its users", e));
                }
            }
            Some(Report::Failed(failed)) if self.failure.is_none() => {
                self.failure = Some(diagnosis::of(host, &self.script, self.main.template(), failed));
            }
            _ => {}
        }
    }

    /// What it needs is reached in its network before its program runs.
    pub(super) fn is_to_listen(&mut self, needs: &[Inside]) {
        self.addresses = needs.iter().flat_map(Inside::places).collect();
    }

    /// The sockets that listen inside, in the order of needs and their ports.
    pub(crate) fn take_listeners(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.listeners)
    }

    fn listen(&mut self, host: &Host) -> io::Result<()> {
        if !self.addresses.is_empty() {
            self.listeners = self.main.listeners(host, &self.addresses)?;
        }
        Ok(())
    }

    fn map_ids(&mut self, host: &Host) -> io::Result<()> {
        let begun = self.times.is_some().then(Instant::now);
        let map = self.ids.map(AppIds::line).unwrap_or_default();
        for file in ["uid_map", "gid_map"].into_iter().filter(|_| self.ids.is_some()) {
            let file = host.open_proc(self.main.pid(), file, OFlags::WRONLY)?;
            rustix::io::write(&file, map.as_bytes())?;
        }
        send(&self.channel, b"g", SendFlags::NOSIGNAL)?;
        if let (Some(times), Some(begun)) = (&mut self.times, begun) {
            times.add("write its id maps", begun);
        }
        Ok(())
    }

    pub(super) fn tell_times(&self) {
        if let (Some(file), Some(parents)) = (&self.script.host.times, &self.times) {
            // Whoever measures finds it missing.
            let _ = file.write(parents, self.script.times.as_ref());
        }
    }

    /// Something its parent does for it is done.
    pub(crate) fn mark(&mut self, what: &'static str) {
        self.times.iter_mut().for_each(|times| times.mark(what));
    }

    fn give_up(&mut self, why: LaunchError) {
        self.main.kill();
        self.failure = Some(why);
    }

    fn close(&mut self) -> Progress {
        self.is_over = true;
        self.failure.take().map_or(Progress::Over, Progress::Failed)
    }

    /// Of a launch that is over: the process, and the stack nobody runs on any more.
    pub(super) fn take_apart(mut self) -> (MainProcess, Option<Stack>) {
        self.wait_until_over();
        (self.main.clone(), self.stack.take())
    }

    /// The child's end of the channel closes when it executes its program or ends; until then it uses what this
    /// value owns.
    fn wait_until_over(&mut self) {
        if self.is_over {
            return;
        }
        self.main.kill();
        let pidfd = self.main.pidfd();
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        // Interrupted, it is asked again.
        while poll(&mut ended, None) != Ok(1) {}
        // Nobody else will ask how it ended.
        let _ = self.main.reap(&self.script.host);
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        self.wait_until_over();
    }
}
