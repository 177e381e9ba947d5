//! Messages that wait: those held until their chare can take them, and the budget beyond which waiting ones are warned of.
//!
//! The run queue is looked at once per step of the PE, what is held where it is held. A PE warns when a budget is
//! exceeded and then each time the most that it has seen doubles, so that a run that grows on says so a few times only.

use std::cell::Cell;
use std::fmt;

use rustc_hash::FxHashMap;

use crate::cell::ChareRef;
use crate::entry::EntryInfo;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::message::{Msg, Name};
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::scheduler::task;
use crate::warning::Warning;

/// The budget of programs that say nothing: some 100 MB of small messages.
pub(crate) const DEFAULT_BUDGET: usize = 1_000_000;
/// Kinds of messages that a warning names.
const NAMED: usize = 3;

/// More messages wait in one place than the budget.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailboxWarning {
    /// The PE where they wait.
    pub pe: PeId,
    /// The chare or collection that they are held for, and why; `None` if they are in the PE's queue and wait for their
    /// turns.
    pub held_for: Option<String>,
    /// How many wait.
    pub count: usize,
    /// How many the budget allows for.
    pub budget: usize,
    /// What most of them are, at most three kinds: the entry that they call, and how many.
    pub most: Vec<(String, usize)>,
}

impl fmt::Display for MailboxWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MailboxWarning { pe, held_for, count, budget, most } = self;
        match held_for {
            None => write!(f, "{count} messages wait for their turns on PE {pe}")?,
            Some(who) => write!(f, "{count} messages are held on PE {pe} for {who}")?,
        }
        write!(f, ", more than the budget of {budget}")?;
        for (place, (what, count)) in most.iter().enumerate() {
            write!(f, "{} {count} {what}", if place == 0 { ":" } else { "," })?;
        }
        f.write_str("; let senders await answers or use channels, or set --mailbox-budget (0 for none)")
    }
}

/// What a PE warns of next.
pub(crate) struct Mailbox {
    queued: Limit,
    held: Limit,
}

/// The count beyond which there is a warning.
struct Limit(Cell<usize>);

impl Limit {
    #[inline(always)]
    fn is_exceeded(&self, count: usize) -> bool {
        count > self.0.get()
    }

    /// Doubles until `count` is within.
    fn raise(&self, count: usize) {
        while self.is_exceeded(count) {
            self.0.set(self.0.get().saturating_mul(2));
        }
    }
}

impl Mailbox {
    /// A budget of 0 is none.
    pub(crate) fn new(budget: usize) -> Self {
        let limit = || Limit(Cell::new(if budget == 0 { usize::MAX } else { budget }));
        Mailbox { queued: limit(), held: limit() }
    }
}

/// A kind of waiting work.
#[derive(PartialEq, Eq, Hash)]
enum Kind {
    Call(&'static EntryInfo),
    Resume(&'static EntryInfo),
    Other(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Call(entry) => write!(f, "{}.{}", entry.chare, entry.name),
            Kind::Resume(entry) => write!(f, "wake-ups of {}.{}", entry.chare, entry.name),
            Kind::Other(name) => f.write_str(name),
        }
    }
}

/// How many there are of each kind.
#[derive(Default)]
struct Tally(FxHashMap<Kind, usize>);

impl Tally {
    fn add(&mut self, kind: Kind) {
        *self.0.entry(kind).or_default() += 1;
    }

    fn add_msg(&mut self, msg: &Msg) {
        self.add(match msg.name() {
            Name::Entry(entry) => Kind::Call(entry),
            Name::Runtime(name) => Kind::Other(name),
        });
    }

    fn add_work(&mut self, pe: &Pe, work: &Work) {
        match work {
            Work::Msg(msg) => self.add_msg(msg),
            Work::Resume(task) => match task::entry_of(pe, *task) {
                Some(entry) => self.add(Kind::Resume(entry)),
                None => self.add(Kind::Other("wake-ups of coroutines that have ended")),
            },
            Work::Job(_) => self.add(Kind::Other("broadcasts and creations")),
        }
    }

    fn into_most(self) -> Vec<(String, usize)> {
        let mut kinds: Vec<_> = self.0.into_iter().map(|(kind, count)| (kind.to_string(), count)).collect();
        kinds.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        kinds.truncate(NAMED);
        kinds
    }
}

impl Pe {
    /// Looks whether too much waits in the run queue.
    #[inline(always)]
    pub(crate) fn check_queue(&self) {
        if self.mailbox.queued.is_exceeded(self.queue.len()) {
            self.warn_of_queue();
        }
    }

    #[cold]
    fn warn_of_queue(&self) {
        let mut tally = Tally::default();
        self.queue.for_each(|work| tally.add_work(self, work));
        self.mailbox.queued.raise(self.queue.len());
        self.warn_of_mailbox(None, self.queue.len(), tally);
    }

