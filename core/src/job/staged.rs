//! Messages with device memory for other processes: they leave when their memory has been copied to the host.
//!
//! A message is encoded when it is sent, and its shares of device memory stand beside it. They are snapshots, so the copies may begin, in
//! the order of the devices, without anybody waiting. Until they have ended the message is *held* in a lane, of which the PE has one for each process
//! that it has sent device memory to, and what it sends there afterwards is held behind it: what one PE sends another arrives in the order in which it
//! was sent. A lane has an account, so its copies wait for each other and for what fills their memory, but not for those of other lanes.
//!
//! *Who goes on.* The copy that the first message of a lane waits for has a waker that sends the PE a message, [`Copied`]. Then all go that
//! can, in order. Nobody looks for it besides.
//!
//! *Quiescence.* A held message counts as sent. Who has it is not active for that, but the copy is device work until its waker has posted its
//! message, which counts until it is taken. So there is no hang, and no report of one, while something is held.
//!
//! *What goes wrong.* A copy fails if a kernel failed that was to write its memory, or if the device is lost. Then the message is put together again
//! here, which gives back what it has of promises, and is lost with that error: whoever waits for its outcome gets it, or it is one that
//! nobody awaits. In the place of an answer, or of the value of a promise, the error goes. A chare has left, and cannot come back: it
//! goes on, and its memory arrives spoiled, as it would in its process.
//!
//! *The end of the run.* What is held then is dropped, like all that is on its way. A fault in a copy that nobody has been told of is one of its kernel, and makes the
//! end a bad one.
//!
//! Invariant: `held` is the number of messages in all lanes; while it is zero, and no device memory is beside it, a message is not looked at
//! here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use chare_device::{__Leaving as Leaving, Account, Completion, DeviceError};
use chare_transport::{Buffer, Rank};
use rustc_hash::FxHashMap;

use super::{Job, SPOILED};
use crate::answer::EncodedAnswer;
use crate::caught;
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::priority::Ranked;
use crate::reply::Reply;
use crate::report::Reason;
use crate::scheduler::pe::Pe;
use crate::wire::{self, Beside, Decoder, Encoder, Fulfil, Kind, Leaves, WireError};

/// Of one PE.
#[derive(Default)]
pub(crate) struct Staged {
    held: Cell<usize>,
    lanes: RefCell<FxHashMap<Rank, Lane>>,
}

/// What waits to go to one process. What is for all others waits in the lane of the own one.
struct Lane {
    courier: Account,
    waker: Waker,
    held: VecDeque<Held>,
}

/// An encoded message.
struct Held {
    /// The PE that it is for; all of other processes if none.
    to: Option<PeId>,
    header: Vec<u8>,
    beside: Vec<Item>,
}

enum Item {
    Host(Buffer),
    Device(Leaving, Copy),
    /// It came so, and was not read.
    Spoiled(String),
}

enum Copy {
    Begun(Completion<Vec<u8>>),
    Ended(Result<Vec<u8>, DeviceError>),
}

impl Held {
    fn begin(to: Option<PeId>, encoder: &mut Encoder, courier: &Account) -> Self {
        let begin = |beside| match beside {
            Beside::Host(buffer) => Item::Host(buffer),
            Beside::Spoiled(why) => Item::Spoiled(why),
            Beside::Device(leaving) => {
                let copy = courier
                    .download_bytes(&leaving)
                    .map_or_else(|error| Copy::Ended(Err(error)), Copy::Begun);
                Item::Device(leaving, copy)
            }
        };
        let beside = std::mem::take(&mut encoder.buffers).into_iter().map(begin).collect();
        Held { to, header: std::mem::take(&mut encoder.bytes), beside }
    }

