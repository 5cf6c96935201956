//! What launches share.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};

use kiln_model::{AppName, ByteSize, ExecOrder, ImageDigest, InstanceId, InstanceOrder};
use rustix::fs::{Gid, Uid, fchown};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::super::cgroup::{Allowance, Groups};
use super::Host;
use super::error::LaunchError;
use super::hosts::Hosts;
use super::ids::{AppIds, IdBook};
use super::launching::Launching;
use super::machine_id::MachineId;
use super::main_process::MainProcess;
use super::script::{Beside, GroupsToJoin, Script, Streams};
use super::slots::Slots;
use super::spawn::spawn;
use super::stack::Stack;
use super::template::{self, Template};
use super::times::{ParentTimes, Times};

/// Makes children. One per keeper, whose only thread it needs to be used by.
pub(crate) struct Launcher {
    host: Rc<Host>,
    slots: Rc<Slots>,
    ids: IdBook,
    /// Templates live as long as instances of them do.
    templates: HashMap<(ImageDigest, AppIds), Weak<Template>>,
    hosts: Hosts,
    /// Of launches that are over, for the next ones.
    stacks: Vec<Stack>,
    /// Where the process is, if not in the host's mount namespace.
    away: Option<Away>,
}

enum Away {
    In(Rc<Template>),
    Somewhere,
}

impl Launcher {
    /// A launcher for this host.
    pub(crate) fn new(host: Rc<Host>, slots: Slots, ids: IdBook) -> Self {
        let slots = Rc::new(slots);
        Self {
            host,
            slots,
            ids,
            templates: HashMap::new(),
            hosts: Hosts::default(),
            stacks: Vec::new(),
            away: None,
        }
    }

