//! The inbox under the loom model checker: `RUSTFLAGS="--cfg loom" cargo test -p chare --release --lib loom`.

use std::ptr::NonNull;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::inbox::{Inbox, Linked, Pushed};
use super::sync::{AtomicPtr, Ordering};

/// A block whose memory and contents are watched: loom reports a use after `dispose`, and a leak.
struct Node {
    link: AtomicPtr<Node>,
    value: usize,
}

// SAFETY: `link` is one atomic for the node's life; `dispose` frees its box.
unsafe impl Linked for Node {
    unsafe fn link<'a>(node: NonNull<Self>) -> &'a AtomicPtr<Self> {
        // SAFETY: the caller keeps the node alive.
        unsafe { &(*node.as_ptr()).link }
    }
    unsafe fn dispose(node: NonNull<Self>) {
        // SAFETY: made by `node` below, disposed of once.
        drop(unsafe { Box::from_raw(node.as_ptr()) });
    }
}

fn node(value: usize) -> NonNull<Node> {
    NonNull::from(Box::leak(Box::new(Node { link: AtomicPtr::new(std::ptr::null_mut()), value })))
}

struct Shared {
    inbox: Inbox<Node>,
    woken: AtomicUsize,
}

// SAFETY: nodes are given up by `push`; the reader stays on one thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

#[test]
fn loom_every_push_is_popped_once_and_in_order_per_producer() {
    loom::model(|| {
        let (inbox, reader) = Inbox::new(node(0));
        let shared = Arc::new(Shared { inbox, woken: AtomicUsize::new(0) });
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || {
                for value in [1, 2] {
                    // SAFETY: a fresh node, given up.
                    let _ = unsafe { shared.inbox.push(node(value)) };
                }
            })
        };
        // SAFETY: a fresh node, given up.
        let _ = unsafe { shared.inbox.push(node(10)) };
        let mut seen = Vec::new();
        while seen.len() < 3 {
            match reader.pop() {
                // SAFETY: popped here, released once; its memory may still be the anchor.
                Some(popped) => unsafe {
                    seen.push(popped.as_ref().value);
                    reader.release(popped);
                },
                None => thread::yield_now(),
            }
        }
        producer.join().unwrap();
        assert!(reader.pop().is_none());
        let from_producer: Vec<_> = seen.iter().copied().filter(|&value| value != 10).collect();
        assert_eq!(from_producer, [1, 2]);
        assert!(seen.contains(&10));
    });
}

/// The protocol of a PE that goes to sleep: announce, look, sleep; and of a producer: push, wake if announced.
#[test]
fn loom_a_push_is_never_slept_through() {
    loom::model(|| {
        let (inbox, reader) = Inbox::new(node(0));
        let shared = Arc::new(Shared { inbox, woken: AtomicUsize::new(0) });
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || {
                // SAFETY: a fresh node, given up.
                if unsafe { shared.inbox.push(node(1)) } == Pushed::Wake {
                    shared.woken.store(1, Ordering::SeqCst);
                }
            })
        };
        shared.inbox.set_parked(true);
        let sleeps = !reader.may_have_more(&shared.inbox);
        producer.join().unwrap();
        if sleeps {
            assert_eq!(
                shared.woken.load(Ordering::SeqCst),
                1,
                "asleep with a message in the inbox, and nobody wakes it"
            );
        }
        shared.inbox.set_parked(false);
        let popped = reader.pop().expect("the push has ended");
        // SAFETY: popped here, released once.
        unsafe { reader.release(popped) };
    });
}
