//! Messages with device memory for other processes: they leave when their memory has been copied to the host, or can be read by others.
//!
//! A message is encoded when it is sent, and its shares of device memory stand beside it. They are snapshots, so the copies may begin, in
//! the order of the devices, without anybody waiting. Until they have ended the message is *held* in a lane, of which the PE has one for each process
//! that it has sent device memory to, and what it sends there afterwards is held behind it: what one PE sends another arrives in the order in which it
//! was sent. A lane has an account, so its copies wait for each other and for what fills their memory, but not for those of other lanes.
//!
//! What has to be staged and is long goes in pieces, ahead of its message (`pipeline`). The message waits likewise, until the last of them has gone.
//!
//! For a process that can open it, memory is lent and not copied (`lending`), and where MPI reaches devices it is sent from where it lies (`straight`): then
//! the message waits for an operation that copies nothing and ends when the memory has been written. All else is the same.
//!
//! *Who goes on.* The copy that the first message of a lane waits for has a waker that sends the PE a message, [`Copied`]. Then all go that
//! can, in order. Nobody looks for it besides.
//!
//! *Quiescence.* A held message counts as sent. Who has it is not active for that, but the copy is device work until its waker has posted its
//! message, which counts until it is taken. So there is no hang, and no report of one, while something is held.
//!
//! *What goes wrong.* A copy fails if a kernel failed that was to write its memory, or if the device is lost. The message goes all the same, and says which of
//! its memory is spoiled: who uses it there gets the fault, as who used it here would have. So nothing waits for a message that was numbered, counted or
//! promised and does not come. To whom the fault is owed does not change: it is told here, as if nobody had sent the memory.
//!
//! *The end of the run.* What is held then is dropped, like all that is on its way. A fault in a copy that nobody has been told of is one of its kernel, and makes the
//! end a bad one.
//!
//! Invariant: the pieces of a lane are those of its messages, in their order; `held` is the number of messages in all lanes; while it is zero, and no device memory is beside it, a message is not looked at
//! here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use chare_device::{__Leaving as Leaving, __Offer as Offer, Account, Completion, DeviceError, Devices};
use chare_transport::{Buffer, Rank};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::lending::Token;
use super::pipeline::{self, Cut, Gone, Pipeline, Step};
use super::{INSTEAD, PIECE, straight};
use crate::current;
use crate::device_path::DevicePath;
use crate::ids::{ChareId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Beside, Decoder, Encoder, End, Leaves, MOST_BUFFERS, Pledge, Spoiled, WireError};

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
    pipeline: Pipeline,
}

/// An encoded message.
struct Held {
    /// The PE that it is for; all of other processes if none.
    to: Option<PeId>,
    header: Vec<u8>,
    beside: Vec<Item>,
    /// Gone when it is on its way: what their ends cause may be sent by a PE that holds nothing.
    ends: Vec<End>,
}

enum Item {
    Host(Buffer),
    Device(Copy),
    /// Its pieces are in the lane's pipeline until all have gone.
    Cut(Option<Gone>),
    Shared(Sharing),
    /// It came so, and was not read; or it was to be shared.
    Spoiled(Spoiled),
}

/// A share that goes when it has been written: it is lent, if there is an offer, and else sent from where it lies.
struct Sharing {
    share: Leaving,
    offer: Option<Offer>,
    written: Option<Completion<()>>,
}

/// What goes in the place of device memory that is not beside its message.
#[derive(Serialize, Deserialize)]
pub(super) enum Instead {
    Spoiled(Spoiled),
    Lent {
        id: u64,
        offer: Offer,
    },
    /// It has come in pieces, under this number; or not all of it has, for this reason.
    Pieces {
        id: u64,
        spoiled: Option<Spoiled>,
    },
}

/// Who sends a message to whom.
struct Between<'a> {
    courier: &'a Account,
    devices: &'a Devices,
    /// Which way memory goes, and under which number it is cut, if it may be.
    path: &'a dyn Fn(&Leaving) -> DevicePath,
    cut: &'a dyn Fn(Leaving) -> Result<Cut, Leaving>,
}