    /// Starts the launch of an instance whose v2 group exists; it writes its output to `stdout` and `stderr`. A busy
    /// keeper leaves to the child what that can do itself.
    pub(crate) fn begin(
        &mut self,
        order: &InstanceOrder,
        (groups, allowed): (&Groups, Allowance<'_>),
        [stdout, stderr]: [OwnedFd; 2],
        (mut times, is_busy): (Option<ParentTimes>, bool),
    ) -> Result<Launching, LaunchError> {
        sensible(order)?;
        // Which disk it is that reading is limited on is the parent's to say.
        let is_busy = is_busy && allowed.io.is_none();
        let ids = self.ids.of_app(&order.app).ok_or_else(no_ids_left)?;
        let template = self.enter(order, ids)?;
        own_streams(&[&stdout, &stderr], ids.outside(order.run.uid), ids.outside(order.run.gid))
            .map_err(|e| LaunchError::new("give it its standard streams", e))?;
        let (channel, theirs) = channel().map_err(|e| LaunchError::new("make a channel to it", e))?;
        let names = self.hosts.of(&order.needs)?;
        let has_names = names.is_some();
        let slot = self.slots.fill([theirs, stdout, stderr], names);
        let slot = slot.map_err(|e| LaunchError::new("give it its descriptors", e))?;
        let streams = Streams::new(&self.slots, &slot, has_names);
        let joins = GroupsToJoin::new(order, groups, &self.slots, is_busy);
        let script = joins.and_then(|joins| {
            Script::new(self.host.clone(), order, ids, self.ids.accounting_uid(), (streams, joins))
        });
        let mut script = Box::new(script.map_err(|_| LaunchError::Order("the order contains a NUL".into()))?);
        script.machine_id =
            MachineId::of(order, ids).map_err(|e| LaunchError::new("draw its identity", e))?;
        let stack = self.stack()?;
        let group = groups.leaf(&order.id).map_err(|e| LaunchError::new("open its control group", e))?;
        times.iter_mut().for_each(|times| times.mark("lay out what its child does"));
        script.times.iter().for_each(Times::begin);
        // SAFETY: the launch below keeps script and stack until its child has done with them.
        let child = unsafe { spawn(&script, &stack, group.as_fd()) }
            .map_err(|e| LaunchError::new("make its first process", e))?;
        let main = MainProcess::new(child.pidfd, child.pid, template);
        let mut launching = Launching::new(main, (channel, Some(slot)), script, stack, Some(ids));
        launching.times = times;
        launching.mark("clone3");
        launching.is_to_listen(&order.needs);
        if !is_busy {
            launching.make_groups(groups, &order.id, allowed);
            launching.mark("make the v1 control groups");
        }
        Ok(launching)
    }

    /// An instance of a keeper before this one lives on.
    pub(crate) fn restore(&mut self, app: &AppName, ids: AppIds, accounting_uid: u32) {
        self.ids.restore(app, ids, accounting_uid);
    }

    /// Starts a command beside the main process of an instance, under its limits and its confinement.
    pub(crate) fn begin_beside(
        &mut self,
        main: &MainProcess,
        id: &InstanceId,
        order: &ExecOrder,
        groups: &Groups,
        streams: [OwnedFd; 3],
    ) -> Result<Launching, LaunchError> {
        let base = main.id_base(&self.host).map_err(|e| LaunchError::new("read its map of users", e))?;
        if order.argv.is_empty() || order.uid.max(order.gid) >= AppIds::COUNT {
            return Err(LaunchError::Order("a command needs a program, and a user its instance has".into()));
        }
        let [stdin, stdout, stderr] = &streams;
        own_streams(&[stdin, stdout, stderr], base + order.uid, base + order.gid)
            .map_err(|e| LaunchError::new("give it its standard streams", e))?;
        let (channel, theirs) = channel().map_err(|e| LaunchError::new("make a channel to it", e))?;
        let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let streams = Streams::copied([theirs.as_fd(), channel.as_fd()], fds);
        let beside = Beside { main: main.pidfd().as_raw_fd(), has_terminal: order.has_terminal };
        let script = Script::beside(self.host.clone(), order, beside, streams);
        let script = Box::new(script.map_err(|_| LaunchError::Order("the command contains a NUL".into()))?);
        let stack = self.stack()?;
        let group = groups.leaf(id).map_err(|e| LaunchError::new("open its control group", e))?;
        let child = main.with_its_processes(&self.host, || {
            // SAFETY: the launch below keeps script and stack until its child has done with them.
            unsafe { spawn(&script, &stack, group.as_fd()) }
        });
        let child = child.map_err(|e| LaunchError::new("make a process in the instance", e))?;
        let process = main.beside(child.pidfd, child.pid);
        let mut launching = Launching::new(process, (channel, None), script, stack, None);
        launching.join(groups, id);
        Ok(launching)
    }

    /// Takes back what a finished launch no longer needs.
    pub(crate) fn finish(&mut self, launching: Launching) -> MainProcess {
        launching.tell_times();
        let (main, stack) = launching.take_apart();
        self.stacks.extend(stack);
        main
    }

    /// Returns to the host's mount namespace: a template whose instances are gone goes only when nobody is in it.
    pub(crate) fn rest(&mut self) {
        if self.away.is_some() {
            self.away = self.host.return_to_mounts().is_err().then_some(Away::Somewhere);
            // A child that becomes another user changes this for the memory it shares with its parent.
            undumpable();
        }
    }

    /// Does something in another mount namespace, and is in the host's afterwards.
    pub(crate) fn in_mounts<T>(
        &mut self,
        mounts: &OwnedFd,
        something: impl FnOnce() -> T,
    ) -> std::io::Result<T> {
        self.away = Some(Away::Somewhere);
        let done = template::enter(mounts).map(|()| something());
        self.rest();
        done
    }

    /// Goes to the mount namespace of an image, if it is not there.
    fn enter(&mut self, order: &InstanceOrder, ids: AppIds) -> Result<Rc<Template>, LaunchError> {
        // Whatever fails: where it is then is not known.
        let before = self.away.replace(Away::Somewhere);
        let template = self.template(order, ids)?;
        if !matches!(&before, Some(Away::In(there)) if Rc::ptr_eq(there, &template)) {
            template.enter().map_err(|e| LaunchError::new("enter the mount namespace of its image", e))?;
        }
        self.away = Some(Away::In(template.clone()));
        Ok(template)
    }

    fn stack(&mut self) -> Result<Stack, LaunchError> {
        match self.stacks.pop() {
            Some(stack) => Ok(stack),
            None => Stack::new().map_err(|e| LaunchError::new("map a stack for it", e)),
        }
    }

    fn template(&mut self, order: &InstanceOrder, ids: AppIds) -> Result<Rc<Template>, LaunchError> {
        let key = (order.image.digest, ids);
        if let Some(template) = self.templates.get(&key).and_then(Weak::upgrade) {
            return Ok(template);
        }
        self.templates.retain(|_, template| template.strong_count() > 0);
        let template = Rc::new(Template::new(&self.host, &order.image, ids)?);
        self.templates.insert(key, Rc::downgrade(&template));
        Ok(template)
    }
}

/// What the types of an order allow and no instance can have.
fn sensible(order: &InstanceOrder) -> Result<(), LaunchError> {
    let run = &order.run;
    let program = run.argv.first().map_or("", String::as_str);
    if !program.starts_with('/') {
        return Err(LaunchError::Order(format!("the program `{program}` is not an absolute path")));
    }
    let texts = bytes_of_texts(order);
    if texts > order.limits.texts().0 {
        return Err(LaunchError::Order(format!(
            "its arguments and variables are {}, and all it may use is {}: at most a quarter of that",
            ByteSize(texts).about(),
            order.limits.memory
        )));
    }
    let mut ids = [run.uid, run.gid].into_iter().chain(run.groups.iter().copied());
    let id_too_high = ids.find(|id| *id >= AppIds::COUNT);
    if let Some(id) = id_too_high {
        return Err(LaunchError::Order(format!(
            "its user or a group is {id}; ids end at {}",
            AppIds::COUNT - 1
        )));
    }
    Ok(())
}

/// What the kernel copies for its program. That counts as the instance's while the memory of who executes it still is the
/// keeper's, which would be killed with it if there were no room.
pub(in crate::embedded) fn bytes_of_texts(order: &InstanceOrder) -> u64 {
    let secrets = order.secrets.iter().filter(|s| s.env.is_some()).map(|s| s.value.reveal().len() as u64);
    kiln_model::bytes_of_texts(&order.run, &order.env) + secrets.sum::<u64>()
}

fn no_ids_left() -> LaunchError {
    LaunchError::Order("no range of user ids is left for its app".into())
}

/// Both ends of the talk between parent and child; messages keep their boundaries.
fn channel() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// The pipes belong to the instance's user, who may open them again as /dev/stdout.
fn own_streams(streams: &[&OwnedFd], uid: u32, gid: u32) -> rustix::io::Result<()> {
    for stream in streams {
        fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// Keeps the memory of this process, through which secrets pass, out of core dumps and away from its user's
/// debuggers. Instances inherit the limit, and may not raise it.
pub(crate) fn undumpable() {
    // It cannot fail but on a kernel without the call, which Kiln does not run on.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Less than any dump takes, and not 0: where dumps are handed to a program (core(5)), the kernel heeds no limit but 1.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
}
