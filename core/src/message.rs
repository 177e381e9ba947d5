//! Messages: one allocation each, a header and the arguments behind it, moved by pointer inside a process.
//!
//! What a message does when it is taken is in its [`Table`], one static per kind of message. Invariant: whoever holds a
//! [`Msg`] owns the arguments and the reply; either the table's `run` consumes both, or dropping the message drops the
//! arguments and breaks the reply, so that nobody waits for a message that is gone.

use std::alloc::Layout;
use std::any::TypeId;
use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;

use crate::caught;
use crate::cell::ChareRef;
use crate::condition::when::Ruling;
use crate::current;
use crate::entry::EntryInfo;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::reply::Reply;
use crate::scheduler::inbox::Linked;
use crate::scheduler::pe::Pe;
use crate::scheduler::sync::AtomicPtr;
use crate::wire::{Encoder, Leaves, Stays, Unsent};

/// The header of every message. The link comes first: it is the only part that other threads write.
#[repr(C)]
pub(crate) struct Head {
    link: AtomicPtr<Head>,
    table: &'static Table,
    /// The chare that the message is for; meaningless in messages for a PE.
    pub(crate) to: ChareId,
    pub(crate) reply: Reply,
}

/// What is known of a kind of message when the program is compiled.
pub(crate) struct Table {
    layout: Layout,
    argument_bytes: usize,
    payload_type: TypeId,
    /// Consumes the message on its PE. The block is owned by `run`, which frees it.
    run: unsafe fn(NonNull<Head>, &Pe),
    /// Consumes the message, whose chare does not exist. The block is owned by `lost`, which frees it.
    lost: unsafe fn(NonNull<Head>, &Pe, CallError),
    drop_contents: unsafe fn(NonNull<Head>),
    /// Consumes the message: encodes it. The block is owned by `leave`, which frees it.
    leave: unsafe fn(NonNull<Head>, &Pe, &mut Encoder) -> Result<(), Unsent>,
    can_leave: bool,
    /// What becomes of it where its chare is idle; none if it can have no guard.
    ///
    /// # Safety
    /// The message is a live one of this table.
    look: Option<unsafe fn(&Msg, ChareRef) -> Ruling>,
    is_ranked: bool,
    is_call: bool,
    /// The entry that it invokes, or the runtime's own name for it.
    name: Name,
    /// What it is named by instead.
    ///
    /// # Safety
    /// The message is a live one of this table.
    inner: Option<unsafe fn(&Msg) -> Inner<'_>>,
}

/// What a message is named by that only brings something.
pub(crate) enum Inner<'a> {
    /// The call inside of it.
    Message(&'a Msg),
    /// The entry that will be called.
    Entry(&'static EntryInfo),
}

/// How reports name a message.
#[derive(Clone, Copy)]
pub(crate) enum Name {
    Entry(&'static EntryInfo),
    Runtime(&'static str),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Entry(entry) => write!(f, "{}.{}", entry.chare, entry.name),
            Name::Runtime(name) => f.write_str(name),
        }
    }
}

#[repr(C)]
struct Body<A> {
    head: Head,
    args: A,
}

/// The contents of a kind of message, and what taking it means.
pub(crate) trait Payload: Send + Sized + 'static {
    const NAME: Name;
    /// Whether it is a message inside of which another waits for its turn.
    const IS_RANKED: bool = false;
    /// Whether it is the call of one chare, with its arguments.
    const IS_CALL: bool = false;
    /// What it is named by, if that is not [`Payload::NAME`].
    const INNER: Option<fn(&Self) -> Inner<'_>> = None;
    /// Looks at the condition of what it calls, if it can have a guard. Runs user code.
    const LOOK: Option<fn(&Self, ChareRef) -> Ruling> = None;
    /// How it goes to a PE of another process.
    const LEAVES: Leaves<Self>;
    /// Runs on the PE that took the message; the block has been freed already.
    fn run(self, to: ChareId, reply: Reply, pe: &Pe);
    /// What becomes of it if its chare does not exist: whoever waits for its outcome gets the error; if nobody does, the
    /// error ends the run.
    fn lost(self, to: ChareId, reply: Reply, pe: &Pe, error: CallError) {
        pe.guard(|| drop(self));
        reply.refuse(pe, to, error);
    }
}

