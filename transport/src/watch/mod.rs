//! Watching: that each process of a job lives, and telling all when one does not.
//!
//! The processes are a ring of TCP connections beside the network: each sends a sign of life to both neighbours, from a thread that does nothing
//! else, and misses them when they are silent, or when their connection has ended. Who notices a loss tells it around. So it depends
//! neither on whether anybody polls nor on whether the network can still be used. `README.md` of this crate has the argument.
//!
//! Invariant: a process that has closed has said so to its neighbours before its connections end. So it does not end before it has met them,
//! however short the job, unless that takes longer than it waits; and when its watch ends it says so to the one that waits to be let in. One that
//! it makes when it has ended its watch, while the system process runs, says so first.

mod door;
mod ring;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::facts::Facts;
use crate::frame::Rank;
use crate::words::{abort_after, say_within};
use door::Door;
use ring::{BadEnd, Loss, MESSAGE_BYTES, Message, News, Ring, Sign};

/// How long a process that has lost another one, or been told that one has ended badly, may take for its own end before [`Alarm::Stuck`].
const END_GRACE: Duration = Duration::from_secs(5);
/// How long neighbours have to find each other, at least.
const LEAST_MEETING: Duration = Duration::from_secs(10);
/// How long a process that has closed waits for its neighbours, which lived then.
const CLOSING_GRACE: Duration = Duration::from_secs(2);
/// How long the words may take of a process that is aborted.
const WORDS_WITHIN: Duration = Duration::from_secs(1);
/// How often a process that waits for its neighbour looks.
const LOOK: Duration = Duration::from_millis(2);

/// How processes watch each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    limit: Duration,
    /// How long neighbours have to find each other.
    meeting: Duration,
}

impl Heartbeat {
    /// A process that has given no sign of life for this long is lost; one that has given none at all, after 10 s at least. Signs are sent five times as often, but once a second at least.
    pub fn new(limit: Duration) -> Self {
        Heartbeat { limit, meeting: limit.max(LEAST_MEETING) }
    }

    fn period(self) -> Duration {
        (self.limit / 5).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// What the thread that watches tells, by another thread, since who is told may write for somebody who does not read.
#[derive(Clone, Debug)]
pub enum Alarm {
    /// A process is lost, or the others took this one for lost. Polling fails from now on, with this error.
    Lost(Error),
    /// A process was lost 5 s ago, and the driver of this one is still there: its threads are busy with something long, or wait for
    /// the one that is lost. Or one has told 5 s ago that it has ended badly ([`Herald`]), and this one has not closed.
    Stuck(Error),
    /// A neighbour cannot be watched, unless it comes late, and so its loss not be noticed. The job goes on.
    Unwatched {
        /// Which.
        rank: Rank,
        /// Why not.
        why: String,
    },
}

impl fmt::Display for Alarm {
    /// What a user is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alarm::Lost(error) => write!(f, "error: {error}"),
            Alarm::Stuck(error) => {
                write!(f, "error: {error}; this process is aborted, since one of its threads is still busy")
            }
            Alarm::Unwatched { rank, why } => {
                write!(
                    f,
                    "warning: if {rank} is lost, that may go unnoticed, since it cannot be watched: {why}"
                )
            }
        }
    }
}

type Hook = Box<dyn FnMut(Alarm) + Send>;

/// What the thread that watches shares with the driver.
#[derive(Default)]
pub(crate) struct Watched {
    lost: OnceLock<Error>,
    hook: Mutex<Option<Hook>>,
}

impl Watched {
    /// The loss of a process, if one is known.
    pub(crate) fn lost(&self) -> Option<&Error> {
        self.lost.get()
    }

    /// Has `hook` called; at once, if a process is lost already.
    pub(crate) fn set_hook(&self, mut hook: Hook) {
        let mut place = lock(&self.hook);
        if let Some(error) = self.lost() {
            hook(Alarm::Lost(error.clone()));
        }
        *place = Some(hook);
    }

