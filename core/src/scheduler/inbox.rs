//! The inbox of a PE: many producers, one consumer, linked through the messages themselves.
//!
//! The algorithm, its states and races, and why each is safe, are in `README.md` beside this file. In short: `tail` is
//! the last message ever pushed; the consumer owns `front`, the last message it has taken. The memory of `front` must
//! outlive the taking, because the next producer writes its link; so [`InboxReader::release`] keeps it until the
//! following message has been taken. A push is one swap and one store, a pop one load; neither allocates.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use crossbeam_utils::CachePadded;

use super::sync::{AtomicBool, AtomicPtr, Ordering, in_total_order};

/// A block of memory that can stand in an [`Inbox`].
///
/// # Safety
/// `link` returns the same atomic for the whole life of the block, and nobody but the inbox touches it between `push`
/// and `dispose`. `dispose` frees the memory and does not look at the contents.
pub(crate) unsafe trait Linked: Sized {
    /// The atomic that the inbox links the block by.
    ///
    /// # Safety
    /// `node` is alive.
    unsafe fn link<'a>(node: NonNull<Self>) -> &'a AtomicPtr<Self>;

    /// Frees the memory of a block whose contents have been consumed.
    ///
    /// # Safety
    /// Called once, by the thread of the consumer, and `node` is not used afterwards.
    unsafe fn dispose(node: NonNull<Self>);
}

/// The producers' side, shared by all.
pub(crate) struct Inbox<T> {
    tail: CachePadded<AtomicPtr<T>>,
    parked: CachePadded<AtomicBool>,
}

/// What a producer must do after a push.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The consumer runs and will see the message.
    Seen,
    /// The consumer sleeps: wake it.
    Wake,
}

/// The consumer's side; one per inbox.
pub(crate) struct InboxReader<T: Linked> {
    front: Cell<NonNull<T>>,
    front_released: Cell<bool>,
}

impl<T: Linked> Inbox<T> {
    /// An empty inbox around `stub`, a block without contents.
    pub(crate) fn new(stub: NonNull<T>) -> (Self, InboxReader<T>) {
        let inbox = Inbox {
            tail: CachePadded::new(AtomicPtr::new(stub.as_ptr())),
            parked: CachePadded::new(AtomicBool::new(false)),
        };
        (inbox, InboxReader { front: Cell::new(stub), front_released: Cell::new(true) })
    }

    /// Appends `node`; never waits, never fails.
    ///
    /// # Safety
    /// The caller gives up `node`; its contents may be sent to the consumer's thread.
    pub(crate) unsafe fn push(&self, node: NonNull<T>) -> Pushed {
        // SAFETY: the caller owns the node.
        unsafe { T::link(node) }.store(ptr::null_mut(), Ordering::Relaxed);
        // Pairs with the load in `may_have_more`: either the consumer sees this tail, or we see `parked`.
        let previous = self.tail.swap(node.as_ptr(), Ordering::SeqCst);
        let previous = NonNull::new(previous).expect("the tail of an inbox is never null");
        // SAFETY: only the producer that took `previous` out of `tail` writes its link, and the consumer does not
        // dispose of it before it has read this very store (README, "why the link write is safe").
        // Pairs with the Acquire load in `pop`.
        unsafe { T::link(previous) }.store(node.as_ptr(), Ordering::Release);
        in_total_order();
        if self.parked.load(Ordering::SeqCst) { Pushed::Wake } else { Pushed::Seen }
    }

    /// Announces that the consumer is about to sleep, or has woken. The consumer sleeps only if
    /// [`InboxReader::may_have_more`] is false *after* the announcement.
    pub(crate) fn set_parked(&self, parked: bool) {
        self.parked.store(parked, Ordering::SeqCst);
    }
}

impl<T: Linked> InboxReader<T> {
    /// Takes the oldest message, or `None` if there is none or its producer has not linked it yet.
    pub(crate) fn pop(&self) -> Option<NonNull<T>> {
        let front = self.front.get();
        // SAFETY: `front` is alive: `release` does not dispose of it.
        // Pairs with the Release store in `push`.
        let next = NonNull::new(unsafe { T::link(front) }.load(Ordering::Acquire))?;
        self.front.set(next);
        if self.front_released.replace(false) {
            // SAFETY: its contents were consumed, its link has been read, no producer can reach it any more.
            unsafe { T::dispose(front) };
        }
        Some(next)
    }

    /// Whether a message is there or on its way; false means that nothing was pushed since the last pop.
    pub(crate) fn may_have_more(&self, inbox: &Inbox<T>) -> bool {
        in_total_order();
        inbox.tail.load(Ordering::SeqCst) != self.front.get().as_ptr()
    }

    /// Whether the inbox still needs the memory of `node`, which must then not leave this thread.
    pub(crate) fn pins(&self, node: NonNull<T>) -> bool {
        self.front.get() == node
    }

    /// Gives back a block whose contents have been consumed: disposed of now, or once the inbox needs it no longer.
    ///
    /// # Safety
    /// `node` came from `pop` of this reader or was never in an inbox, and is not used afterwards.
    pub(crate) unsafe fn release(&self, node: NonNull<T>) {
        if self.pins(node) {
            self.front_released.set(true);
        } else {
            // SAFETY: by the caller's promise nobody else holds the block.
            unsafe { T::dispose(node) };
        }
    }
}

