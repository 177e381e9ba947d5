//! MPI for programs whose `main` is not ours, such as harnesses of tests: it is started once, and finalised when the process exits.
//!
//! The invariant: the thread that has started MPI finalises it, as the standard wants. So it is a thread of its own, which waits for the exit.

use std::ffi::c_int;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use super::{Environment, Started};
use crate::error::ConnectError;

/// Who has started MPI, if anybody has asked for it.
static KEEPER: OnceLock<Keeper> = OnceLock::new();

struct Keeper {
    started: Result<Weak<Started>, ConnectError>,
    /// The thread, which goes on when the sender is gone.
    thread: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Environment {
    /// MPI for as long as the process lives: the first call starts it, and it is finalised when the process exits. For programs
    /// whose `main` is not theirs; others hold an [`Environment::start`]. While a driver is still there at the exit, MPI is not finalised.
    ///
    /// # Errors
    /// If MPI was started before by other means, or if the process is exiting.
    pub fn until_exit() -> Result<Environment, ConnectError> {
        let started = KEEPER.get_or_init(Keeper::start).started.clone()?;
        let gone = || ConnectError::Network("the process exits, and has finalised MPI".into());
        started.upgrade().map(|started| Environment { started }).ok_or_else(gone)
    }
}

impl Keeper {
    fn start() -> Keeper {
        let (tell, told) = mpsc::channel();
        let (until, exit) = mpsc::channel::<()>();
        let keep = move || {
            let environment = Environment::start();
            let started = environment.as_ref().map(|environment| Arc::downgrade(&environment.started));
            // Nobody is sent anything: this ends when the sender is dropped.
            let is_told = tell.send(started.map_err(Clone::clone)).is_ok();
            let _ = is_told.then(|| exit.recv());
        };
        let spawned = thread::Builder::new().name("MPI".into()).spawn(keep);
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                let started = Err(ConnectError::Network(format!("no thread for MPI: {error}")));
                return Keeper { started, thread: Mutex::new(None) };
            }
        };
        let started = told.recv().unwrap_or_else(|_| Err(ConnectError::Network("MPI has panicked".into())));
        // After MPI has started: what is registered last is called first, and the library may have registered its own end.
        // SAFETY: `finish` is such a function, and unwinds nowhere.
        unsafe { atexit(finish) };
        Keeper { started, thread: Mutex::new(Some((until, thread))) }
    }
}

unsafe extern "C" {
    /// Of the C library: has a function called when the process exits.
    fn atexit(function: extern "C" fn()) -> c_int;
}

extern "C" fn finish() {
    let thread =
        KEEPER.get().map(|keeper| keeper.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
    if let Some(Some((until, thread))) = thread {
        drop(until);
        // A panic of it has been told.
        let _ = thread.join();
    }
}
