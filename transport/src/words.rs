//! What a process says while it ends: by a thread of its own, and it is waited for so long only.
//!
//! Texts may be code of the user's, and nobody may read what is written: neither may keep this process from its end, or from its signs of life.

use std::process;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Has a thread of its own say something, and waits until it has, for so long at most; whether it has. It goes on by itself if it has not.
pub fn say_within(limit: Duration, words: impl FnOnce() + Send + 'static) -> bool {
    say_by_another(limit, words).unwrap_or_else(|words| {
        // Better late than never.
        words.into_iter().for_each(|words| words());
        true
    })
}

/// The same; the words, if there can be no thread.
fn say_by_another<W: FnOnce() + Send + 'static>(limit: Duration, words: W) -> Result<bool, Option<W>> {
    // Nobody is sent anything: what counts is that it is dropped, by a panic too.
    let (done, is_done) = mpsc::channel::<()>();
    let words = Arc::new(Mutex::new(Some(words)));
    let of_thread = words.clone();
    let speak = move || {
        take(&of_thread).into_iter().for_each(|words| words());
        drop(done);
    };
    let spawned = thread::Builder::new().name("words".into()).spawn(speak);
    spawned.map_err(|_| take(&words))?;
    Ok(is_done.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected))
}

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Aborts this process when it has said something, or has had so much time for it.
pub fn abort_after(limit: Duration, words: impl FnOnce() + Send + 'static) -> ! {
    // Without a thread for it nothing is said: that might take for ever.
    drop(say_by_another(limit, words));
    #[cfg(feature = "mpi")]
    crate::mpi::die_silently();
    process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_not_waited_for() {
        let (end, is_ended) = mpsc::channel::<()>();
        let (told, is_told) = mpsc::channel();
        let never = move || {
            told.send(()).expect("the test listens");
            let _ = is_ended.recv();
        };
        assert!(!say_within(Duration::from_millis(1), never));
        is_told.recv().expect("it is said all the same");
        drop(end);
        assert!(say_within(Duration::MAX, || {}));
        assert!(say_within(Duration::MAX, || panic!("a text that panics")));
    }
}
