//! The completion tree of a broadcast, and of a creation: what its elements have come to, from all PEs to the cell of whoever waits.
//!
//! Each PE counts its own elements and reports once. In the process of the cell it reports to that. Elsewhere it reports to the *leader* of its process,
//! the first PE, which keeps what comes until all PEs of the process have reported, and the processes behind it in the tree over which
//! the broadcast has come (`job/spread.rs`); then it reports for all of them, to the leader before it or to the cell. So a cell gets as many
//! reports as its process has PEs, and one from each process next to it, however many there are.
//!
//! Invariant: each PE, and each process, reports once, and says when it has. Values are encoded by the PE that reports them, and read by the
//! cell, which knows their type; what leads knows only errors.

use std::cell::RefCell;
use std::convert::Infallible;

use rustc_hash::FxHashMap;

use crate::answer::{After, Sink};
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, PeId};
use crate::job;
use crate::message::{Msg, Name, Payload};
use crate::reply::{CellRef, Reply, UNKNOWN, send_answer};
use crate::scheduler::pe::Pe;
use crate::wire::{
    Arrives, Codec, Decoder, Encode, Encoder, Kind, Leaves, MOST_BUFFERS, Rest, Stays, Unsent, Way, WireError,
};

/// Outcomes by element number, as a gathering broadcast collects them.
pub(crate) type Outcomes<R> = Vec<(u64, Result<R, CallError>)>;

/// How values leave their process, if it comes to that.
type CodecOf<R> = fn() -> &'static Codec<R>;

/// Opens the cell that the trackers of all PEs report to.
pub(crate) fn open_root<R: Send + 'static, V: Send + 'static>(
    pe: &Pe,
    codec: CodecOf<R>,
    finish: impl FnOnce(Outcomes<R>, Option<CallError>) -> Result<V, CallError> + 'static,
) -> CellRef {
    let (missing, total) = (reporters(pe, pe.id()), Report::new(codec));
    let root = Root { missing, total, finish: Some(Box::new(finish)) };
    CellRef::new(pe, pe.cells.open_sink(root, Codec::by::<AsBundle>()))
}

/// Opens the cell that counts `count` outcomes on this PE; `None` if there are none to wait for, which is reported now.
pub(crate) fn open_tracker<R: Send + 'static>(
    pe: &Pe,
    count: u64,
    root: CellRef,
    gather: bool,
    codec: CodecOf<R>,
) -> Option<CellRef> {
    let mut tracker = Tracker { missing: count, report: Report::new(codec), root, gather };
    if count == 0 {
        tracker.report(pe);
        return None;
    }
    Some(CellRef::new(pe, pe.cells.open_sink(tracker, codec())))
}

/// What one PE reports of its elements. One that nobody takes ends the run if it has an error: so does the error of any
/// call that nobody awaits any more.
struct Report<R: 'static> {
    outcomes: Outcomes<R>,
    error: Option<CallError>,
    /// Outcomes that have come from other processes, and are read where they are taken.
    encoded: Vec<Rest>,
    /// Nothing follows from where it comes.
    is_last: bool,
    codec: CodecOf<R>,
}

impl<R> Report<R> {
    fn new(codec: CodecOf<R>) -> Self {
        Report { outcomes: Vec::new(), error: None, encoded: Vec::new(), is_last: true, codec }
    }

    /// Adds what another reports.
    fn absorb(&mut self, pe: &Pe, mut other: Report<R>) {
        self.outcomes.append(&mut other.outcomes);
        self.error = self.error.take().or(other.error.take());
        for outcomes in std::mem::take(&mut other.encoded) {
            if let Err(error) = outcomes.decode(|from| self.read(from)) {
                pe.received_nonsense(&error);
            }
        }
    }

    /// As it goes to another process.
    fn into_bundle(mut self) -> Bundle {
        let encode: Encode<R> = (self.codec)().encode;
        let mut owed = self.first_error();
        let (own, mut encoded) = (std::mem::take(&mut self.outcomes), std::mem::take(&mut self.encoded));
        if !own.is_empty() {
            let Ok(outcomes) = Rest::encoded(|encoder| {
                encoder.put_own(&own.len());
                for (element, outcome) in own {
                    encoder.put_own(&element);
                    // A value that cannot be encoded is an error from here on.
                    let error = encoder.put_outcome(outcome, encode);
                    owed = owed.take().or(error);
                }
                Ok::<_, Infallible>(())
            });
            encoded.push(outcomes);
        }
        Bundle { error: self.error.take(), owed, encoded, is_last: self.is_last }
    }

