//! A job inside of one operating system process: its processes are joined by queues.
//!
//! For tests, and for running several processes of a job in one program. Frames are encoded and decoded as for any other
//! network; batches and buffers change hands by pointer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::thread::{self, ThreadId};

use crate::batch::Batch;
use crate::buffer::{Buffer, Landing};
use crate::error::{ConnectError, Error};
use crate::facts::ThreadLevel;
use crate::frame::Rank;
use crate::limits::Limits;
use crate::network::{Event, FreeBatches, Nap, Network};
use crate::outbox::Shared;
use crate::start::{self, Identity, Process};

/// Makes the processes of a job, one for each identity. They may be handed to threads, or polled in turns by one.
///
/// # Errors
/// If the identities differ, or if the limits cannot work.
///
/// # Examples
/// ```
/// use chare_transport::{Frame, Identity, Limits, Progress, Rank, local};
///
/// let identity = Identity::new(7, "example");
/// let mut processes = local::connect(&[identity.clone(), identity], &Limits::default())?;
/// let sent = processes[0].outbox.send(Rank(1), Frame::new(b"hello").with_buffer(vec![1.5_f64; 100_000]));
/// assert!(sent.is_ok());
///
/// let mut got = Vec::new();
/// processes.iter_mut().for_each(|process| process.driver.close());
/// while !got.contains(&Progress::Closed) {
///     for process in &mut processes {
///         got.push(process.driver.poll(&mut |from, frame| {
///             assert_eq!((from, frame.header), (Rank(0), &b"hello"[..]));
///             let numbers = frame.buffers.into_iter().next().expect("one").into_host().expect("of the host");
///             assert_eq!(numbers.into_vec::<f64>().expect("numbers")[99_999], 1.5);
///         })?);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn connect(identities: &[Identity], limits: &Limits) -> Result<Vec<Process>, ConnectError> {
    connect_at(ThreadLevel::Multiple, identities, limits)
}

/// As [`connect`], where no more is granted to threads than this: below [`ThreadLevel::Serialized`] each driver stays on the thread that polls it first.
///
/// # Errors
/// Likewise; and of [`Driver::poll`](crate::Driver::poll), when another thread polls.
pub fn connect_at(
    level: ThreadLevel,
    identities: &[Identity],
    limits: &Limits,
) -> Result<Vec<Process>, ConnectError> {
    start::check_limits(limits)?;
    let hellos: Vec<_> =
        identities.iter().map(|identity| start::hello(identity, limits, "localhost")).collect();
    let hosts = start::meet(&hellos)?;
    let hub: Arc<[Mailbox]> = identities.iter().map(|_| Mailbox::default()).collect();
    let process = |index| {
        let rank = Rank(index as u32);
        start::process(rank, &hosts, level, limits, |shared| {
            hub[rank.index()].owner.get_or_init(|| Arc::downgrade(shared));
            Box::new(Local {
                hub: hub.clone(),
                rank,
                stays_on: (!level.lets_drivers_move()).then(OnceLock::new),
                peers: identities.iter().map(|_| Peer::default()).collect(),
                taken: VecDeque::new(),
            })
        })
    };
    Ok((0..identities.len()).map(process).collect())
}

/// What has been sent to a process.
#[derive(Default)]
struct Mailbox {
    inside: Mutex<Inside>,
    /// Who naps on it.
    owner: OnceLock<Weak<Shared>>,
}

#[derive(Default)]
struct Inside {
    messages: VecDeque<Message>,
    /// Memory of batches that receivers return to this process, so that a one-way stream does not drain it.
    returned: Vec<Batch>,
}

enum Message {
    Batch { from: Rank, batch: Batch },
    Bulk { from: Rank, buffer: Buffer },
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("nothing panics under the lock of a mailbox")
    }

    fn push(&self, message: Message) {
        self.lock().messages.push_back(message);
        // After the message is there: its owner looks once more after it has announced a nap.
        if let Some(owner) = self.owner.get().and_then(Weak::upgrade) {
            owner.wake();
        }
    }
}