enum Copy {
    Begun(Completion<Vec<u8>>),
    Ended(Result<Vec<u8>, Spoiled>),
}

impl Held {
    fn begin(
        to: Option<PeId>,
        encoder: &mut Encoder,
        Between { courier, devices, path, cut }: Between<'_>,
    ) -> (Self, Vec<Cut>) {
        let mut cuts = Vec::new();
        let mut staged = |leaving| match cut(leaving) {
            Ok(cut) => {
                cuts.push(cut);
                Item::Cut(None)
            }
            Err(leaving) => Item::copied(courier, &leaving),
        };
        // What is packed, since there is more than a frame takes, is the host's (`packed`).
        let packed_from = match encoder.buffers.len() {
            count if count > MOST_BUFFERS => MOST_BUFFERS - 1,
            count => count,
        };
        let mut by = |place: usize, path: DevicePath, leaving: Leaving| match path {
            DevicePath::Mpi if leaving.place().is_some() && place < packed_from => {
                Item::shared(courier, leaving, None)
            }
            DevicePath::Ipc => match leaving.offer() {
                Ok(offer) => Item::shared(courier, leaving, Some(offer)),
                Err(_) => staged(leaving),
            },
            // The first two are never chosen between processes.
            DevicePath::Same | DevicePath::Peer | DevicePath::Mpi | DevicePath::Staged => staged(leaving),
        };
        let begin = |(place, beside)| match beside {
            Beside::Host(buffer) => Item::Host(buffer),
            Beside::Spoiled(spoiled) => Item::Spoiled(spoiled),
            Beside::Device(leaving) => by(place, path(&leaving), leaving),
            // These came so, and were not read. What is lent is not this process's to lend.
            Beside::Arrived(arrival) => {
                let leaving = arrival.share();
                by(place, path(&leaving), leaving)
            }
            Beside::Lent(Pledge { offer, token }) => {
                by(place, DevicePath::Staged, Leaving::borrowed(devices, &offer, Box::new(token)))
            }
        };
        let beside = std::mem::take(&mut encoder.buffers).into_iter().enumerate().map(begin).collect();
        let (header, ends) = (std::mem::take(&mut encoder.bytes), std::mem::take(&mut encoder.ends));
        (Held { to, header, beside, ends }, cuts)
    }

    /// Whether all its copies have ended, and its pieces, which are the first of the pipeline, have gone.
    fn poll(&mut self, context: &mut Context<'_>, pipeline: &mut Pipeline) -> Poll<()> {
        for item in &mut self.beside {
            match item {
                Item::Device(copy) => {
                    if let Copy::Begun(completion) = copy {
                        let outcome = ready!(completion.poll_unreported(context));
                        *copy = Copy::Ended(outcome.map_err(|why| Spoiled { why, is_told: true }));
                    }
                }
                Item::Cut(None) => *item = Item::Cut(Some(ready!(pipeline.poll_first()))),
                Item::Shared(Sharing { written, .. }) => {
                    let Some(completion) = written else { continue };
                    let outcome = ready!(completion.poll_unreported(context));
                    *written = None;
                    if let Err(why) = outcome {
                        *item = Item::Spoiled(Spoiled { why, is_told: true });
                    }
                }
                Item::Host(_) | Item::Spoiled(_) | Item::Cut(Some(_)) => {}
            }
        }
        Poll::Ready(())
    }

