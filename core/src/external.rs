//! Waits that the user marks as external: they prevent quiescence and the hang report until they are over.
//!
//! What a coroutine awaits directly is told apart by itself (`scheduler/interest`). The mark is for futures inside of a
//! combinator that hands out wakers of its own: to the runtime, whatever waits in there looks alike.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::current;
use crate::ids::{ChareId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::runtime::Runtime;
use crate::scheduler::pe::Pe;
use crate::scheduler::task::TaskKey;
use crate::wire::Leaves;

/// A future of the outside world; made by [`crate::Runtime::external`].
#[must_use = "futures do nothing unless polled"]
pub struct External<F> {
    future: Pin<Box<F>>,
    mark: Option<Mark>,
}

/// The coroutine that is marked.
struct Mark {
    run: RunId,
    home: PeId,
    task: TaskKey,
}

impl Mark {
    /// Marks the running coroutine; none is running on a foreign thread, whose waits nobody judges.
    fn set() -> Option<Self> {
        current::pe(|pe| {
            let (pe, task) = pe.and_then(|pe| Some((pe, pe.running_task()?)))?;
            pe.tasks.mark(task);
            Some(Mark { run: pe.run(), home: pe.id(), task })
        })
    }

    fn is_of_the_running_task(&self) -> bool {
        current::pe(|pe| {
            pe.is_some_and(|pe| {
                pe.run() == self.run && pe.id() == self.home && pe.running_task() == Some(self.task)
            })
        })
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let Mark { run, home, task } = *self;
        current::pe(|pe| match pe {
            Some(pe) if pe.run() == run && pe.id() == home => pe.tasks.unmark(task),
            _ => current::post_to_run(run, home, Msg::for_pe(Unmark(task))),
        });
    }
}

/// The end of a mark, dropped away from the coroutine's PE.
struct Unmark(TaskKey);

impl Payload for Unmark {
    const NAME: Name = Name::Runtime("the end of an external wait");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.tasks.unmark(self.0);
    }
}

impl Runtime {
    /// Marks a future as one of the outside world: while a coroutine waits for it, the program is neither quiescent nor
    /// hanging. A coroutine that awaits such a future itself needs no mark, nor one in `select!` or `join!`. It is for
    /// combinators that hand out wakers of their own, such as `FuturesUnordered`, and mix such futures with the runtime's:
    /// `set.push(rt.external(socket.readable()))`. Such a combinator that is kept unfinished while the coroutine awaits
    /// the outside world counts as mixing them.
    pub fn external<F: Future>(&self, future: F) -> External<F> {
        External { future: Box::pin(future), mark: None }
    }
}

impl<F: Future> Future for External<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.future.as_mut().poll(context);
        if polled.is_ready() {
            self.mark = None;
        } else if !self.mark.as_ref().is_some_and(Mark::is_of_the_running_task) {
            self.mark = Mark::set();
        }
        polled
    }
}
