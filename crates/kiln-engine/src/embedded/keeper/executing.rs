//! Commands that are run inside of instances, beside their main processes.

use std::os::fd::OwnedFd;

use kiln_model::{ExecOrder, Exit, InstanceId};

use super::super::launch::{Launching, MainProcess, Progress};
use super::super::wire::Answer;
use super::instance::{Instance, Phase};
use super::poll::Source;
use super::turn::Keeper;

/// Who waits for the end of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) conversation: u64,
    pub(super) number: u64,
}

/// A command, from its birth to its end.
pub(super) struct Command {
    asked: Asked,
    stage: Stage,
}

enum Stage {
    /// On its way to its program.
    Launching(Box<Launching>),
    /// Its process is there; why it never became its program, if so.
    Live(MainProcess, Option<String>),
}

impl Command {
    fn process(&self) -> &MainProcess {
        match &self.stage {
            Stage::Launching(launching) => launching.main(),
            Stage::Live(process, _) => process,
        }
    }
}

impl Keeper {
    /// Begins a command; its end is told to who asked.
    pub(super) fn exec(
        &mut self,
        asked: Asked,
        id: &InstanceId,
        order: &ExecOrder,
        streams: Vec<OwnedFd>,
    ) -> Result<(), Answer> {
        let instance = self.numbers.get(id).and_then(|n| self.instances.get(n));
        let Some(Instance { phase: Phase::Live(main), .. }) = instance else {
            return Err(Answer::NoSuchInstance);
        };
        let Ok(streams) = <[OwnedFd; 3]>::try_from(streams) else {
            return Err(Answer::Refused("a command needs three standard streams".into()));
        };
        let main = main.clone();
        let not_started = |cause| Answer::Executed(Exit::NotStarted { cause });
        let launching = self
            .launcher
            .begin_beside(&main, id, order, &self.groups, streams)
            .map_err(|e| not_started(e.in_full()))?;
        let number = self.next_number();
        self.poll
            .add(launching.channel(), Source::Launch(number))
            .map_err(|e| not_started(format!("could not watch its launch: {e}")))?;
        self.commands.insert(number, Command { asked, stage: Stage::Launching(Box::new(launching)) });
        Ok(())
    }

    pub(super) fn command_went_on(&mut self, number: u64) {
        let Some(mut command) = self.commands.remove(&number) else { return };
        let Stage::Launching(mut launching) = command.stage else { return };
        let failure = match launching.proceed(&self.host) {
            Progress::UnderWay => {
                command.stage = Stage::Launching(launching);
                self.commands.insert(number, command);
                return;
            }
            Progress::Over => None,
            Progress::Failed(why) => Some(why.in_full()),
        };
        self.poll.remove(launching.channel());
        let process = self.launcher.finish(*launching);
        if self.poll.add(process.pidfd(), Source::Main(number)).is_err() {
            process.kill_group();
            let cause = "its end could not be watched".into();
            self.tell_end(command.asked, Exit::NotStarted { cause });
            return;
        }
        self.commands.insert(number, Command { stage: Stage::Live(process, failure), ..command });
    }

    pub(super) fn command_ended(&mut self, number: u64) {
        let Some(Command { stage: Stage::Live(process, failure), asked }) = self.commands.get(&number) else {
            return;
        };
        let Some(exit) = process.reap(&self.host) else { return };
        let (asked, exit) = match failure {
            Some(cause) => (*asked, Exit::NotStarted { cause: cause.clone() }),
            None => (*asked, exit),
        };
        self.poll.remove(process.pidfd());
        self.commands.remove(&number);
        self.tell_end(asked, exit);
    }

    fn tell_end(&mut self, asked: Asked, exit: Exit) {
        self.reply_and_go_on(asked.conversation, asked.number, Answer::Executed(exit));
    }

    /// Nobody waits for these any more.
    pub(super) fn end_commands_of(&mut self, conversation: u64) {
        let theirs = self.commands.values().filter(|c| c.asked.conversation == conversation);
        theirs.for_each(|command| command.process().kill_group());
    }
}