    /// The frame, which says before its header what is spoiled of what stands beside it, and what is lent. In the place of that are no bytes.
    fn into_frame(self, keep: impl Fn(Leaving) -> u64) -> (Vec<u8>, Vec<Beside>) {
        let mut instead: Vec<(usize, Instead)> = Vec::new();
        let mut beside: Vec<Beside> = Vec::with_capacity(self.beside.len());
        for (place, item) in self.beside.into_iter().enumerate() {
            let kind = match item {
                Item::Host(buffer) => {
                    beside.push(Beside::Host(buffer));
                    continue;
                }
                Item::Device(Copy::Ended(Ok(bytes))) => {
                    beside.push(bytes.into());
                    continue;
                }
                Item::Device(Copy::Ended(Err(spoiled))) | Item::Spoiled(spoiled) => Instead::Spoiled(spoiled),
                Item::Cut(Some(Gone { id: Some(id), spoiled })) => Instead::Pieces { id, spoiled },
                Item::Cut(Some(Gone { id: None, spoiled })) => {
                    Instead::Spoiled(spoiled.expect("it would have gone"))
                }
                Item::Shared(Sharing { share, offer: Some(offer), .. }) => {
                    Instead::Lent { id: keep(share), offer }
                }
                Item::Shared(Sharing { share, offer: None, .. }) => {
                    let buffer = straight::to_send(share).expect("its place was known before");
                    beside.push(buffer.into());
                    continue;
                }
                Item::Device(Copy::Begun(_)) | Item::Cut(None) => {
                    unreachable!("it goes when all its copies have ended")
                }
            };
            instead.push((place, kind));
            beside.push(Vec::<u8>::new().into());
        }
        if instead.is_empty() {
            return (self.header, beside);
        }
        let mut encoder = Encoder::default();
        encoder.put_u32(INSTEAD);
        encoder.put_own(&instead);
        encoder.bytes.extend_from_slice(&self.header);
        (encoder.bytes, beside)
    }
}

impl Item {
    fn copied(courier: &Account, leaving: &Leaving) -> Self {
        let not_begun =
            |error: DeviceError| Copy::Ended(Err(Spoiled { why: error.to_string(), is_told: false }));
        Item::Device(courier.download_bytes(leaving).map_or_else(not_begun, Copy::Begun))
    }

    fn shared(courier: &Account, share: Leaving, offer: Option<Offer>) -> Self {
        match courier.fence_of(&share) {
            Ok(written) => Item::Shared(Sharing { share, offer, written: Some(written) }),
            Err(error) => Item::Spoiled(Spoiled { why: error.to_string(), is_told: false }),
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
        pe.advance_staged(self.rank);
    }
}

/// Whether a message tells of the end of a copy. It may come from whoever has looked at the devices.
pub(super) fn is_bell(msg: &Msg) -> bool {
    msg.payload::<Copied>().is_some()
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
            let (held, pipeline) = Default::default();
            Lane { courier, waker: Arc::new(bell).into(), held, pipeline }
        };
        self.lanes.borrow_mut().entry(rank).or_insert_with(open).courier.clone()
    }

    fn push(&self, rank: Rank, (held, cuts): (Held, Vec<Cut>)) {
        if let Some(lane) = self.lanes.borrow_mut().get_mut(&rank) {
            lane.held.push_back(held);
            cuts.into_iter().for_each(|cut| lane.pipeline.push(cut));
            self.held.set(self.held.get() + 1);
        }
    }

    /// The next message to a process whose copies have ended. If there are more, the PE will be told of theirs.
    fn pop(&self, rank: Rank) -> Option<Held> {
        let mut lanes = self.lanes.borrow_mut();
        let Lane { waker, held, pipeline, .. } = lanes.get_mut(&rank)?;
        if held.front_mut()?.poll(&mut Context::from_waker(waker), pipeline).is_pending() {
            return None;
        }
        self.held.set(self.held.get() - 1);
        held.pop_front()
    }
}