    /// Tells by a thread of its own, unless there can be none; they wait for each other.
    fn tell(self: &Arc<Self>, alarm: Alarm) {
        let (watched, same) = (self.clone(), alarm.clone());
        let thread = thread::Builder::new().name("alarm".into());
        if thread.spawn(move || watched.tell_here(same)).is_err() {
            self.tell_here(alarm);
        }
    }

    fn tell_here(&self, alarm: Alarm) {
        match lock(&self.hook).as_mut() {
            Some(hook) => hook(alarm),
            None => tell_user(&alarm),
        }
    }
}

/// Does what is to be done as long as nobody has said what. A process that has just met the others may wait for them inside of MPI, to agree on
/// something, and for ever for one that is lost.
fn tell_user(alarm: &Alarm) {
    let text = alarm.to_string();
    let say = move || {
        // Where nobody reads it, the end still tells.
        let _ = writeln!(io::stderr(), "{text}");
    };
    match alarm {
        Alarm::Stuck(_) => abort_after(WORDS_WITHIN, say),
        Alarm::Lost(_) | Alarm::Unwatched { .. } => {
            say_within(WORDS_WITHIN, say);
        }
    }
}

/// Where a process waits for the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Address {
    /// 0 if it does not watch.
    port: u16,
    /// What the one before it says first, so that no stranger is taken for it.
    secret: u64,
}

impl Address {
    pub(crate) const BYTES: usize = 10;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..2].copy_from_slice(&self.port.to_le_bytes());
        bytes[2..].copy_from_slice(&self.secret.to_le_bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8; Self::BYTES]) -> Address {
        let (port, secret) = bytes.split_at(2);
        Address {
            port: u16::from_le_bytes(port.try_into().expect("two bytes")),
            secret: u64::from_le_bytes(secret.try_into().expect("eight bytes")),
        }
    }
}

/// What a user is told who has asked for watching that does not come about: all processes have to watch. None if all do, or none does.
pub(crate) fn complaint(addresses: &[Address]) -> Option<String> {
    let mut others = addresses.iter().enumerate().filter(|(_, address)| address.port == 0);
    let (rank, _) = others.next()?;
    let more = others.count();
    if more + 1 == addresses.len() {
        return None;
    }
    let more = if more == 0 { String::new() } else { format!(", nor do {more} more") };
    let who = Rank(rank as u32);
    Some(format!(
        "warning: the processes do not watch each other, since {who} does not{more}: it was told not to, or could not listen"
    ))
}

/// A process that is ready to watch, when it knows the addresses of the others.
pub(crate) struct Post {
    heartbeat: Heartbeat,
    listener: TcpListener,
    address: Address,
}

impl Post {
    /// Waits on this host for the process before this one. None if this process does not watch, or cannot: then no process does.
    pub(crate) fn open(heartbeat: Option<Heartbeat>, is_one_host: bool) -> Option<Post> {
        let ip = if is_one_host { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let listener = TcpListener::bind((ip, 0)).ok()?;
        listener.set_nonblocking(true).ok()?;
        let port = listener.local_addr().ok()?.port();
        // Its keys are random.
        let secret = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), port);
        Some(Post { heartbeat: heartbeat?, listener, address: Address { port, secret } })
    }

    pub(crate) fn address(post: Option<&Post>) -> Address {
        post.map_or_else(Address::default, |post| post.address)
    }

    /// Begins to watch, if all processes do and there are several.
    pub(crate) fn watch(self, facts: &Facts, addresses: &[Address], watched: Arc<Watched>) -> Option<Watch> {
        let size = facts.size();
        if size == 1 || addresses.iter().any(|address| address.port == 0) {
            return None;
        }
        let ring = Ring::new(facts.rank(), size, self.heartbeat.limit, self.heartbeat.meeting);
        let next = ring.neighbour(1);
        let is_here = facts.host_of(next) == facts.host_of(facts.rank());
        let host = if is_here { "127.0.0.1".into() } else { facts.host_of(next)?.name.clone() };
        let lines = Arc::new(Lines::default());
        let watcher = Watcher {
            size,
            ring,
            heartbeat: self.heartbeat,
            door: Door::new(self.listener, self.address.secret),
            next: (host, addresses[next.index()]),
            lines: lines.clone(),
            watched,
            came: [Vec::new(), Vec::new()],
            end_by: None,
            may_go_on: Some(END_GRACE),
        };
        let thread = thread::Builder::new().name("heartbeat".into()).spawn(|| watcher.run()).ok()?;
        Some(Watch { lines, thread: Some(thread), closing: None })
    }
}

