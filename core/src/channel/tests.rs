//! One end, and the two ends of one direction, against naive streams.

use std::sync::mpsc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::carry::Carry;
use super::end::{AnyEnd, Effects, End, Name, WINDOW};
use crate::current;
use crate::ids::ChareId;
use crate::ids::PeId;
use crate::options::Options;
use crate::runtime::Runtime;
use crate::scheduler::pe::Pe;
use std::collections::VecDeque;

/// Runs a case in the main coroutine of a run, for what needs a PE.
fn on_a_pe(
    case: impl FnOnce(&Pe) -> Result<(), TestCaseError> + Send + 'static,
) -> Result<(), TestCaseError> {
    let (result, outcome) = mpsc::channel();
    let report = Runtime::run(Options::default().with_pes(1), |_| async move {
        let _ = result.send(current::on_pe("a test", case));
    });
    outcome.recv().unwrap_or_else(|_| panic!("{report:?}"))
}

proptest! {
    /// Of the values that have not come, one of the first ones comes, so that gaps open and close often.
    #[test]
    fn values_are_handed_out_in_order(turns in prop::collection::vec((0..5_usize, 0..3_usize), 0..80)) {
        let mut end = End::new(None);
        let mut to_come: Vec<u64> = (0..turns.len() as u64).collect();
        let (mut come, mut next) = (Vec::new(), 0);
        for (early_by, reads) in turns {
            let number = to_come.remove(early_by.min(to_come.len() - 1));
            prop_assert!(end.accept(number, number).is_none(), "nobody waits");
            come.push(number);
            for _ in 0..reads {
                let expected = come.contains(&next).then_some(next);
                prop_assert_eq!(end.pop(), expected);
                next += u64::from(expected.is_some());
            }
            let first_missing = (next..).find(|number| !come.contains(number)).expect("numbers are endless");
            prop_assert_eq!(end.queued(), ((first_missing - next) as usize, 0));
            prop_assert_eq!(end.in_is_slow, come.iter().any(|number| *number > first_missing));
        }
        let rest: Vec<_> = std::iter::from_fn(|| end.pop()).collect();
        prop_assert_eq!(rest, (next..come.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn credit_is_neither_lost_nor_made(steps in steps()) {
        on_a_pe(move |pe| {
            let mut stream = Stream::new();
            for step in steps {
                stream.run(pe, step)?;
                stream.check()?;
            }
            stream.finish(pe)
        })?;
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    /// One of the values on their way arrives before the others.
    ArriveEarly(Index),
    Arrive(usize),
    Read(usize),
    ReturnCredit(Index),
}

/// Many at a time, since a window holds many.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let many = 1..2 * WINDOW as usize;
    let step = prop_oneof![
        3 => many.clone().prop_map(Step::Send),
        2 => any::<Index>().prop_map(Step::ArriveEarly),
        3 => many.clone().prop_map(Step::Arrive),
        3 => many.prop_map(Step::Read),
        3 => any::<Index>().prop_map(Step::ReturnCredit),
    ];
    prop::collection::vec(step, 0..40)
}

/// Both ends of one direction of a channel and what travels between them. Every value is its number.
struct Stream {
    sender: End<u64>,
    receiver: End<u64>,
    values: VecDeque<(u64, u64)>,
    credits: Vec<u32>,
    /// Values that the sender has given away, at once or to its backlog.
    sent: u64,
    read: u64,
}

impl Stream {
    fn new() -> Self {
        Stream {
            sender: End::new(None),
            receiver: End::new(None),
            values: VecDeque::new(),
            credits: Vec::new(),
            sent: 0,
            read: 0,
        }
    }

    fn run(&mut self, pe: &Pe, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send(count) => (0..count).for_each(|_| self.send()),
            Step::ArriveEarly(which) if !self.values.is_empty() => {
                self.arrive(which.index(self.values.len()))?;
            }
            Step::Arrive(count) => {
                for _ in 0..count.min(self.values.len()) {
                    self.arrive(0)?;
                }
            }
            Step::Read(count) => {
                for _ in 0..count {
                    self.read()?;
                }
            }
            Step::ReturnCredit(which) if !self.credits.is_empty() => {
                let count = self.credits.swap_remove(which.index(self.credits.len()));
                self.return_credit(pe, count)?;
            }
            Step::ArriveEarly(_) | Step::ReturnCredit(_) => {}
        }
        Ok(())
    }

    /// As `Channel::send`.
    fn send(&mut self) {
        if self.sender.credit > 0 && self.sender.backlog_count() == 0 {
            self.sender.credit -= 1;
            self.values.push_back((self.sender.next_out, self.sent));
            self.sender.next_out += 1;
        } else {
            self.sender.slow().backlog.push_back(self.sent);
            self.sender.out_is_slow = true;
        }
        self.sent += 1;
    }

    fn arrive(&mut self, place: usize) -> Result<(), TestCaseError> {
        let (number, value) = self.values.remove(place).expect("a value on its way");
        prop_assert!(self.receiver.accept(number, value).is_none(), "nobody waits");
        Ok(())
    }

    /// As `Channel::try_recv`.
    fn read(&mut self) -> Result<(), TestCaseError> {
        let expected = (self.read < self.receiver.next_in).then_some(self.read);
        prop_assert_eq!(self.receiver.pop(), expected);
        if expected.is_some() {
            self.read += 1;
            self.receiver.read += 1;
            if u32::from(self.receiver.read) >= WINDOW / 2 {
                self.credits.push(std::mem::take(&mut self.receiver.read).into());
            }
        }
        Ok(())
    }

    /// As `Credit::arrive`.
    fn return_credit(&mut self, pe: &Pe, count: u32) -> Result<(), TestCaseError> {
        let name = Name { own: chare(0), peer: chare(1), tag: TAG };
        let Effects { messages, woken, cancelled, .. } = self.sender.add_credit(count, name);
        prop_assert!(woken.is_empty() && cancelled.is_none(), "nobody waits");
        for msg in messages {
            prop_assert_eq!(msg.head().to, chare(1));
            let carry = msg.into_payload::<Carry<u64>>(pe).expect("credit sends values only");
            prop_assert_eq!((carry.from, carry.tag), (chare(0), TAG));
            self.values.push_back((carry.number, carry.value));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let early = self.receiver.slow.as_ref().map_or(0, |slow| slow.early.len());
        let unread = self.receiver.queued().0;
        let under_way = self.values.len() + early + unread;
        let returning = self.credits.iter().sum::<u32>() + u32::from(self.receiver.read);
        prop_assert_eq!(self.sender.credit as usize + under_way + returning as usize, WINDOW as usize);
        prop_assert!(
            self.values.iter().all(|(number, value)| number == value),
            "numbered in order of sending"
        );

        let backlog_count = self.sender.queued().1;
        prop_assert_eq!(backlog_count as u64, self.sent - self.sender.next_out);
        prop_assert!(backlog_count == 0 || self.sender.credit == 0, "values wait in spite of credit");
        prop_assert_eq!(self.sender.out_is_slow, backlog_count > 0);
        prop_assert_eq!(self.receiver.in_is_slow, early > 0);
        prop_assert_eq!(unread as u64, self.receiver.next_in - self.read);
        Ok(())
    }

    /// Lets everything arrive until nothing is left, which must be soon.
    fn finish(&mut self, pe: &Pe) -> Result<(), TestCaseError> {
        while self.read < self.sent {
            let before = (self.read, self.sender.next_out);
            while !self.values.is_empty() {
                self.arrive(0)?;
            }
            while self.receiver.first.is_some() {
                self.read()?;
            }
            while let Some(count) = self.credits.pop() {
                self.return_credit(pe, count)?;
            }
            self.check()?;
            prop_assert!((self.read, self.sender.next_out) > before, "the stream is stuck");
        }
        Ok(())
    }
}

const TAG: u64 = 5;

fn chare(number: u64) -> ChareId {
    ChareId::single(PeId::new(0), PeId::new(0), number)
}
