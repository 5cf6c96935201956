//! What a keeper does when asked.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_model::{Inside, InstanceId, InstanceOrder, NeedName, StoreAddress};

use super::super::launch::begin_connection;
use super::super::wire::{Answer, Call, Cursor, MOST_DESCRIPTORS, Reply, Request};
use super::conversation::Conversation;
use super::door::Rights;
use super::executing::Asked;
use super::instance::{Instance, Phase};
use super::journal::Record;
use super::poll::Source;
use super::register::Register;
use super::turn::{Alarm, End, Keeper, Outcome};
use super::waiting::{Until, Waiting};

/// How many conversations there may be: control has a few, the edge one for each of its threads.
const MOST_CONVERSATIONS: usize = 256;
/// The longest that changes are waited for in one go.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Keeper {
    /// Whoever cannot be listened to, because there are too many or the system has no room, finds the connection
    /// closed.
    pub(super) fn begin_conversation(&mut self, conversation: Conversation) {
        let number = self.next_number();
        if self.conversations.len() < MOST_CONVERSATIONS
            && self.poll.add(conversation.socket(), Source::Conversation(number)).is_ok()
        {
            self.conversations.insert(number, conversation);
        }
    }

    pub(super) fn converse(&mut self, number: u64) {
        let Some(conversation) = self.conversations.get_mut(&number) else { return };
        match conversation.proceed() {
            Ok(request) => self.attend(number, request),
            Err(_) => self.end_conversation(number),
        }
    }

    /// Serves a request and those that have already come behind it, and waits for what is next.
    fn attend(&mut self, number: u64, mut request: Option<Request>) {
        while let Some(Request { number: of_request, call }) = request.take() {
            self.serve(number, of_request, call);
            let Some(conversation) = self.conversations.get_mut(&number) else { return };
            match conversation.next_request() {
                Ok(next) => request = next,
                Err(_) => return self.end_conversation(number),
            }
        }
        self.watch(number);
    }

    fn watch(&mut self, number: u64) {
        let Some(conversation) = self.conversations.get(&number) else { return };
        let source = Source::Conversation(number);
        if self.poll.change(conversation.socket(), source, conversation.wants()).is_err() {
            self.end_conversation(number);
        }
    }

    fn end_conversation(&mut self, number: u64) {
        if let Some(conversation) = self.conversations.remove(&number) {
            self.poll.remove(conversation.socket());
        }
        self.waiting.retain(|w| w.conversation != number);
        self.end_commands_of(number);
    }

    fn serve(&mut self, conversation: u64, number: u64, call: Call) {
        let rights = self.conversations.get(&conversation).map(|c| c.rights);
        let is_for_edges = matches!(call, Call::Sockets { .. } | Call::Listeners { .. } | Call::Store { .. });
        if rights != Some(Rights::Control) && !is_for_edges {
            let why = Answer::Refused("only sockets are to be had here".into());
            return self.reply(conversation, number, why, Vec::new());
        }
        let owed = match call {
            Call::Create(orders) => match self.create(orders) {
                Ok(ids) => Until::Settled(ids, 0),
                Err(why) => return self.reply(conversation, number, Answer::Refused(why), Vec::new()),
            },
            Call::Kill(ids) => Until::Gone(self.kill(&ids)),
            Call::Changes { since, timeout_ms } => self.changes(since, timeout_ms),
            Call::Stop(ids) => {
                ids.iter().for_each(|id| self.stop(id));
                return self.reply(conversation, number, Answer::Done, Vec::new());
            }
            Call::Forget(ids) => {
                ids.iter().for_each(|id| self.forget(id));
                return self.reply(conversation, number, Answer::Done, Vec::new());
            }
            Call::Locate(places) => {
                self.locate(places);
                return self.reply(conversation, number, Answer::Done, Vec::new());
            }
            Call::List => {
                let statuses = Answer::Statuses(self.register.list());
                return self.reply(conversation, number, statuses, Vec::new());
            }
            Call::Sockets { id, count } => {
                let (answer, sockets) = self.sockets(&id, count);
                return self.reply(conversation, number, answer, sockets);
            }
            Call::Listeners { id } => {
                let (answer, listeners) = self.listeners(&id);
                return self.reply(conversation, number, answer, listeners);
            }
            Call::Store { id, need } => {
                let (answer, sockets) = self.store(&id, &need);
                return self.reply(conversation, number, answer, sockets);
            }
            Call::Exec { id, order } => {
                let streams = self.conversations.get_mut(&conversation).map(Conversation::take_descriptors);
                let asked = Asked { conversation, number };
                return match self.exec(asked, &id, &order, streams.unwrap_or_default()) {
                    Ok(()) => {}
                    Err(answer) => self.reply(conversation, number, answer, Vec::new()),
                };
            }
            Call::Shutdown => return self.begin_end(End::AskedBy(conversation, number)),
            Call::Who => {
                let me = Answer::Keeper { pid: std::process::id() };
                return self.reply(conversation, number, me, Vec::new());
            }
            Call::Succeed { program } => {
                let answer = self.succeed(program).map_or_else(Answer::Refused, |()| Answer::Done);
                return self.reply(conversation, number, answer, Vec::new());
            }
        };
        self.waiting.push(Waiting { conversation, number, until: owed });
    }

    fn create(&mut self, orders: Vec<InstanceOrder>) -> Result<Vec<InstanceId>, String> {
        if self.end != End::NotAsked {
            return Err("the keeper is ending".into());
        }
        if !self.register.has_room_for(orders.len()) {
            return Err(format!("it remembers {} instances at most: forget ended ones", Register::MOST));
        }
        let ids = orders.iter().map(|order| order.id.clone()).collect();
        orders.into_iter().for_each(|order| self.accept(order));
        Ok(ids)
    }

    fn accept(&mut self, order: InstanceOrder) {
        if self.register.knows(&order.id) {
            return;
        }
        self.begin_rounds();
        let number = self.next_number();
        self.register.expect(order.id.clone());
        self.numbers.insert(order.id.clone(), number);
        self.instances.insert(number, Instance::new(order));
        self.queue.push_back(number);
    }

    /// Lets another program go on, when no launch is under way.
    fn succeed(&mut self, program: PathBuf) -> Result<(), String> {
        if self.end != End::NotAsked {
            return Err("the keeper is ending".into());
        }
        let on = |e: io::Error| format!("could not leave everything to {}: {e}", program.display());
        if !program.is_absolute() {
            return Err(on(io::ErrorKind::InvalidInput.into()));
        }
        self.journal.write(&Record::Successor(program.clone())).map_err(on)?;
        self.handing_over = Some(Outcome::Succeeded);
        Ok(())
    }

    /// Those that have to be gone before this can be answered.
    fn kill(&mut self, ids: &[InstanceId]) -> Vec<u64> {
        let numbers: Vec<u64> = ids.iter().filter_map(|id| self.numbers.get(id)).copied().collect();
        numbers.iter().for_each(|n| self.kill_one(*n));
        numbers
    }

    fn changes(&mut self, since: Cursor, timeout_ms: u64) -> Until {
        let deadline = Instant::now() + Duration::from_millis(timeout_ms).min(LONGEST_WAIT);
        self.alarms.insert((deadline, Alarm::Answer));
        Until::Changed(since, deadline)
    }

    fn sockets(&self, id: &InstanceId, count: u32) -> (Answer, Vec<OwnedFd>) {
        if count as usize > MOST_DESCRIPTORS {
            return (Answer::Refused(format!("at most {MOST_DESCRIPTORS} sockets at once")), Vec::new());
        }
        let instance = self.numbers.get(id).and_then(|n| self.instances.get(n));
        let Some(Instance { phase: Phase::Live(main), .. }) = instance else {
            return (Answer::NoSuchInstance, Vec::new());
        };
        match main.sockets(&self.host, count) {
            Ok(sockets) => (Answer::Sockets, sockets),
            // It has ended, and nobody has noticed yet.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => (Answer::NoSuchInstance, Vec::new()),
            Err(e) => (Answer::Refused(format!("could not make sockets in its network: {e}")), Vec::new()),
        }
    }

    fn live(&self, id: &InstanceId) -> Option<&Instance> {
        let instance = self.numbers.get(id).and_then(|n| self.instances.get(n));
        instance.filter(|i| matches!(i.phase, Phase::Live(_)))
    }

    /// Copies of what listens inside an instance for what it needs.
    fn listeners(&mut self, id: &InstanceId) -> (Answer, Vec<OwnedFd>) {
        if self.live(id).is_none() {
            return (Answer::NoSuchInstance, Vec::new());
        }
        if let Err(e) = self.listen_anew(id) {
            return (Answer::Refused(format!("could not listen in its network again: {e}")), Vec::new());
        }
        let Some(instance) = self.live(id) else { return (Answer::NoSuchInstance, Vec::new()) };
        let name = |need: &Inside| vec![need.name.clone(); need.ports.len()];
        let names: Vec<_> = instance.needs.iter().flat_map(name).collect();
        match instance.listeners.iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>() {
            Ok(listeners) => (Answer::Listeners(names), listeners),
            Err(e) => (Answer::Refused(format!("could not copy its listeners: {e}")), Vec::new()),
        }
    }

    /// Makes what listens inside an instance where it was lost: with the keeper before this one and its holder, who ended
    /// together. Not before it is asked for: an edge that has copies of it serves by them, and as long as it does the
    /// addresses are taken.
    fn listen_anew(&mut self, id: &InstanceId) -> io::Result<()> {
        let Some(number) = self.numbers.get(id).copied() else { return Ok(()) };
        let Some(instance) = self.instances.get_mut(&number) else { return Ok(()) };
        let places: Vec<_> = instance.needs.iter().flat_map(Inside::places).collect();
        if instance.listeners.len() == places.len() {
            return Ok(());
        }
        let Phase::Live(main) = &instance.phase else { return Ok(()) };
        instance.listeners = main.listeners(&self.host, &places)?;
        self.journal_listeners(number);
        Ok(())
    }

    /// A connection to a store an instance needs, begun. The edge has no say in where it leads.
    fn store(&self, id: &InstanceId, name: &NeedName) -> (Answer, Vec<OwnedFd>) {
        let Some(instance) = self.live(id) else { return (Answer::NoSuchInstance, Vec::new()) };
        let store = instance.needs.iter().find(|n| n.name == *name).and_then(|n| n.store.as_ref());
        let address = match store {
            None => return (Answer::Refused(format!("it needs no store {name}")), Vec::new()),
            Some(StoreAddress::At(address)) => *address,
            Some(StoreAddress::Named(host)) => match self.places.get(host) {
                Some(address) => *address,
                None => return (Answer::Refused(format!("nobody has said where {host} is")), Vec::new()),
            },
        };
        match begin_connection(address) {
            Ok(socket) => (Answer::Sockets, vec![socket]),
            Err(e) => (Answer::Refused(format!("could not connect to {address}: {e}")), Vec::new()),
        }
    }

    /// Ends everything, and the keeper itself when that is done. It can be asked for more than once.
    pub(super) fn begin_end(&mut self, end: End) {
        self.end = end;
        let all: Vec<u64> = self.instances.keys().copied().collect();
        all.into_iter().for_each(|n| self.kill_one(n));
    }

    /// Gives the answers that are due.
    pub(super) fn answer(&mut self) {
        let now = Instant::now();
        let waiting = std::mem::take(&mut self.waiting);
        for mut each in waiting {
            match each.answer(&self.register, |n| self.instances.contains_key(&n), now) {
                Some(answer) => self.reply_and_go_on(each.conversation, each.number, answer),
                None => self.waiting.push(each),
            }
        }
    }

    pub(super) fn reply_and_go_on(&mut self, conversation: u64, number: u64, answer: Answer) {
        self.reply(conversation, number, answer, Vec::new());
        let next = self.conversations.get_mut(&conversation).map(Conversation::next_request);
        match next {
            Some(Ok(request)) => self.attend(conversation, request),
            Some(Err(_)) => self.end_conversation(conversation),
            None => {}
        }
    }

    pub(super) fn reply(
        &mut self,
        conversation: u64,
        number: u64,
        answer: Answer,
        descriptors: Vec<OwnedFd>,
    ) {
        let Some(speaker) = self.conversations.get_mut(&conversation) else { return };
        if speaker.reply(&Reply { number, answer }, descriptors).is_err() {
            self.end_conversation(conversation);
        }
    }
}