    fn read(&mut self, from: &mut Decoder<'_>) -> Result<(), WireError> {
        let decode = (self.codec)().decode;
        for _ in 0..from.take::<usize>()? {
            let element = from.take()?;
            self.outcomes.push((element, from.take_outcome(decode)?));
        }
        Ok(())
    }

    fn first_error(&self) -> Option<CallError> {
        self.error
            .clone()
            .or_else(|| self.outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().err().cloned()))
    }
}

impl<R> Drop for Report<R> {
    fn drop(&mut self) {
        if let Some(error) = self.first_error() {
            current::pe(|pe| pe.into_iter().for_each(|pe| pe.unawaited(error.clone())));
        }
    }
}

/// What PEs of other processes report. Their outcomes are read by whoever knows how the values have left.
#[derive(Default)]
struct Bundle {
    error: Option<CallError>,
    /// The first error, be it that or one among the outcomes: what is told if nobody takes these.
    owed: Option<CallError>,
    encoded: Vec<Rest>,
    is_last: bool,
}

impl Bundle {
    fn add(&mut self, other: Bundle) {
        self.error = self.error.take().or(other.error);
        self.owed = self.owed.take().or(other.owed);
        self.encoded.extend(other.encoded);
    }

    fn buffer_count(&self) -> usize {
        self.encoded.iter().map(|outcomes| outcomes.buffers().len()).sum()
    }

    fn write(self, to: &mut Encoder) {
        to.put_own(&(self.is_last, self.error.is_some(), self.owed.is_some(), self.encoded.len()));
        self.error.iter().chain(&self.owed).for_each(|error| to.put_error(error));
        self.encoded.into_iter().for_each(|outcomes| to.put_rest(outcomes));
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (is_last, has_error, has_owed, count): (bool, bool, bool, usize) = from.take()?;
        let error = if has_error { Some(from.take_error()?) } else { None };
        let owed = if has_owed { Some(from.take_error()?) } else { None };
        let encoded = (0..count).map(|_| from.take_whole_rest()).collect::<Result<_, _>>()?;
        Ok(Bundle { error, owed, encoded, is_last })
    }
}

/// How reports leave their process.
struct AsBundle;

impl<R: Send + 'static> Way<Report<R>> for AsBundle {
    type OfPromises = AsBundle;

    fn encode(report: Report<R>, to: &mut Encoder) -> Result<(), Stays> {
        report.into_bundle().write(to);
        Ok(())
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Report<R>, WireError> {
        let Bundle { error, encoded, is_last, .. } = Bundle::read(from)?;
        Ok(Report { outcomes: Vec::new(), error, encoded, is_last, codec: Codec::nowhere })
    }
}

/// How many report to the leader of a PE's process, or to the cell if that is there: its PEs, and processes.
fn reporters(pe: &Pe, cell: PeId) -> usize {
    let shared = pe.shared();
    let (root, _) = shared.place_of(cell);
    pe.near_pes().len() + job::children(root, pe.rank, shared.process_count()).count()
}

/// What the leader of a process keeps, by the cell that it is for.
#[derive(Default)]
pub(crate) struct Relays(RefCell<FxHashMap<CellRef, Relay>>);

struct Relay {
    /// How many have not reported all.
    missing: usize,
    bundle: Bundle,
}

impl Relays {
    /// Adds what has come, and takes out what goes on: all that is there when nothing is missing, and before that what would be too much
    /// for a message.
    fn add(&self, pe: &Pe, cell: CellRef, bundle: Bundle) -> [Option<Bundle>; 2] {
        let mut relays = self.0.borrow_mut();
        let relay = relays
            .entry(cell)
            .or_insert_with(|| Relay { missing: reporters(pe, cell.pe), bundle: Bundle::default() });
        let has = relay.bundle.buffer_count();
        let is_too_much = has > 0 && has + bundle.buffer_count() > MOST_BUFFERS;
        let early = is_too_much.then(|| std::mem::take(&mut relay.bundle));
        relay.missing -= usize::from(bundle.is_last);
        relay.bundle.add(bundle);
        if relay.missing > 0 {
            return [early, None];
        }
        [early, relays.remove(&cell).map(|relay| Bundle { is_last: true, ..relay.bundle })]
    }
}

impl Pe {
    /// Takes in what has been reported to this PE, which leads its process, for a cell of another one.
    fn relay(&self, cell: CellRef, bundle: Bundle) {
        for bundle in self.relays.add(self, cell, bundle).into_iter().flatten() {
            let shared = self.shared();
            let (root, _) = shared.place_of(cell.pe);
            let next = job::parent(root, self.rank, shared.process_count());
            let leader = PeId::new(shared.pes_of_process(next).start);
            self.post(if next == root { cell.pe } else { leader }, Relayed::msg(cell, bundle));
        }
    }
}