/// The connections of a process.
#[derive(Debug, Default)]
struct Lines {
    /// To the process before this one, and to the one after it.
    sides: [Mutex<Option<TcpStream>>; 2],
    /// Both are there, or have been given up.
    has_met: AtomicBool,
    /// This process has closed, and says so on each side.
    has_closed: AtomicBool,
    /// The loss that this process tells, on each side that it is for.
    news: OnceLock<News>,
    /// The process that the network has missed first.
    unreached: OnceLock<Rank>,
    /// The first bad end that this process has heard of, or come to.
    bad_end: OnceLock<BadEnd>,
    /// This process ends its part, as all should.
    is_closing: AtomicBool,
    /// No more is to be watched.
    is_over: AtomicBool,
}

impl Lines {
    fn send(&self, side: usize, message: Message) {
        if let Some(stream) = &mut *lock(&self.sides[side]) {
            // A connection that takes nothing is one that brings nothing, which is noticed there.
            let _ = stream.write_all(&message.to_bytes());
        }
    }

    /// Tells of a loss, on sides that are connected later too.
    fn spread(&self, news: News) {
        let News { loss, tell } = *self.news.get_or_init(|| news);
        let sides = [0, 1].into_iter().filter(|side| tell[*side]);
        sides.for_each(|side| self.send(side, Message::Lost(loss)));
    }

    /// Tells of a bad end, on sides that are connected later too; who has heard of one tells of no other.
    fn spread_end(&self, end: BadEnd) {
        if self.bad_end.set(end).is_ok() {
            [0, 1].into_iter().for_each(|side| self.send(side, Message::Ended(end)));
        }
    }

    /// Keeps a connection for all that write; returns it for the thread that reads.
    fn keep(&self, side: usize, mut stream: TcpStream, heartbeat: Heartbeat) -> io::Result<TcpStream> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(heartbeat.period()))?;
        let writing = stream.try_clone()?;
        {
            // Who says so before it is there does not find it, and who drops it waits until what has to be said is said.
            let mut place = lock(&self.sides[side]);
            if let Some(News { loss, .. }) = self.news.get().filter(|news| news.tell[side]) {
                let _ = stream.write_all(&Message::Lost(*loss).to_bytes());
            }
            if let Some(end) = self.bad_end.get() {
                let _ = stream.write_all(&Message::Ended(*end).to_bytes());
            }
            if self.has_closed.load(Ordering::SeqCst) {
                let _ = stream.write_all(&Message::Bye.to_bytes());
            }
            // Nobody would drop it.
            if self.is_over.load(Ordering::SeqCst) {
                return Err(io::Error::new(ErrorKind::NotConnected, "nothing is watched any more"));
            }
            *place = Some(writing);
        }
        Ok(stream)
    }
}

/// A process that watches, until it is dropped.
pub(crate) struct Watch {
    lines: Arc<Lines>,
    thread: Option<JoinHandle<()>>,
    /// When this process would first have closed.
    closing: Option<Instant>,
}

impl Watch {
    /// Whether this process, with which all others have closed, may leave: its neighbours are connected, or have been given up.
    pub(crate) fn may_close(&mut self) -> bool {
        self.has_met() || self.closing.get_or_insert_with(Instant::now).elapsed() > CLOSING_GRACE
    }

