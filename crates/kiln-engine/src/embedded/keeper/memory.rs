//! What a keeper writes into its journal, and when.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use kiln_model::{Exit, InstanceId, InstanceOrder, StoreHost};

use super::super::launch::Launching;
use super::descriptors::Mark;
use super::instance::Instance;
use super::journal::Record;
use super::register::Register;
use super::turn::Keeper;

impl Keeper {
    /// An instance has its first process. If that cannot be written down, it is to be none: a keeper after this one
    /// would not know what it is, and remove it.
    pub(super) fn write_down(
        &mut self,
        number: u64,
        order: &InstanceOrder,
        launching: &Launching,
    ) -> io::Result<()> {
        let Some(instance) = self.instances.get_mut(&number) else { return Ok(()) };
        let trace = instance.describe(order, launching)?;
        self.journal.write(&Record::Launched(Cow::Borrowed(&trace)))?;
        instance.trace = Some(Box::new(trace));
        Ok(())
    }

    /// An instance is listened in, if it is. Without this the next keeper would not know by what.
    pub(super) fn journal_listeners(&mut self, number: u64) {
        let Some(instance) = self.instances.get_mut(&number).filter(|i| !i.listeners.is_empty()) else {
            return;
        };
        let marks = instance.listeners.iter().map(Mark::of).collect::<io::Result<Vec<_>>>();
        if let (Some(trace), Ok(marks)) = (&mut instance.trace, marks) {
            trace.listeners = marks;
            let _ = self.journal.write(&Record::Launched(Cow::Borrowed(trace)));
        }
    }

    /// Stores are where they are now. Told again and again, it is written down when it has changed.
    pub(super) fn locate(&mut self, places: BTreeMap<StoreHost, SocketAddr>) {
        if places != self.places {
            let _ = self.journal.write(&Record::Located(Cow::Borrowed(&places)));
            self.places = places;
        }
    }

    // What cannot be written down here and below is missing until the journal is written anew.

    pub(super) fn journal_exit(&mut self, id: &InstanceId, exit: &Exit) {
        let _ = self.journal.write(&Record::Exited(Cow::Borrowed(id), Cow::Borrowed(exit)));
    }

    pub(super) fn journal_status(&mut self, id: &InstanceId) {
        if let Some(status) = self.register.status(id) {
            let _ = self.journal.write(&Record::Told(Cow::Borrowed(status)));
        }
    }

    pub(super) fn forget(&mut self, id: &InstanceId) {
        if self.register.forget(id) {
            let _ = self.journal.write(&Record::Forgotten(Cow::Borrowed(id)));
        }
    }

    /// Writes the journal anew if it lacks something or has become long.
    pub(super) fn keep_journal_whole(&mut self) {
        if self.journal.is_worn() {
            // It stays worn if that fails, and is tried again after the next event.
            let _ = self.write_journal_anew();
        }
    }

    pub(super) fn write_journal_anew(&mut self) -> io::Result<()> {
        let (instances, register) = (&self.instances, &self.register);
        let located = (!self.places.is_empty()).then_some(Record::Located(Cow::Borrowed(&self.places)));
        let records = instances.values().flat_map(of_instance).chain(of_register(register));
        self.journal.renew(located.into_iter().chain(records))
    }
}

fn of_instance(instance: &Instance) -> impl Iterator<Item = Record<'_>> {
    let trace = instance.trace.as_deref();
    let launched = trace.map(|trace| Record::Launched(Cow::Borrowed(trace)));
    let exit = trace.and(instance.exit());
    let exited = exit.map(|exit| Record::Exited(Cow::Borrowed(&instance.id), Cow::Borrowed(exit)));
    launched.into_iter().chain(exited)
}

fn of_register(register: &Register) -> impl Iterator<Item = Record<'_>> {
    register.in_order().map(|status| Record::Told(Cow::Borrowed(status)))
}