struct Local {
    hub: Arc<[Mailbox]>,
    rank: Rank,
    /// The thread that has polled first, if no other one may.
    stays_on: Option<OnceLock<ThreadId>>,
    peers: Vec<Peer>,
    /// Messages being worked on; kept for its memory.
    taken: VecDeque<Message>,
}

/// Buffers from one process: those that have come, and the memory that waits for them. One of the two is empty.
#[derive(Default)]
struct Peer {
    landings: VecDeque<(u64, Landing)>,
    came: VecDeque<Buffer>,
}

impl Local {
    fn mailbox(&self) -> &Mailbox {
        &self.hub[self.rank.index()]
    }

    fn check_thread(&self) -> Result<(), Error> {
        let is_another = |first: &OnceLock<ThreadId>| {
            let own = thread::current().id();
            *first.get_or_init(|| own) != own
        };
        match &self.stays_on {
            Some(first) if is_another(first) => {
                Err(Error::WrongThread { granted: "less than MPI_THREAD_SERIALIZED" })
            }
            _ => Ok(()),
        }
    }
}

impl Peer {
    /// The buffers that have come to their memory.
    fn landed(&mut self, from: Rank, events: &mut Vec<Event>) {
        while !self.landings.is_empty()
            && let Some(buffer) = self.came.pop_front()
        {
            let (id, landing) = self.landings.pop_front().expect("it is not empty");
            let buffer = match (&buffer, landing.align()) {
                (Buffer::Host(memory), Some(align))
                    if memory.align() != align && memory.len() == landing.len() =>
                {
                    Buffer::Host(landing.fill(memory.as_bytes()))
                }
                // It changes hands as it is, whatever was made for it.
                _ => buffer,
            };
            events.push(Event::Bulk { from, id, buffer });
        }
    }
}

impl Network for Local {
    fn send_batch(&mut self, to: Rank, batch: Batch, _free: &mut FreeBatches) -> Result<(), Error> {
        self.check_thread()?;
        self.hub[to.index()].push(Message::Batch { from: self.rank, batch });
        Ok(())
    }

    fn send_bulk(&mut self, to: Rank, buffer: Buffer) -> Result<(), Error> {
        self.check_thread()?;
        self.hub[to.index()].push(Message::Bulk { from: self.rank, buffer });
        Ok(())
    }

    fn receive_bulk(&mut self, from: Rank, id: u64, landing: Landing) -> Result<(), Error> {
        self.peers[from.index()].landings.push_back((id, landing));
        Ok(())
    }

    fn poll(&mut self, free: &mut FreeBatches, events: &mut Vec<Event>) -> Result<(), Error> {
        self.check_thread()?;
        let mut taken = std::mem::take(&mut self.taken);
        {
            let mut inside = self.mailbox().lock();
            std::mem::swap(&mut inside.messages, &mut taken);
            events.extend(inside.returned.drain(..).map(Event::BatchSent));
        }
        for message in taken.drain(..) {
            match message {
                Message::Batch { from, batch } => {
                    if from != self.rank {
                        self.hub[from.index()].lock().returned.push(free.take());
                    }
                    events.push(Event::Batch { from, batch });
                }
                Message::Bulk { from, buffer } => self.peers[from.index()].came.push_back(buffer),
            }
        }
        self.taken = taken;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            peer.landed(Rank(index as u32), events);
        }
        Ok(())
    }

    fn gather(&mut self, _own: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Error> {
        Ok(None)
    }

    fn reaches_cuda(&self) -> Result<(), &'static str> {
        Err("there is no network")
    }

    fn is_idle(&self) -> bool {
        true
    }

    fn before_nap(&mut self) -> Nap {
        let has_come = |peer: &Peer| !peer.came.is_empty() && !peer.landings.is_empty();
        let stays = !self.mailbox().lock().messages.is_empty() || self.peers.iter().any(has_come);
        if stays { Nap::Stay } else { Nap::UntilWoken }
    }

    fn closed(&mut self) {}

    fn ends_processes(&self) -> bool {
        false
    }

    fn abort(&mut self, _exit_code: i32) {}
}