    /// Whether the neighbours are connected, or have been given up: so it is after the time of meeting, at the latest.
    pub(crate) fn has_met(&self) -> bool {
        let is_gone = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        is_gone || self.lines.has_met.load(Ordering::SeqCst)
    }

    /// This process has begun to close.
    pub(crate) fn begin_close(&self) {
        self.lines.is_closing.store(true, Ordering::SeqCst);
    }

    /// Tells all of a process that the network has lost: the others may be busy and not use it, or know nothing of it.
    /// Some have been when this returns, since this process ends next; false if none is connected.
    pub(crate) fn tell_unreached(&self, own: Rank, rank: Rank) -> bool {
        // Another one later is no news any more.
        if self.lines.unreached.set(rank).is_ok() {
            let loss = Loss { rank, by: own, sign: Sign::Network };
            self.lines.spread(News { loss, tell: [true; 2] });
        }
        self.lines.sides.iter().any(|side| lock(side).is_some())
    }

    /// What tells the others that this process has ended badly.
    pub(crate) fn herald(&self, own: Rank) -> Herald {
        Herald { own, lines: Arc::downgrade(&self.lines) }
    }

    /// Says that this process has closed, on sides that are connected later too.
    pub(crate) fn say_bye(&self) {
        self.lines.has_closed.store(true, Ordering::SeqCst);
        [0, 1].into_iter().for_each(|side| self.lines.send(side, Message::Bye));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.lines.is_over.store(true, Ordering::SeqCst);
        for side in &self.lines.sides {
            if let Some(stream) = lock(side).take() {
                // Ends the wait of the thread, too.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It waits for a period at most, whatever for. A thread that still connects is left to end by itself.
            // A hook may drop this on the very thread, if there is no other for it.
            if thread.thread().id() != thread::current().id() {
                // A panic of the hook has been told.
                let _ = thread.join();
            }
        }
    }
}

/// Tells the other processes that this one has ended badly, where processes watch each other, without anybody's polling: they hear it while their
/// threads are busy. One that has not closed 5 s later is told [`Alarm::Stuck`].
#[derive(Clone, Debug)]
pub struct Herald {
    own: Rank,
    lines: Weak<Lines>,
}

impl Herald {
    pub(crate) fn of_none(own: Rank) -> Herald {
        Herald { own, lines: Weak::new() }
    }

    /// Tells with which exit code.
    pub fn tell_end(&self, code: i32) {
        if let Some(lines) = self.lines.upgrade() {
            lines.spread_end(BadEnd { rank: self.own, code });
        }
    }