impl<T: Linked> Drop for InboxReader<T> {
    /// Disposes of the anchor. Messages behind it must have been popped; their producers have ended.
    fn drop(&mut self) {
        if self.front_released.get() {
            // SAFETY: its contents were consumed, and no producer is left that could reach it.
            unsafe { T::dispose(self.front.get()) };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A block that is never really freed, so that a use after `dispose` shows instead of being undefined.
    struct Node {
        link: AtomicPtr<Node>,
        disposals: Cell<usize>,
    }

    /// What a disposed block links to.
    const GONE: NonNull<Node> = NonNull::dangling();

    // SAFETY: the link is one atomic; `dispose` frees nothing.
    unsafe impl Linked for Node {
        unsafe fn link<'a>(node: NonNull<Self>) -> &'a AtomicPtr<Self> {
            // SAFETY: the nodes of a test outlive its inbox.
            unsafe { &(*node.as_ptr()).link }
        }
        unsafe fn dispose(node: NonNull<Self>) {
            // SAFETY: as above.
            let node = unsafe { node.as_ref() };
            node.disposals.set(node.disposals.get() + 1);
            node.link.store(GONE.as_ptr(), Ordering::Relaxed);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push,
        Pop,
        /// Gives back one of those that were popped.
        Release(prop::sample::Index),
        SetParked(bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Push),
            5 => Just(Step::Pop),
            4 => any::<prop::sample::Index>().prop_map(Step::Release),
            1 => any::<bool>().prop_map(Step::SetParked),
        ];
        prop::collection::vec(step, 0..120)
    }

    /// An inbox and what it should be.
    struct Checked {
        inbox: Inbox<Node>,
        reader: InboxReader<Node>,
        nodes: Vec<NonNull<Node>>,
        /// Numbers of nodes: pushed and not popped; popped and not released; the one popped last.
        queued: VecDeque<usize>,
        held: Vec<usize>,
        front: usize,
    }

    impl Checked {
        /// The nodes are those of `nodes`, the first of which is the stub.
        fn new(nodes: &[Node]) -> Self {
            let nodes: Vec<_> = nodes.iter().map(NonNull::from).collect();
            let (inbox, reader) = Inbox::new(nodes[0]);
            Checked { inbox, reader, nodes, queued: VecDeque::new(), held: Vec::new(), front: 0 }
        }

        fn pop(&mut self) -> Result<(), TestCaseError> {
            let expected = self.queued.pop_front();
            prop_assert_eq!(self.reader.pop(), expected.map(|number| self.nodes[number]));
            self.held.extend(expected);
            self.front = expected.unwrap_or(self.front);
            Ok(())
        }

        fn release(&mut self, place: usize) {
            let number = self.held.swap_remove(place);
            // SAFETY: popped, and released this once.
            unsafe { self.reader.release(self.nodes[number]) };
        }

        /// Of the first `pushed` nodes, just those have been disposed of, once, that nobody needs.
        fn check(&self, pushed: usize) -> Result<(), TestCaseError> {
            prop_assert_eq!(self.reader.may_have_more(&self.inbox), !self.queued.is_empty());
            for number in 0..pushed {
                let is_needed =
                    number == self.front || self.held.contains(&number) || self.queued.contains(&number);
                prop_assert_eq!(self.reader.pins(self.nodes[number]), number == self.front);
                // SAFETY: the nodes outlive the inbox.
                let disposals = unsafe { self.nodes[number].as_ref() }.disposals.get();
                prop_assert_eq!(disposals, usize::from(!is_needed), "node {}", number);
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn the_inbox_is_a_queue_that_disposes_of_every_block_once(steps in steps()) {
            let fresh = || Node { link: AtomicPtr::new(ptr::null_mut()), disposals: Cell::new(0) };
            let nodes: Vec<Node> = (0..=steps.len()).map(|_| fresh()).collect();
            let mut checked = Checked::new(&nodes);
            let (mut pushed, mut parked) = (1, false);
            for step in steps {
                match step {
                    Step::Push => {
                        // SAFETY: a fresh node.
                        let told = unsafe { checked.inbox.push(checked.nodes[pushed]) };
                        prop_assert_eq!(told == Pushed::Wake, parked);
                        checked.queued.push_back(pushed);
                        pushed += 1;
                    }
                    Step::Pop => checked.pop()?,
                    Step::Release(_) if checked.held.is_empty() => {}
                    Step::Release(which) => checked.release(which.index(checked.held.len())),
                    Step::SetParked(now) => {
                        checked.inbox.set_parked(now);
                        parked = now;
                    }
                }
                checked.check(pushed)?;
            }
            while !checked.queued.is_empty() {
                checked.pop()?;
            }
            while !checked.held.is_empty() {
                checked.release(0);
            }
            checked.check(pushed)?;
            drop(checked);
            prop_assert!(nodes[..pushed].iter().all(|node| node.disposals.get() == 1));
            prop_assert!(nodes[..pushed].iter().all(|node| node.link.load(Ordering::Relaxed) == GONE.as_ptr()));
        }
    }
}