struct TableOf<P>(std::marker::PhantomData<P>);

impl<P: Payload> TableOf<P> {
    const TABLE: Table = Table {
        layout: Layout::new::<Body<P>>(),
        argument_bytes: size_of::<P>(),
        payload_type: TypeId::of::<P>(),
        run: run_payload::<P>,
        lost: lose_payload::<P>,
        drop_contents: drop_payload::<P>,
        leave: match P::LEAVES {
            Leaves::As(..) => leave_payload::<P>,
            Leaves::Never => stay,
        },
        can_leave: matches!(P::LEAVES, Leaves::As(..)),
        look: match P::LOOK {
            Some(_) => Some(look_at::<P>),
            None => None,
        },
        is_ranked: P::IS_RANKED,
        is_call: P::IS_CALL,
        name: P::NAME,
        inner: match P::INNER {
            Some(_) => Some(inner_of::<P>),
            None => None,
        },
    };
}

/// # Safety
/// The message is a live one of the table of `P`.
unsafe fn inner_of<P: Payload>(msg: &Msg) -> Inner<'_> {
    let inner = P::INNER.expect("the table has this only if it is there");
    // SAFETY: by the caller's promise the contents are a `P`, which live as long as the message.
    inner(unsafe { &(*msg.0.cast::<Body<P>>().as_ptr()).args })
}

/// # Safety
/// The message is a live one of the table of `P`.
unsafe fn look_at<P: Payload>(msg: &Msg, chare: ChareRef) -> Ruling {
    let look = P::LOOK.expect("the table has this only if it is there");
    // SAFETY: by the caller's promise the contents are a `P`, which live as long as the message.
    look(unsafe { &(*msg.0.cast::<Body<P>>().as_ptr()).args }, chare)
}

/// Moves the contents out of a message.
///
/// # Safety
/// `head` points to a live `Body<P>` that the caller owns, and whose block it frees without dropping what is in it.
#[inline(always)]
unsafe fn read_contents<P>(head: NonNull<Head>) -> (ChareId, Reply, P) {
    let body = head.cast::<Body<P>>();
    // SAFETY: the caller owns the body, and drops nothing of it.
    unsafe {
        let to = (*body.as_ptr()).head.to;
        let reply = std::ptr::read(&raw const (*body.as_ptr()).head.reply);
        (to, reply, std::ptr::read(&raw const (*body.as_ptr()).args))
    }
}

/// Moves the contents out of a message and frees its block.
///
/// # Safety
/// `head` points to a live `Body<P>` that the caller owns.
unsafe fn take_contents<P>(head: NonNull<Head>, pe: &Pe) -> (ChareId, Reply, P) {
    // SAFETY: the caller's promise.
    unsafe {
        let contents = read_contents(head);
        release(pe, head);
        contents
    }
}

/// As `take_contents`, for what is done with each message once.
///
/// # Safety
/// As for `take_contents`.
#[inline(always)]
unsafe fn consume<P: Payload>(head: NonNull<Head>, pe: &Pe) -> (ChareId, Reply, P) {
    // SAFETY: the caller's promise.
    unsafe {
        // Calls are many: what frees their blocks is compiled for their size, at each of them.
        if P::IS_CALL {
            let contents = read_contents::<P>(head);
            pe.release_block(head, Layout::new::<Body<P>>());
            contents
        } else {
            take_contents::<P>(head, pe)
        }
    }
}

/// Frees the block of a message.
///
/// # Safety
/// The caller owns the message, and what was in it.
#[inline(never)]
unsafe fn release(pe: &Pe, head: NonNull<Head>) {
    // SAFETY: the header stays readable until the block is freed.
    unsafe { pe.release_block(head, head.as_ref().table.layout) }
}