    /// Whether all its copies have ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for item in &mut self.beside {
            if let Item::Device(_, copy) = item
                && let Copy::Begun(completion) = copy
            {
                let outcome = ready!(Pin::new(completion).poll(context));
                *copy = Copy::Ended(outcome);
            }
        }
        Poll::Ready(())
    }

    fn error(&self) -> Option<String> {
        self.beside.iter().find_map(|item| match item {
            Item::Device(_, Copy::Ended(Err(error))) => Some(error.to_string()),
            _ => None,
        })
    }

    /// Whether it goes also if a copy has failed: it is a chare that has left.
    fn arrives_spoiled(&self) -> bool {
        let mut decoder = Decoder::new(&self.header, Vec::new());
        let kind = decoder.take_u32().and_then(|_| wire::kind_of(&mut decoder));
        self.to.is_some() && kind.is_ok_and(|kind| kind == Kind::Arrive)
    }

    /// The frame, which says before its header what is spoiled of what stands beside it. In the place of that are no bytes.
    fn into_frame(self) -> (Vec<u8>, Vec<Beside>) {
        let why = |item: &Item| match item {
            Item::Device(_, Copy::Ended(Err(error))) => Some(error.to_string()),
            Item::Spoiled(why) => Some(why.clone()),
            _ => None,
        };
        let places = self.beside.iter().enumerate();
        let spoiled: Vec<(usize, String)> =
            places.filter_map(|(place, item)| Some((place, why(item)?))).collect();
        let nothing = || Vec::<u8>::new().into();
        let beside = self.beside.into_iter().map(|item| item.into_buffer().unwrap_or_else(nothing)).collect();
        if spoiled.is_empty() {
            return (self.header, beside);
        }
        let mut encoder = Encoder::default();
        encoder.put_u32(SPOILED);
        encoder.put_own(&spoiled);
        encoder.bytes.extend_from_slice(&self.header);
        (encoder.bytes, beside)
    }
}

impl Item {
    /// As it goes, when its copy has succeeded.
    fn into_buffer(self) -> Option<Beside> {
        match self {
            Item::Host(buffer) => Some(Beside::Host(buffer)),
            Item::Device(_, Copy::Ended(Ok(bytes))) => Some(bytes.into()),
            Item::Device(..) | Item::Spoiled(_) => None,
        }
    }

    /// As it was.
    fn into_beside(self) -> Beside {
        match self {
            Item::Host(buffer) => Beside::Host(buffer),
            Item::Device(leaving, _) => Beside::Device(leaving),
            Item::Spoiled(why) => Beside::Spoiled(why),
        }
    }
}

/// Tells the PE that a copy has ended.
struct Bell {
    run: RunId,
    pe: PeId,
    rank: Rank,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        current::post_to_run(self.run, self.pe, Msg::for_pe(Copied { rank: self.rank }));
    }
}

/// A copy of device memory has ended, for which messages to a process have waited.
struct Copied {
    rank: Rank,
}

impl Payload for Copied {
    const NAME: Name = Name::Runtime("the end of a copy of device memory");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        if let Some(job) = pe.shared().job() {
            pe.advance_staged(job, self.rank);
        }
    }
}

impl Staged {
    /// Whether a message to a process, or for all others, may go at once.
    #[inline]
    pub(super) fn lets_pass(&self, rank: Rank, encoder: &Encoder) -> bool {
        self.held.get() == 0 && encoder.buffers.is_empty() || self.looks_and_lets_pass(rank, encoder)
    }

    fn looks_and_lets_pass(&self, rank: Rank, encoder: &Encoder) -> bool {
        let is_held_up =
            self.held.get() > 0 && self.lanes.borrow().get(&rank).is_some_and(|lane| !lane.held.is_empty());
        !is_held_up && encoder.buffers.iter().all(Beside::is_plain)
    }

    fn courier(&self, pe: &Pe, rank: Rank) -> Account {
        let open = || {
            let label = format!("messages of PE {} to {rank}", pe.id());
            let bell = Bell { run: pe.run(), pe: pe.id(), rank };
            let courier = pe.shared().devices().courier(label);
            Lane { courier, waker: Arc::new(bell).into(), held: VecDeque::new() }
        };
        self.lanes.borrow_mut().entry(rank).or_insert_with(open).courier.clone()
    }

    fn push(&self, rank: Rank, held: Held) {
        if let Some(lane) = self.lanes.borrow_mut().get_mut(&rank) {
            lane.held.push_back(held);
            self.held.set(self.held.get() + 1);
        }
    }

    /// The next message to a process whose copies have ended. If there are more, the PE will be told of theirs.
    fn pop(&self, rank: Rank) -> Option<Held> {
        let mut lanes = self.lanes.borrow_mut();
        let Lane { waker, held, .. } = lanes.get_mut(&rank)?;
        if held.front_mut()?.poll(&mut Context::from_waker(waker)).is_pending() {
            return None;
        }
        self.held.set(self.held.get() - 1);
        held.pop_front()
    }
}

