//! What a process says of a bad end that arose in it while it waits for others: a launcher ends it when another one is aborted, before it says so
//! at its own end.
//!
//! Invariant: it is said once, by whoever comes first: a thread that waits for [`PATIENCE`] from the end on, whatever the PEs do meanwhile; the one that
//! aborts this process; or, when the run is over, the program's `main`.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::launch::{WORDS_WITHIN, say};
use crate::process::lock;
use crate::report::{self, Reason};

/// How long a process whose run has ended badly waits for the others before it says why: they may be aborted 5 s after the end, and
/// this one with them.
const PATIENCE: Duration = Duration::from_secs(2);

/// The words of one process.
#[derive(Default)]
pub(crate) struct Words {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
enum State {
    /// There is nothing to say.
    #[default]
    None,
    Unsaid(Arc<Reason>),
    /// A thread is at it: it makes a text by code of the user's, and writes it for somebody who may not read.
    Saying,
    Said,
}

impl Words {
    /// Has it said in time why the run has ended, if that arose here, and unless the run is over before.
    pub(super) fn say_in_time(self: &Arc<Self>, why: &Arc<Reason>) {
        let mut state = lock(&self.state);
        if !why.is_error_here() || !matches!(*state, State::None) {
            return;
        }
        *state = State::Unsaid(why.clone());
        let words = self.clone();
        // If there is no such thread, it is said at the end.
        let _ = thread::Builder::new().name("words".into()).spawn(move || {
            let is_unsaid = |state: &mut State| matches!(state, State::Unsaid(_));
            drop(words.changed.wait_timeout_while(lock(&words.state), PATIENCE, is_unsaid));
            words.say();
        });
    }

    /// Says why the run has ended, if that is to be said, or waits until it is said.
    pub(super) fn say(&self) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Unsaid(_))
            && let State::Unsaid(why) = std::mem::replace(&mut *state, State::Saying)
        {
            drop(state);
            if let Some(text) = report::early(&why) {
                say(&format!("{text}\nthis process waits for others to end the run, too"));
            }
            drop(why);
            *lock(&self.state) = State::Said;
            self.changed.notify_all();
        } else {
            let is_saying = |state: &mut State| matches!(state, State::Saying);
            drop(self.changed.wait_while(state, is_saying));
        }
    }

    /// The run is over: whether it has been said why. If not, nothing here says it any more.
    pub(crate) fn end(&self) -> bool {
        let is_saying = |state: &mut State| matches!(state, State::Saying);
        let waited = self.changed.wait_timeout_while(lock(&self.state), WORDS_WITHIN, is_saying);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::replace(&mut *state, State::Said);
        drop(state);
        self.changed.notify_all();
        matches!(was, State::Saying | State::Said)
    }
}
