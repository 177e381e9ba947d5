//! PEs as threads: the driver that steps a PE, and what it does when there is nothing to do.
//!
//! An idle PE polls its inbox for a while, then yields the core between looks, announces that it is idle (see
//! `quiescence`) and parks. It looks on for much longer than a wake-up takes (19-60 us here): otherwise two PEs that
//! answer each other, once parked, would park and wake each other for ever. Where there are more PEs than cores it
//! yields at once, since what it waits for may need its core.
//!
//! Devices that must be looked at are looked at between steps, and while a PE has just become idle. Before it parks with device work
//! pending it asks the devices to wake it (`device/README.md`, "Who looks, and who sleeps"). A look may wake coroutines of this
//! PE, so it comes only before the PE announces that it is idle, or after it has taken that back.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chare_device::Rest;

use crate::caught;
use crate::ids::PeId;
use crate::message::{Head, Msg};
use crate::process::Shared;
use crate::quiescence;
use crate::scheduler::inbox::InboxReader;
use crate::scheduler::pe::{Clock, Mail, Pe};

/// How long an idle PE polls without giving up its core; short, since the system may have put the PE that it waits for
/// on the same core.
const POLL: Duration = Duration::from_micros(4);
/// How long it yields its core between looks after that.
const YIELD: Duration = Duration::from_micros(200);
/// How long it goes on with that where what comes from other processes wakes nobody: a sleeper notices it when it looks, and would often be late.
const YIELD_UNWOKEN: Duration = Duration::from_millis(2);
/// Looks between two readings of the clock.
const LOOKS_PER_READING: u32 = 64;

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
            let came = looker.look_at_network(true);
            if !looker.look_at_devices() && !worked && !came {
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

    /// Lets messages go to other processes and come from them. True if there were any. A PE that has announced that it is idle does not
    /// take what is for itself.
    #[inline]
    fn look_at_network(&self, takes: bool) -> bool {
        self.shared.job().is_some_and(|job| job.poll(self.pe, takes))
    }

    /// Whether this PE, which has been idle for so long, looks on instead of sleeping: the one that naps otherwise since no arrival wakes it, if it
    /// has a core of its own.
    fn stays_awake(&self, idle: Option<Duration>) -> bool {
        let is_unwoken = self.shared.job().is_some_and(|job| !job.is_woken);
        is_unwoken
            && self.pe.id() == self.shared.first_pe()
            && !self.polls_devices
            && !self.shared.is_oversubscribed()
            && idle.is_some_and(|idle| idle < YIELD_UNWOKEN)
    }

    /// Sleeps until somebody or a device wakes this PE, or a timer is due. False, at once, if the devices must be looked at first:
    /// what ends then may be of this PE, which has to be active.
    ///
    /// All PEs ask devices that must be looked at, since who waits may be on any. Others wake who waits by themselves; PE 0 asks
    /// them for the end of all work if `only_devices_work`.
    fn park(&self, only_devices_work: bool) -> bool {
        let asks = self.polls_devices || only_devices_work;
        let rest = if asks { self.shared.devices().before_park(only_devices_work) } else { Rest::Unlimited };
        let mut naps = [None; 2];
        match rest {
            Rest::LookFirst => return false,
            Rest::AtMost(most) => naps[0] = Some(most),
            _ => {}
        }
        match self.shared.job().map_or(Rest::Unlimited, |job| job.before_park(self.pe)) {
            // The caller looks there in any case.
            Rest::LookFirst => {
                self.wake_from(asks);
                return true;
            }
            Rest::AtMost(most) => naps[1] = Some(most),
            _ => {}
        }
        let until = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(self.pe.now_ns()));
        match self.pe.timers.next_deadline_ns().map(until).into_iter().chain(naps.into_iter().flatten()).min()
        {
            Some(limit) => thread::park_timeout(limit),
            None => thread::park(),
        }
        self.wake_from(asks);
        true
    }

    /// Takes this thread out of those that devices wake, if it has asked to be among them.
    fn wake_from(&self, asked: bool) {
        if asked {
            self.shared.devices().after_park();
        }
    }
}

/// Waits until there is something to do; never returns without a reason to look again.
fn idle(looker: &Looker<'_>) {
    let &Looker { pe, shared, .. } = looker;
    let announcement = Announcement { pe, made: Cell::new(false) };
    let poll = if shared.is_oversubscribed() { Duration::ZERO } else { POLL };
    // Nobody else takes hold of the driver, and a look at a network is longer than the hint below.
    let looks_alone = shared.job().is_some() && shared.own_pe_count() == 1;
    let mut waited = Duration::ZERO;
    let mut began = None;
    loop {
        for _ in 0..LOOKS_PER_READING {
            let came = looker.look_at_network(true);
            // What has come from there is not kept waiting for a look elsewhere.
            if (came && !pe.queue.is_empty())
                || looker.look_at_devices()
                || pe.receive()
                || shared.is_stopping()
            {
                return;
            }
            match waited < poll || came {
                true if looks_alone => {}
                true => std::hint::spin_loop(),
                false => thread::yield_now(),
            }
        }
        if timer_is_due(pe) {
            return;
        }
        waited = began.get_or_insert_with(Instant::now).elapsed();
        if waited >= poll + YIELD {
            break;
        }
    }
    if pe.tasks.settle_doubts(pe) {
        return;
    }
    announcement.make();
    loop {
        let verdict =
            if pe.id() == shared.first_pe() { quiescence::judge(pe) } else { quiescence::Verdict::NotMine };
        if verdict == quiescence::Verdict::Answered || shared.is_stopping() {
            return;
        }
        let inbox = shared.inbox(pe.id());
        let mut must_look = false;
        inbox.set_parked(true);
        if pe.mail_is_empty() && !timer_is_due(pe) && !shared.is_stopping() {
            let only_devices_work = verdict == quiescence::Verdict::DeviceBusy;
            if !only_devices_work && looker.stays_awake(began.map(|began| began.elapsed())) {
                thread::yield_now();
            } else {
                must_look = !looker.park(only_devices_work);
            }
        }
        inbox.set_parked(false);
        // This PE is idle still: what comes from elsewhere is put into inboxes, and not taken. But what is decoded is code of the
        // user's, which may send.
        let posted = pe.traffic.posted.get();
        looker.look_at_network(false);
        if pe.traffic.posted.get() != posted || !pe.queue.is_empty() {
            return;
        }
        if must_look || pe.receive() || timer_is_due(pe) || shared.is_stopping() {
            return;
        }
    }
}

fn timer_is_due(pe: &Pe) -> bool {
    pe.timers.next_deadline_ns().is_some_and(|deadline| deadline <= pe.now_ns())
}