impl Pe {
    /// Sends what was encoded to a PE, or to all of other processes, when its device memory is there, and after what is held for that process.
    #[cold]
    pub(super) fn stage(&self, job: &Job, rank: Rank, to: Option<PeId>, encoder: &mut Encoder) {
        let staged = &self.crossing.staged;
        let courier = staged.courier(self, rank);
        // A copy may end other operations, and so wake somebody: no table is borrowed.
        let held = Held::begin(to, encoder, &courier);
        staged.push(rank, held);
        self.advance_staged(job, rank);
    }

    /// Sends what can go.
    fn advance_staged(&self, job: &Job, rank: Rank) {
        while let Some(held) = self.crossing.staged.pop(rank) {
            let is_for_one = held.to.is_some();
            let is_sent = match held.error() {
                Some(error) if !held.arrives_spoiled() => self.give_back(job, rank, held, &error),
                _ => {
                    let (header, beside) = held.into_frame();
                    if is_for_one {
                        self.send_frame(job, rank, &header, beside)
                    } else {
                        self.spread_frame(job, &header, &beside);
                        true
                    }
                }
            };
            if !is_sent {
                let count = if is_for_one { 1 } else { self.pe_count() - self.shared().own_pe_count() };
                self.traffic.posted.set(self.traffic.posted.get() - count as u64);
            }
        }
    }

    /// Loses a message whose device memory could not be copied; true if another one goes in its place.
    #[cold]
    fn give_back(&self, job: &Job, rank: Rank, held: Held, error: &str) -> bool {
        let Held { to, header, beside } = held;
        let beside = beside.into_iter().map(Item::into_beside).collect();
        // What is decoded is the user's code.
        let replacement = match caught::catch(self, || decode(&header, to.is_none(), beside)) {
            Ok(Ok(msg)) => self.lose_staged(msg, error),
            Ok(Err(wrong)) => {
                let text = format!("what was encoded cannot be read again: {wrong}");
                self.shared().stop(Reason::Internal(text));
                None
            }
            Err(panic) => {
                self.shared().stop(Reason::Aborted(panic.to_string()));
                None
            }
        };
        // Before what is held behind it, as it would have come.
        let mut encoder = Encoder::default();
        match (to, replacement) {
            (Some(to), Some(msg)) => {
                encoder.put_u32((to.index() % self.shared().own_pe_count()) as u32);
                msg.leave(&mut encoder).is_ok() && self.send_frame(job, rank, &encoder.bytes, encoder.buffers)
            }
            _ => false,
        }
    }

    /// Tells whoever waits for what a message would have brought, or says what is to go there instead.
    fn lose_staged(&self, mut msg: Msg, error: &str) -> Option<Msg> {
        if msg.is_ranked() {
            msg = msg.into_payload::<Ranked>(self).expect("its table says so").msg;
        }
        let text = format!("{} was not sent to another process: {error}", msg.name());
        let refused = CallError::Refused(text.into());
        if msg.payload::<EncodedAnswer>().is_some() {
            return Some(msg.into_payload::<EncodedAnswer>(self)?.refused(refused));
        }
        if msg.payload::<Fulfil>().is_some() {
            return Some(msg.into_payload::<Fulfil>(self)?.failed(refused));
        }
        msg.lose(self, refused);
        None
    }
}

/// Notes what is said before the header of a frame: which things beside it are spoiled.
pub(super) fn spoil(decoder: &mut Decoder<'_>) -> Result<(), WireError> {
    let spoiled: Vec<(usize, String)> = decoder.take()?;
    spoiled.into_iter().try_for_each(|(place, why)| decoder.spoil(place, why))
}

/// A message that was encoded here, behind what the frame begins with.
fn decode(header: &[u8], is_spread: bool, beside: Vec<Beside>) -> Result<Msg, WireError> {
    let mut decoder = Decoder::new(header, beside);
    decoder.take_u32()?;
    if is_spread {
        decoder.take_u32()?;
    }
    let msg = wire::decode_message(&mut decoder)?;
    decoder.end()?;
    Ok(msg)
}