    fn warn_of_mailbox(&self, held_for: Option<String>, count: usize, tally: Tally) {
        let budget = self.shared().options().mailbox_budget();
        let most = tally.into_most();
        self.warn(&Warning::Mailbox(MailboxWarning { pe: self.id(), held_for, count, budget, most }));
    }

    /// Something more is held; `count` in the same place. `describe` says for whom and adds all up.
    fn check_held(&self, count: usize, describe: impl FnOnce(&mut Tally) -> String) {
        if self.mailbox.held.is_exceeded(count) {
            self.mailbox.held.raise(count);
            let mut tally = Tally::default();
            let held_for = describe(&mut tally);
            self.warn_of_mailbox(Some(held_for), count, tally);
        }
    }

    /// Keeps a message until the exclusive coroutine that owns its chare has ended.
    #[cold]
    pub(crate) fn hold_for_owned(&self, chare: ChareRef, msg: Msg) {
        let count = chare.extra(|extra| {
            extra.held.push_back(Work::Msg(msg));
            extra.held.len()
        });
        self.check_held(count, |tally| {
            chare.extra(|extra| extra.held.iter().for_each(|work| tally.add_work(self, work)));
            format!("{}, which an exclusive coroutine owns", self.chare_name(chare.id))
        });
    }

    /// Whether so many held messages are more than the budget.
    pub(crate) fn exceeds_budget(&self, count: usize) -> bool {
        self.mailbox.held.is_exceeded(count)
    }

    /// A chare keeps more calls than that for the conditions of their entries: so many of each.
    #[cold]
    pub(crate) fn warn_of_kept(&self, chare: ChareRef, counts: Vec<(&'static EntryInfo, usize)>) {
        self.check_held(counts.iter().map(|(_, count)| count).sum(), |tally| {
            counts
                .into_iter()
                .for_each(|(entry, count)| *tally.0.entry(Kind::Call(entry)).or_default() += count);
            format!("{}, until conditions of its entries hold", self.chare_name(chare.id))
        });
    }

    /// Keeps a message for a chare that will live here until it is constructed.
    pub(crate) fn hold_for_chare(&self, msg: Msg) {
        let ChareId { collection, element } = msg.head().to;
        match self.directory.get(collection) {
            Some(collection) => {
                let count = collection.hold_for_element(msg);
                self.check_held(count, |tally| {
                    collection.for_each_unborn(|to, msg| {
                        if to == element {
                            tally.add_msg(msg);
                        }
                    });
                    let name = collection.name_of(self, element);
                    format!("{}{name}, whose constructor has not ended", collection.info.chare.name)
                });
            }
            None => {
                let count = add(self.unborn_singles.borrow_mut().entry(element).or_default(), msg);
                self.check_held(count, |tally| {
                    self.unborn_singles.borrow()[&element].iter().for_each(|msg| tally.add_msg(msg));
                    "a singleton whose constructor has not ended".to_owned()
                });
            }
        }
    }

    /// Notes that this PE is to create a collection, later than its methods are told of it.
    pub(crate) fn expect_collection(&self, id: CollectionId) {
        self.unborn_collections.borrow_mut().entry(id).or_default();
    }

    /// Whether something waits here for a collection, or this PE is to create it.
    pub(crate) fn expects_collection(&self, id: CollectionId) -> bool {
        self.unborn_collections.borrow().contains_key(&id)
    }

    /// Keeps a message until its collection is known here; refuses it if that will not be created.
    pub(crate) fn hold_for_collection(&self, id: CollectionId, msg: Msg) {
        if let Some(error) = self.uncreated(id) {
            return msg.lose(self, error);
        }
        let count = add(self.unborn_collections.borrow_mut().entry(id).or_default(), msg);
        self.check_held(count, |tally| {
            self.unborn_collections.borrow()[&id].iter().for_each(|msg| tally.add_msg(msg));
            "a collection that has not been created here yet".to_owned()
        });
    }
}

/// Adds a message, and says how many there are.
fn add(held: &mut Vec<Msg>, msg: Msg) -> usize {
    held.push(msg);
    held.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_doubles_until_the_count_is_within() {
        let mailbox = Mailbox::new(10);
        let warned: Vec<usize> = (0..100)
            .filter(|&count| {
                let exceeded = mailbox.held.is_exceeded(count);
                mailbox.held.raise(count);
                exceeded
            })
            .collect();
        assert_eq!(warned, [11, 21, 41, 81]);
        mailbox.queued.raise(1000);
        assert!(!mailbox.queued.is_exceeded(1280) && mailbox.queued.is_exceeded(1281));
        assert!(!Mailbox::new(0).held.is_exceeded(usize::MAX), "none");
    }
}