    /// Says that this process has begun to end, and may take its time.
    pub fn begin_end(&self) {
        if let Some(lines) = self.lines.upgrade() {
            lines.is_closing.store(true, Ordering::SeqCst);
        }
    }
}

/// What the thread works with.
struct Watcher {
    size: usize,
    ring: Ring,
    heartbeat: Heartbeat,
    /// Where the process before this one connects.
    door: Door,
    /// The host of the process after this one, and its address there.
    next: (String, Address),
    lines: Arc<Lines>,
    watched: Arc<Watched>,
    /// Of each side, what has come of a message.
    came: [Vec<u8>; 2],
    /// When this process should have ended, since another one is lost.
    end_by: Option<Instant>,
    /// How long it may yet go on when one has ended badly; none if it has been told that it has done so for too long.
    may_go_on: Option<Duration>,
}

/// A neighbour, as the thread finds it.
enum Side {
    /// It has not been met yet.
    Awaited,
    /// It has been awaited for long enough, and that it has not come has been told. It still may, and would miss one that did not answer.
    Late,
    There(TcpStream),
    /// It cannot be reached, or has ended.
    Gone,
}

impl Side {
    fn may_come(&self) -> bool {
        matches!(self, Side::Awaited | Side::Late)
    }
}

impl Watcher {
    /// Meets the neighbours, and watches those that are there. It does so from the first on: one may be late while the other counts how long
    /// this process is silent.
    fn run(mut self) {
        let period = self.heartbeat.period();
        let (next, meeting) = (self.next.clone(), self.heartbeat.meeting);
        let reached = reach(self.lines.clone(), self.heartbeat, move || connect(&next, meeting));
        let began = Instant::now();
        let mut sides = [Side::Awaited, Side::Awaited];
        let (mut looked, mut sent) = (began, None::<Instant>);
        loop {
            let is_alone = sides.iter().all(|side| matches!(side, Side::Gone));
            if self.is_over() || (is_alone && self.end_by.is_none()) {
                return self.answer_at_end(&sides[0]);
            }
            if sides.iter().any(Side::may_come) {
                self.meet(&mut sides, &reached, began.elapsed());
            }
            if sent.is_none_or(|sent| sent.elapsed() >= period) {
                [0, 1].into_iter().for_each(|side| self.lines.send(side, Message::Beat));
                sent = Some(Instant::now());
            }
            for side in [0, 1] {
                let Side::There(stream) = &mut sides[side] else { continue };
                let (messages, has_ended) = read(stream, &mut self.came[side], self.size);
                for message in messages {
                    if let Message::Ended(end) = message {
                        self.lines.spread_end(end);
                    }
                    let news = self.ring.heard(side, message);
                    self.spread(news);
                }
                if has_ended && !self.is_over() {
                    sides[side] = Side::Gone;
                    let news = self.ring.ended(side);
                    self.spread(news);
                }
            }
            // Time in which this process was stopped, or had no core, counts for nobody: the others may have sent all the while, or have
            // had none either.
            let passed = looked.elapsed().min(period);
            looked = Instant::now();
            let news = self.ring.passed(passed);
            self.spread(news);
            let unreached = self.lines.unreached.get().copied();
            let news = unreached.and_then(|rank| self.ring.unreached(rank));
            self.spread(news);
            self.await_end(is_alone);
            self.await_closing(passed);
        }
    }

    fn is_over(&self) -> bool {
        self.lines.is_over.load(Ordering::SeqCst)
    }

    /// Looks whether neighbours have come that were awaited for so long. One that cannot be reached is given up; one that should have
    /// come may be late.
    fn meet(&mut self, sides: &mut [Side; 2], reached: &Receiver<io::Result<TcpStream>>, awaited: Duration) {
        for side in [0, 1] {
            if !sides[side].may_come() {
                continue;
            }
            self.ring.expect_nothing(side);
            let found = if side == 1 {
                match reached.try_recv() {
                    Ok(found) => Some(found),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => {
                        Some(Err(io::Error::other("there is no thread for connecting")))
                    }
                }
            } else {
                let is_told = matches!(sides[side], Side::Late);
                match self.door.look(!is_told && awaited >= self.heartbeat.meeting) {
                    Some(Err(error)) => {
                        self.tell_unwatched(side, &error);
                        sides[side] = Side::Late;
                        None
                    }
                    came => {
                        came.map(|came| came.and_then(|stream| self.lines.keep(side, stream, self.heartbeat)))
                    }
                }
            };
            sides[side] = match found {
                None => continue,
                Some(Ok(stream)) => Side::There(stream),
                Some(Err(_)) if self.is_over() => return,
                Some(Err(error)) => {
                    self.ring.leave(side);
                    self.tell_unwatched(side, &error);
                    Side::Gone
                }
            };
        }
        let has_met = !sides.iter().any(|side| matches!(side, Side::Awaited));
        let wait = if has_met { self.heartbeat.period() / 2 } else { LOOK };
        let mut is_there = false;
        for side in &*sides {
            if let Side::There(stream) = side {
                is_there = true;
                // If it cannot be set, the thread looks more often than it has to.
                let _ = stream.set_read_timeout(Some(wait));
            }
        }
        self.lines.has_met.store(has_met, Ordering::SeqCst);
        if !is_there && sides.iter().any(Side::may_come) {
            thread::park_timeout(wait);
        }
    }

