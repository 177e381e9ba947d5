//! PEs as threads: the driver that steps a PE, and what it does when there is nothing to do.
//!
//! An idle PE polls its inbox for a while, then yields the core between looks, announces that it is idle (see
//! `quiescence`) and parks. It looks on for much longer than a wake-up takes (19-60 us here): otherwise two PEs that
//! answer each other, once parked, would park and wake each other for ever. Where there are more PEs than cores it
//! yields at once, since what it waits for may need its core.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::caught;
use crate::ids::PeId;
use crate::message::{Head, Msg};
use crate::quiescence;
use crate::runtime::Shared;
use crate::scheduler::inbox::InboxReader;
use crate::scheduler::pe::{Clock, Mail, Pe};

/// How long an idle PE polls without giving up its core; short, since the system may have put the PE that it waits for
/// on the same core.
const POLL: Duration = Duration::from_micros(4);
/// How long it yields its core between looks after that.
const YIELD: Duration = Duration::from_micros(200);
/// Looks between two readings of the clock.
const LOOKS_PER_READING: u32 = 64;
/// How long a parked PE 0 sleeps while a device works on something that nobody waits for.
const DEVICE_NAP: Duration = Duration::from_micros(500);

/// The wall clock, from the runtime's beginning.
pub(crate) struct WallClock(pub(crate) Instant);

impl Clock for WallClock {
    fn now_ns(&self) -> u64 {
        // 584 years fit.
        self.0.elapsed().as_nanos() as u64
    }
}

/// The inboxes of the PEs of one process.
pub(crate) struct ThreadMail {
    pub(crate) pe: PeId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reader: InboxReader<Head>,
}

impl Mail for ThreadMail {
    #[inline]
    fn receive(&self) -> Option<Msg> {
        // SAFETY: what the inbox brings was given up by its sender.
        self.reader.pop().map(|head| unsafe { Msg::from_raw(head) })
    }

    fn is_empty(&self) -> bool {
        !self.reader.may_have_more(self.shared.inbox(self.pe))
    }

    #[inline]
    fn send(&self, to: PeId, msg: Msg) {
        self.shared.push(to, msg);
    }

    fn release_pinned(&self, block: NonNull<Head>) {
        // SAFETY: the block is the one popped last, and its contents are gone.
        unsafe { self.reader.release(block) };
    }
}

/// Whether the PE has announced that it is idle.
struct Announcement<'a> {
    pe: &'a Pe,
    made: Cell<bool>,
}

impl Announcement<'_> {
    fn make(&self) {
        if !self.made.replace(true) {
            quiescence::announce_idle(self.pe);
        }
    }
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        if self.made.get() {
            quiescence::announce_active(self.pe);
        }
    }
}

/// Steps a PE until the runtime stops.
pub(crate) fn drive(pe: &Pe) {
    let shared = pe.shared().clone();
    let looker = Looker { pe, shared: &shared, polls_devices: shared.devices().poll() };
    let outcome = caught::catch(pe, || {
        while !shared.is_stopping() {
            let worked = pe.step();
            if !looker.look_at_devices() && !worked {
                pe.note_idle();
                idle(&looker);
                pe.note_runtime();
            }
        }
    });
    if let Err(panic) = outcome {
        pe.end_step();
        pe.tell(&panic);
    }
}

/// Looks for what a PE has to do.
struct Looker<'a> {
    pe: &'a Pe,
    shared: &'a Shared,
    /// Whether the devices need somebody to look for what has finished there. Else they wake who waits by themselves.
    polls_devices: bool,
}

impl Looker<'_> {
    /// Looks for device work that has finished. True if some coroutine of this PE can go on.
    #[inline]
    fn look_at_devices(&self) -> bool {
        self.polls_devices && {
            self.shared.devices().poll();
            !self.pe.queue.is_empty()
        }
    }

    /// Whether a device works, and this PE should look when it is done. All PEs do: who waits may be on any.
    fn awaits_devices(&self) -> bool {
        self.polls_devices && self.shared.devices().pending() > 0
    }
}

/// Waits until there is something to do; never returns without a reason to look again.
fn idle(looker: &Looker<'_>) {
    let &Looker { pe, shared, .. } = looker;
    let announcement = Announcement { pe, made: Cell::new(false) };
    let poll = if shared.is_oversubscribed() { Duration::ZERO } else { POLL };
    let mut waited = Duration::ZERO;
    let mut began = None;
    loop {
        for _ in 0..LOOKS_PER_READING {
            if looker.look_at_devices() || pe.receive() || shared.is_stopping() {
                return;
            }
            if waited < poll { std::hint::spin_loop() } else { thread::yield_now() }
        }
        if timer_is_due(pe) {
            return;
        }
        waited = began.get_or_insert_with(Instant::now).elapsed();
        // What a look at the devices may wake has to be waked before this PE says that it is idle.
        if waited >= poll + YIELD && !looker.awaits_devices() {
            break;
        }
    }
    if pe.tasks.settle_doubts(pe) {
        return;
    }
    announcement.make();
    loop {
        let verdict = if pe.id().index() == 0 { quiescence::judge(pe) } else { quiescence::Verdict::NotMine };
        let is_asked = verdict == quiescence::Verdict::DeviceBusy && looker.polls_devices;
        if is_asked || verdict == quiescence::Verdict::Answered || shared.is_stopping() {
            return;
        }
        let inbox = shared.inbox(pe.id());
        inbox.set_parked(true);
        if pe.mail_is_empty() && !timer_is_due(pe) && !shared.is_stopping() {
            let timer = pe
                .timers
                .next_deadline_ns()
                .map(|deadline| Duration::from_nanos(deadline.saturating_sub(pe.now_ns())));
            let nap = (verdict == quiescence::Verdict::DeviceBusy).then_some(DEVICE_NAP);
            match timer.into_iter().chain(nap).min() {
                Some(limit) => thread::park_timeout(limit),
                None => thread::park(),
            }
        }
        inbox.set_parked(false);
        if pe.receive() || timer_is_due(pe) || shared.is_stopping() {
            return;
        }
    }
}

fn timer_is_due(pe: &Pe) -> bool {
    pe.timers.next_deadline_ns().is_some_and(|deadline| deadline <= pe.now_ns())
}