unsafe fn run_payload<P: Payload>(head: NonNull<Head>, pe: &Pe) {
    // SAFETY: `run` is called with the message that this table belongs to, which it owns.
    let (to, reply, payload) = unsafe { consume::<P>(head, pe) };
    payload.run(to, reply, pe);
}

unsafe fn lose_payload<P: Payload>(head: NonNull<Head>, pe: &Pe, error: CallError) {
    // SAFETY: `lost` is called with the message that this table belongs to, which it owns.
    let (to, reply, payload) = unsafe { take_contents::<P>(head, pe) };
    payload.lost(to, reply, pe, error);
}

unsafe fn drop_payload<P>(head: NonNull<Head>) {
    let body = head.cast::<Body<P>>();
    // SAFETY: the caller owns the contents and forgets them. The reply goes even if a destructor of the arguments
    // panics, so that whoever waits learns of it.
    unsafe {
        let _reply = std::ptr::read(&raw const (*body.as_ptr()).head.reply);
        std::ptr::drop_in_place(&raw mut (*body.as_ptr()).args);
    }
}

unsafe fn leave_payload<P: Payload>(head: NonNull<Head>, pe: &Pe, to: &mut Encoder) -> Result<(), Unsent> {
    // SAFETY: `leave` is called with the message that this table belongs to, which it owns.
    let (id, reply, payload) = unsafe { consume::<P>(head, pe) };
    let Leaves::As(kind, encode) = P::LEAVES else { unreachable!("the table has `stay` then") };
    let begin = to.mark();
    // What is for a PE has no reply.
    let id = (id != Msg::NOBODY).then_some(id);
    to.begin(kind, id);
    // Serialisation is code of the user's.
    match caught::catch(pe, || encode(payload, to)) {
        Ok(Ok(())) => {
            if id.is_some() {
                reply.leave(to);
            }
            Ok(())
        }
        Ok(Err(unsent)) => {
            to.rewind(begin);
            Err(keep_back(pe, id, reply, P::NAME, unsent))
        }
        Err(panic) => {
            to.rewind(begin);
            Err(keep_back(pe, id, reply, P::NAME, Stays::new(panic.to_string()).into()))
        }
    }
}

/// Tells whoever waits for a message why it was not encoded.
#[cold]
fn keep_back(pe: &Pe, id: Option<ChareId>, reply: Reply, name: Name, unsent: Unsent) -> Unsent {
    if let Unsent::Stays(why) = unsent {
        let text = format!("{name} was not sent to another process: {why}");
        reply.refuse(pe, id.unwrap_or(Msg::NOBODY), CallError::Refused(text.into()));
    }
    Unsent::Told
}

unsafe fn stay(head: NonNull<Head>, _: &Pe, _: &mut Encoder) -> Result<(), Unsent> {
    // SAFETY: `leave` is called with a message that it owns.
    let msg = unsafe { Msg::from_raw(head) };
    unreachable!("{} is for PEs of its own process", msg.name())
}

/// An owned message whose kind is erased.
#[must_use]
pub struct Msg(NonNull<Head>);

// SAFETY: payloads are `Send`, and so is a reply; the header holds only ids and a static.
unsafe impl Send for Msg {}

impl Msg {
    /// No chare: what messages for a PE are addressed to.
    pub(crate) const NOBODY: ChareId =
        ChareId { collection: CollectionId::singles_of(PeId::new(0)), element: u64::MAX };

    /// A message for the chare `to`, in a block of the current PE if there is one.
    #[inline(always)]
    pub(crate) fn new<P: Payload>(to: ChareId, reply: Reply, payload: P) -> Msg {
        let table = &TableOf::<P>::TABLE;
        let block = current::allocate(Layout::new::<Body<P>>());
        let head = Head { link: AtomicPtr::new(std::ptr::null_mut()), table, to, reply };
        // SAFETY: the block is fresh and has the layout of `Body<P>`.
        unsafe { block.cast::<Body<P>>().write(Body { head, args: payload }) };
        Msg(block.cast())
    }

    /// A message for a PE.
    pub(crate) fn for_pe<P: Payload>(payload: P) -> Msg {
        Msg::new(Msg::NOBODY, Reply::none(), payload)
    }