    fn tell_unwatched(&self, side: usize, why: &io::Error) {
        let rank = self.ring.neighbour(side);
        self.watched.tell(Alarm::Unwatched { rank, why: why.to_string() });
    }

    /// Says on the last connection that may still come what is to be said, if it waits to be let in.
    fn answer_at_end(mut self, before: &Side) {
        if before.may_come()
            && let Some(Ok(stream)) = self.door.look(false)
        {
            let _ = self.lines.keep(0, stream, self.heartbeat);
        }
    }

    /// Tells of a loss, if there is one. After that, this process should end.
    fn spread(&mut self, news: Option<News>) {
        let Some(news) = news else { return };
        self.lines.spread(news);
        let error = self.watched.lost.get_or_init(|| news.loss.error(self.ring.own));
        self.watched.tell(Alarm::Lost(error.clone()));
        self.end_by = Some(Instant::now() + END_GRACE);
    }

    /// Tells when this process has not ended in time; waits for that if there is nothing else to do.
    fn await_end(&mut self, is_idle: bool) {
        let (Some(error), Some(end_by)) = (self.watched.lost(), self.end_by) else { return };
        let left = end_by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.watched.tell(Alarm::Stuck(error.clone()));
            self.end_by = None;
        } else if is_idle {
            thread::park_timeout(left);
        }
    }

    /// Tells when this process goes on long after one has ended badly. Of a loss `await_end` tells.
    fn await_closing(&mut self, passed: Duration) {
        let (Some(end), Some(left)) = (self.lines.bad_end.get(), self.may_go_on) else { return };
        self.may_go_on = left.checked_sub(passed);
        let is_ending = self.lines.is_closing.load(Ordering::SeqCst) || self.watched.lost().is_some();
        if self.may_go_on.is_none() && !is_ending {
            let BadEnd { rank, code } = *end;
            self.watched.tell(Alarm::Stuck(Error::Ended { rank, code }));
        }
    }
}

/// Connects to the process after this one, on a thread of its own, since that may take as long as the time of meeting. It may come about
/// when all others of this process have gone: so it is that thread that keeps the connection, and says on it what has to be said.
fn reach(
    lines: Arc<Lines>,
    heartbeat: Heartbeat,
    connect: impl FnOnce() -> io::Result<TcpStream> + Send + 'static,
) -> Receiver<io::Result<TcpStream>> {
    let (tell, reached) = mpsc::channel();
    // If there is no such thread, nothing comes.
    let _ = thread::Builder::new().name("heartbeat".into()).spawn(move || {
        let _ = tell.send(connect().and_then(|stream| lines.keep(1, stream, heartbeat)));
    });
    reached
}

/// Connects to a process, and says what it knows us by.
fn connect((host, address): &(String, Address), meeting: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, format!("{host} has no address"));
    for place in (host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, meeting) {
            Ok(mut stream) => {
                stream.write_all(&address.secret.to_le_bytes())?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads what has come, or waits for it for a moment; the messages, and whether there will be no more.
fn read(stream: &mut TcpStream, came: &mut Vec<u8>, size: usize) -> (Vec<Message>, bool) {
    let mut bytes = [0; 16 * MESSAGE_BYTES];
    let has_ended = match stream.read(&mut bytes) {
        Ok(0) => true,
        Ok(count) => {
            came.extend_from_slice(&bytes[..count]);
            false
        }
        Err(error) => {
            !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
        }
    };
    let whole = came.len() - came.len() % MESSAGE_BYTES;
    let (messages, _) = came[..whole].as_chunks::<MESSAGE_BYTES>();
    let messages: Vec<_> = messages.iter().map(|bytes| Message::read(bytes, size)).collect();
    came.drain(..whole);
    // Who speaks another language is as good as gone.
    let is_strange = messages.contains(&None);
    (messages.into_iter().flatten().collect(), has_ended || is_strange)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