/// A report on its way through leaders to a cell of another process.
pub(crate) struct Relayed {
    cell: CellRef,
    bundle: Rest,
}

impl Relayed {
    fn msg(cell: CellRef, bundle: Bundle) -> Msg {
        let mut encoder = Encoder::default();
        bundle.write(&mut encoder);
        Msg::for_pe(Relayed { cell, bundle: encoder.into() })
    }

    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_own(&self.cell);
        to.put_rest(self.bundle);
        Ok(())
    }
}

impl Arrives for Relayed {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Relayed { cell: from.take()?, bundle: from.take_whole_rest()? })
    }
}

impl Payload for Relayed {
    const NAME: Name = Name::Runtime("a part of the outcome of a broadcast");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Relayed, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let Relayed { cell, bundle } = self;
        let taken = match pe.cells.depositor(cell.key).filter(|_| cell.is_of(pe)) {
            Some(deposit) => bundle.decode(|from| deposit(pe, cell.key, UNKNOWN, from)),
            None => bundle.decode(Bundle::read).map(|bundle| {
                if !cell.is_of(pe) && !pe.is_near(cell.pe) {
                    pe.relay(cell, bundle);
                } else if !cell.is_of(pe) {
                    // The first PE of the cell's process has none of it: it goes to the cell.
                    pe.received_nonsense(&WireError::new(
                        "a part of an outcome came to another PE than its cell's",
                    ));
                } else if let Some(error) = bundle.owed {
                    // Nobody waits any more.
                    pe.unawaited(error);
                }
            }),
        };
        if let Err(error) = taken {
            pe.received_nonsense(&error);
        }
    }
}

struct Tracker<R: 'static> {
    missing: u64,
    report: Report<R>,
    root: CellRef,
    gather: bool,
}

impl<R: Send + 'static> Tracker<R> {
    /// Reports to the root.
    fn report(&mut self, pe: &Pe) {
        let none = Report::new(self.report.codec);
        let (root, report) = (self.root, std::mem::replace(&mut self.report, none));
        if pe.is_near(root.pe) {
            return send_answer(pe, root, 0, Ok(report), Codec::by::<AsBundle>);
        }
        let mut bundle = Bundle::default();
        let encode = || {
            bundle = report.into_bundle();
            Ok::<_, Infallible>(())
        };
        let Ok(_promises) = pe.encode_for(1, encode);
        let leader = PeId::new(pe.near.0);
        if pe.id() == leader { pe.relay(root, bundle) } else { pe.post(leader, Relayed::msg(root, bundle)) }
    }
}

impl<R: Send + 'static> Sink<R> for Tracker<R> {
    fn take(&mut self, pe: &Pe, from: u64, outcome: Result<R, CallError>) -> After {
        if self.gather {
            self.report.outcomes.push((from, outcome));
        } else if let Err(error) = outcome {
            self.report.error.get_or_insert(error);
        }
        self.settle(pe, 1)
    }

    fn refuse(&mut self, pe: &Pe, from: u64, error: CallError) -> After {
        self.take(pe, from, Err(error))
    }

    fn settle(&mut self, pe: &Pe, count: u64) -> After {
        self.missing -= count;
        if self.missing > 0 {
            return After::Open;
        }
        self.report(pe);
        After::Closed
    }
}

type Finish<R, V> = Box<dyn FnOnce(Outcomes<R>, Option<CallError>) -> Result<V, CallError>>;

struct Root<R: 'static, V> {
    /// How many have not reported all.
    missing: usize,
    total: Report<R>,
    finish: Option<Finish<R, V>>,
}

impl<R: Send + 'static, V: Send + 'static> Sink<Report<R>> for Root<R, V> {
    fn take(&mut self, pe: &Pe, _: u64, report: Result<Report<R>, CallError>) -> After {
        match report {
            Ok(report) => {
                self.missing -= usize::from(report.is_last);
                self.total.absorb(pe, report);
            }
            Err(error) => return self.refuse(pe, UNKNOWN, error),
        }
        if self.missing > 0 {
            return After::Open;
        }
        self.total.outcomes.sort_unstable_by_key(|(element, _)| *element);
        let owed = self.total.first_error();
        let outcomes = std::mem::take(&mut self.total.outcomes);
        let finish = self.finish.take().expect("the last PE reports once");
        match finish(outcomes, self.total.error.take()) {
            Ok(value) => After::ready(value, owed),
            Err(error) => After::Refused(error, true),
        }
    }

    fn refuse(&mut self, _: &Pe, _: u64, error: CallError) -> After {
        After::Refused(error, true)
    }

    fn settle(&mut self, _: &Pe, _: u64) -> After {
        unreachable!("a PE reports once, with its outcomes")
    }
}