    /// Whether it is for a PE, whichever has it.
    pub(crate) fn is_for_pe(&self) -> bool {
        self.head().to == Msg::NOBODY
    }

    /// A block without contents, the first anchor of an inbox. The inbox's reader disposes of it.
    pub(crate) fn stub() -> NonNull<Head> {
        Msg::for_pe(Stub).into_raw()
    }

    pub(crate) fn head(&self) -> &Head {
        // SAFETY: a `Msg` owns a live block.
        unsafe { self.0.as_ref() }
    }

    /// What it is named by instead of its own name.
    fn inner(&self) -> Option<Inner<'_>> {
        // SAFETY: the table is that of the message.
        self.head().table.inner.map(|inner| unsafe { inner(self) })
    }

    pub(crate) fn name(&self) -> Name {
        match self.inner() {
            None => self.head().table.name,
            Some(Inner::Message(msg)) => msg.name(),
            Some(Inner::Entry(entry)) => Name::Entry(entry),
        }
    }

    /// Addresses what was for no chare.
    pub(crate) fn addressed(self, to: ChareId, reply: Reply) -> Msg {
        // SAFETY: a `Msg` owns a live block, and nobody else looks at its header.
        let head = unsafe { &mut *self.0.as_ptr() };
        head.to = to;
        let none = mem::replace(&mut head.reply, reply);
        debug_assert!(none.is_to_nobody());
        drop(none);
        self
    }

    #[inline]
    pub(crate) fn is_ranked(&self) -> bool {
        self.head().table.is_ranked
    }

    /// The entry that it calls, if it is the call of one chare.
    pub(crate) fn call(&self) -> Option<&'static EntryInfo> {
        match (self.head().table.is_call, self.name()) {
            (true, Name::Entry(entry)) => Some(entry),
            _ => None,
        }
    }

    /// Whether it may be the call that a guard decides about.
    pub(crate) fn can_be_guarded(&self) -> bool {
        self.head().table.look.is_some()
    }

    /// What its condition, and the guards that it has, make of a call on its chare, which is idle. Runs user code.
    pub(crate) fn look(&self, chare: ChareRef) -> Ruling {
        let look = self.head().table.look.expect("only calls have guards");
        // SAFETY: the table is that of the message.
        unsafe { look(self, chare) }
    }

    /// The size of what it carries behind its header.
    pub(crate) fn argument_bytes(&self) -> u64 {
        let own = self.head().table.argument_bytes as u64;
        match self.inner() {
            Some(Inner::Message(msg)) => own - size_of::<Msg>() as u64 + msg.argument_bytes(),
            _ => own,
        }
    }

    /// Takes the reply away: the message will answer nobody.
    pub(crate) fn take_reply(&mut self) -> Reply {
        // SAFETY: a `Msg` owns a live block, and nobody else looks at its reply.
        mem::replace(unsafe { &mut (*self.0.as_ptr()).reply }, Reply::none())
    }

    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<Head> {
        ManuallyDrop::new(self).0
    }

    /// # Safety
    /// `head` came from [`Msg::into_raw`] and is used by nobody else.
    #[inline]
    pub(crate) unsafe fn from_raw(head: NonNull<Head>) -> Msg {
        Msg(head)
    }

    /// Takes the message: runs it on `pe`, the PE of this thread.
    #[inline]
    pub(crate) fn run(self, pe: &Pe) {
        let head = self.into_raw();
        // SAFETY: the message is owned and its table is that of its contents.
        unsafe { (head.as_ref().table.run)(head, pe) }
    }

    /// Gives the message up: its chare does not exist.
    #[cold]
    pub(crate) fn lose(self, pe: &Pe, error: CallError) {
        let head = self.into_raw();
        // SAFETY: the message is owned and its table is that of its contents.
        unsafe { (head.as_ref().table.lost)(head, pe, error) }
    }

    /// Encodes the message for a PE of another process. If that is impossible, whoever waits for its outcome has been told.
    pub(crate) fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let head = self.into_raw();
        // SAFETY: the message is owned and its table is that of its contents.
        unsafe {
            current::on_pe("sending to another process", |pe| (head.as_ref().table.leave)(head, pe, to))
        }
    }

    /// Whether it may go to another process.
    pub(crate) fn can_leave(&self) -> bool {
        self.head().table.can_leave
    }

    /// Notes which PE has sent the message, unless another was noted before.
    pub(crate) fn sent_by(&mut self, pe: PeId) {
        // SAFETY: a `Msg` owns a live block, and nobody else looks at its reply.
        unsafe { (*self.0.as_ptr()).reply.sent_by(pe) }
    }

    /// Notes that it goes from one PE to another, by a record of this epoch if there is one. For tests of moves.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn follow(&mut self, epoch: Option<u64>) {
        // SAFETY: a `Msg` owns a live block, and nobody else looks at its reply.
        unsafe { (*self.0.as_ptr()).reply.trail.follow(epoch) }
    }

    /// The contents, if the message is of kind `P`.
    pub(crate) fn payload<P: Payload>(&self) -> Option<&P> {
        if self.head().table.payload_type != TypeId::of::<P>() {
            return None;
        }
        // SAFETY: the table is that of `P`, and a `Msg` owns a live block.
        Some(unsafe { &(*self.0.cast::<Body<P>>().as_ptr()).args })
    }

    /// The contents, if the message is of kind `P`.
    pub(crate) fn into_payload<P: Payload>(self, pe: &Pe) -> Option<P> {
        if self.head().table.payload_type != TypeId::of::<P>() {
            return None;
        }
        // SAFETY: the table is that of `P`, and the message is owned.
        let (_, reply, payload) = unsafe { take_contents::<P>(self.into_raw(), pe) };
        drop(reply);
        Some(payload)
    }

    /// The same message in a block that no inbox refers to, if `pe`'s inbox still needs this one.
    pub(crate) fn unpinned(self, pe: &Pe) -> Msg {
        if !pe.pins(self.0) {
            return self;
        }
        let layout = self.head().table.layout;
        let copy = current::allocate(layout).cast::<Head>();
        let pinned = self.into_raw();
        let link_bytes = size_of::<AtomicPtr<Head>>();
        // SAFETY: both blocks have the layout; the contents move by copy, and the old block is released without
        // dropping them. Its link, which a producer may be writing just now, is neither read nor moved.
        unsafe {
            (&raw mut (*copy.as_ptr()).link).write(AtomicPtr::new(std::ptr::null_mut()));
            let from = pinned.cast::<u8>().as_ptr().add(link_bytes);
            let to = copy.cast::<u8>().as_ptr().add(link_bytes);
            std::ptr::copy_nonoverlapping(from, to, layout.size() - link_bytes);
            pe.release_block(pinned, layout);
        }
        Msg(copy)
    }
}

impl Drop for Msg {
    fn drop(&mut self) {
        let _block = Block(self.0);
        // SAFETY: the message is owned; its contents are dropped once, then its block is given back.
        unsafe { (self.head().table.drop_contents)(self.0) };
    }
}

/// The block of a message whose contents are gone, or are going.
struct Block(NonNull<Head>);

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the header stays readable until the block is freed; the contents have been dropped, if only in part.
        unsafe { current::free_message(self.0, self.0.as_ref().table.layout) };
    }
}

// SAFETY: the link is used by the inbox only; `dispose` frees the block with the layout that it was allocated with.
unsafe impl Linked for Head {
    unsafe fn link<'a>(node: NonNull<Self>) -> &'a AtomicPtr<Self> {
        // SAFETY: the caller keeps the node alive.
        unsafe { &(*node.as_ptr()).link }
    }

    unsafe fn dispose(node: NonNull<Self>) {
        // SAFETY: the header stays readable until the block is freed; its contents have been consumed.
        unsafe {
            let layout = node.as_ref().table.layout;
            current::free(node.cast(), layout);
        }
    }
}

struct Stub;

impl Payload for Stub {
    const NAME: Name = Name::Runtime("inbox anchor");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, _: &Pe) {}
}