impl Pe {
    /// Sends what was encoded to a PE, or to all of other processes, when its device memory is there, and after what is held for that process.
    #[cold]
    pub(super) fn stage(&self, rank: Rank, to: Option<PeId>, encoder: &mut Encoder) {
        let staged = &self.crossing.staged;
        let courier = staged.courier(self, rank);
        // A copy may end other operations, and so wake somebody: no table is borrowed.
        let path = |leaving: &Leaving| match self.shared().job() {
            Some(job) if to.is_some() => job.paths.of(rank, leaving),
            _ => DevicePath::Staged,
        };
        let number = to.filter(|_| self.shared().job().is_some()).map(|to| self.shared().place_of(to).1);
        let cut = |leaving: Leaving| match (number, self.shared().job()) {
            (Some(number), Some(job)) if pipeline::is_for(&leaving) => {
                Ok(Cut::new(leaving, job.next_share(), number))
            }
            _ => Err(leaving),
        };
        let between = Between { courier: &courier, devices: self.shared().devices(), path: &path, cut: &cut };
        staged.push(rank, Held::begin(to, encoder, between));
        self.advance_staged(rank);
    }

    /// Something of the pipeline to a process, if there is one.
    pub(super) fn with_pipeline<R>(
        &self,
        rank: Rank,
        f: impl FnOnce(&mut Pipeline, &Waker) -> R,
    ) -> Option<R> {
        let mut lanes = self.crossing.staged.lanes.borrow_mut();
        lanes.get_mut(&rank).map(|lane| f(&mut lane.pipeline, &lane.waker))
    }

    /// Begins to copy the pieces that there is credit for, and sends those that have been copied.
    fn advance_pieces(&self, rank: Rank) {
        let number = self.shared().own_number(self.id()) as u32;
        while let Some(step) = self.with_pipeline(rank, |pipeline, waker| pipeline.step(number, waker)) {
            match step {
                Step::Begin { share, at, len } => {
                    // As above: no table is borrowed.
                    let copy = self.crossing.staged.courier(self, rank).download_piece(&share, at, len);
                    self.with_pipeline(rank, |pipeline, _| pipeline.has_begun(copy));
                }
                Step::Send(piece, bytes) => {
                    let mut encoder = Encoder::default();
                    encoder.put_u32(PIECE);
                    encoder.put_own(&piece);
                    // If nothing is sent any more, nor is the message.
                    self.send_frame(rank, &encoder.bytes, vec![straight::of_pinned(bytes).into()]);
                }
                Step::Wait => return,
            }
        }
    }

    /// Sends what can go.
    pub(super) fn advance_staged(&self, rank: Rank) {
        self.advance_pieces(rank);
        while let Some(mut held) = self.crossing.staged.pop(rank) {
            let is_for_one = held.to.is_some();
            let ends = std::mem::take(&mut held.ends);
            let lent = || &self.shared().job().expect("only jobs lend").lent;
            let (header, beside) = held.into_frame(|share| lent().keep(rank, share));
            let is_sent = if is_for_one {
                self.send_frame(rank, &header, beside)
            } else {
                self.spread_frame(&header, &beside);
                true
            };
            if !is_sent {
                let count = if is_for_one { 1 } else { self.far_pe_count() };
                self.traffic.posted.set(self.traffic.posted.get() - count as u64);
            }
            drop(ends);
        }
    }
}

/// Takes what is said before the header of a frame: what there is in the place of things beside it.
pub(super) fn put_instead(pe: &Pe, from: Rank, decoder: &mut Decoder<'_>) -> Result<(), WireError> {
    let all: Vec<(usize, Instead)> = decoder.take()?;
    // Each that has been lent is owed back from here on, whatever becomes of the rest.
    let instead = |instead| match instead {
        Instead::Spoiled(spoiled) => Ok(Beside::Spoiled(spoiled)),
        Instead::Lent { id, offer } => {
            let token = Token { shared: Arc::downgrade(pe.shared()), lender: from, id };
            Ok(Beside::Lent(Pledge { offer, token: Arc::new(token) }))
        }
        Instead::Pieces { id, spoiled } => match pe.shared().job() {
            Some(job) => job.coming.take(from, id, spoiled),
            None => Err(WireError::new("it has a share in pieces, which none but jobs send")),
        },
    };
    let all: Vec<_> = all.into_iter().map(|(place, kind)| (place, instead(kind))).collect();
    all.into_iter().try_for_each(|(place, instead)| decoder.put_instead(place, instead?))
}
