//! The simulator: the PEs of a run on one thread, by a virtual clock, in an order that a seed decides. `README.md` here says
//! what is the same in every run, what the seed decides, and which orders are legal.
//!
//! The PEs, inboxes, tables and the board of quiescence are those of any run. What differs is who drives the PEs, and their [`Mail`]
//! and [`Clock`](crate::scheduler::pe::Clock) (`net`): so a real run pays nothing for this. The driver takes the next event and does it; when
//! only timers are left it does what threads do before they park, and then time jumps.
//!
//! [`Mail`]: crate::scheduler::pe::Mail

mod net;
mod report;
pub(crate) mod rng;
mod spec;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chare_transport::Frame;
pub use report::{Carried, Simulation};
pub use spec::{Link, Network, Sim, SimError};

use crate::caught;
use crate::current::{self, OnPe};
use crate::device_work;
use crate::hang::HangReport;
use crate::ids::PeId;
use crate::job;
use crate::message::Head;
use crate::migration;
use crate::process::Shared;
use crate::quiescence::{self, Verdict};
use crate::report::Reason;
use crate::runtime::{Begin, Runtime};
use crate::scheduler::inbox::InboxReader;
use crate::scheduler::pe::Pe;
use crate::scheduler::thread::ThreadMail;
use net::{Event, Landed, World, WorldClock, WorldMail};

/// Coroutines named in one report.
const NAMED: usize = 20;

impl Runtime {
    /// Says that the running method computes for so long: in a simulated run the clock of its PE goes on by that, and what it
    /// sends afterwards sets out later. Does nothing in other runs, whose time passes by itself.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn charge(&self, time: Duration) {
        current::on_pe("charge", |pe| pe.charge(spec::nanoseconds(time)));
    }

    /// How long this run has been going on, by the clock that its timers read: a virtual one if the run is simulated.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(current::on_pe("elapsed", Pe::now_ns))
    }
}

/// The run as its driver sees it.
struct Simulator {
    shared: Arc<Shared>,
    pes: Vec<Driven>,
    world: Rc<World>,
    steps: u64,
    migrations: u64,
    /// Whether devices will be looked at.
    looks_at_devices: bool,
}

/// A PE, and what of it is to come.
struct Driven {
    pe: Pe,
    has_step: bool,
    timer_ns: Option<u64>,
    /// When it has done what it is at.
    free_ns: u64,
    busy_ns: u64,
}

/// Runs a program to its end. The hang report, empty if it did not hang, and what the simulation has come to.
pub(crate) fn run(
    shared: &Arc<Shared>,
    readers: Vec<InboxReader<Head>>,
    begin: Begin<'_>,
) -> (String, Option<Simulation>) {
    let sim = shared.options().simulation().expect("this run is simulated").clone();
    let mut simulator = Simulator::new(shared.clone(), sim, readers);
    simulator.on(0, begin);
    simulator.drive();
    let simulation = simulator.simulation();
    (simulator.end(), Some(simulation))
}

impl Simulator {
    fn new(shared: Arc<Shared>, sim: Sim, readers: Vec<InboxReader<Head>>) -> Self {
        let world = World::new(sim, shared.clone());
        let driven = |(pe, reader)| {
            let id = PeId::new(pe);
            let inbox = ThreadMail { pe: id, shared: shared.clone(), reader };
            let mail = WorldMail { inbox, world: Rc::clone(&world) };
            let pe = Pe::new(id, shared.clone(), Box::new(mail), Box::new(WorldClock(Rc::clone(&world))));
            Driven { pe, has_step: false, timer_ns: None, free_ns: 0, busy_ns: 0 }
        };
        let pes = readers.into_iter().enumerate().map(driven).collect();
        Simulator { shared, pes, world, steps: 0, migrations: 0, looks_at_devices: false }
    }

    /// Does something on a PE, as the thread of it would, and sees to what that leads to.
    fn on<V: Default>(&mut self, pe: usize, f: impl FnOnce(&Pe) -> V) -> V {
        let value = guarded(&self.pes[pe].pe, f);
        self.plan(pe);
        value
    }

    /// Sees to it that what a PE has to do now will happen.
    fn plan(&mut self, pe: usize) {
        let Driven { pe: running, has_step, timer_ns, free_ns, busy_ns } = &mut self.pes[pe];
        let now_ns = self.world.now_ns();
        let charged_ns = self.world.take_charge();
        *free_ns = now_ns.max(*free_ns).saturating_add(charged_ns);
        *busy_ns += charged_ns;
        let has_work = !running.queue.is_empty() || !running.mail_is_empty();
        if has_work && !*has_step {
            *has_step = true;
            self.world.schedule(*free_ns, Event::Step(pe));
        }
        let deadline_ns = running.timers.next_deadline_ns().map(|deadline_ns| deadline_ns.max(*free_ns));
        if let Some(due_ns) = deadline_ns.filter(|due_ns| timer_ns.is_none_or(|set_ns| *due_ns < set_ns)) {
            *timer_ns = Some(due_ns);
            self.world.schedule(due_ns, Event::Timer(pe));
        }
        if !self.looks_at_devices && self.shared.devices().pending() > 0 {
            self.looks_at_devices = true;
            self.world.schedule(now_ns, Event::Device);
        }
    }

    fn drive(&mut self) {
        while !self.shared.is_stopping() {
            if self.shared.board().has_foreign_posted() {
                self.refuse(
                    "a thread that is no PE has sent a message: when it comes is up to that thread",
                    "",
                );
            } else if !self.world.is_busy() && self.rest() {
                continue;
            } else if let Some((at_ns, event)) = self.world.next() {
                self.act(at_ns, event);
            } else {
                self.refuse(
                    "the program waits for another thread: a `Handle` lives, by which one could still send",
                    "",
                );
            }
        }
    }

    fn act(&mut self, at_ns: u64, event: Event) {
        match event {
            Event::Timer(pe) => return self.time(at_ns, pe),
            _ => self.world.go_on(at_ns, event),
        }
        match event {
            Event::Step(pe) => self.step(pe),
            Event::Arrival(place) => match self.world.land(place) {
                Landed::Msg(to, msg) => {
                    self.shared.push(to, msg);
                    self.look(at_ns, to.index());
                }
                Landed::Frame { from, header, buffers, at, to } => {
                    // Any PE of the process may be the one that holds the driver.
                    let near = self.shared.pes_of_process(at);
                    let by = near.start + self.world.below(near.len());
                    self.world.tell(|| format!("PE {by} reads it"));
                    let frame = Frame { header: &header, buffers };
                    self.on(by, |pe| job::take_in(pe, from, frame, |_| false));
                    to.for_each(|pe| self.look(at_ns, pe));
                }
            },
            Event::Device => {
                // Any PE may be the one that looks.
                let by = self.world.below(self.pes.len());
                self.world.tell(|| format!("PE {by} looks at the devices"));
                self.looks_at_devices = false;
                self.on(by, |pe| pe.shared().devices().poll());
            }
            Event::Timer(_) => {}
        }
    }

    /// Something has come into the inbox of a PE. One that is busy will look when it has done.
    fn look(&mut self, at_ns: u64, pe: usize) {
        let is_free = self.pes[pe].free_ns <= at_ns;
        self.on(pe, |pe| is_free && pe.receive());
    }

    fn step(&mut self, pe: usize) {
        self.world.tell(|| format!("PE {pe} goes on"));
        self.steps += 1;
        self.pes[pe].has_step = false;
        self.world.charge(self.world.sim().overhead_ns());
        self.on(pe, |pe| {
            pe.receive();
            if pe.is_profiled() {
                pe.work::<true>(1)
            } else {
                pe.work::<false>(1)
            };
            pe.check_queue();
            pe.note_idle();
        });
        if self.steps >= self.world.sim().max_steps() {
            let text = format!("the program has gone on for {} steps and does not end", self.steps);
            self.refuse(&text, "; if it is only long, give it more: `--sim SEED:steps=N`");
        }
        if self.world.sim().migrate_once_in().is_some_and(|steps| self.world.once_in(steps)) {
            self.migrate_one(pe);
        }
    }

    /// Moves a chare of this PE to another one, if there is one that may.
    fn migrate_one(&mut self, pe: usize) {
        let (others, drawn) = (self.pes.len() - 1, self.world.below(1 << 20));
        if others == 0 || self.shared.is_stopping() {
            return;
        }
        let to = PeId::new((pe + 1 + self.world.below(others)) % (others + 1));
        let moved = self.on(pe, |pe| migration::move_any(pe, drawn, to));
        if let Some(chare) = moved {
            self.world.tell(|| format!("{chare:?} leaves PE {pe} for {to:?}"));
            self.migrations += 1;
        }
    }

    /// The time of a timer has come, unless it was cancelled: then no time passes for it.
    fn time(&mut self, at_ns: u64, pe: usize) {
        let driven = &mut self.pes[pe];
        if driven.timer_ns != Some(at_ns) {
            return;
        }
        driven.timer_ns = None;
        let is_due = driven.pe.timers.next_deadline_ns().is_some_and(|deadline_ns| deadline_ns <= at_ns);
        if is_due && driven.free_ns <= at_ns {
            self.world.go_on(at_ns, Event::Timer(pe));
            self.world.tell(|| format!("a timer of PE {pe} is due"));
            self.on(pe, |pe| pe.timers.fire(pe, at_ns));
        } else {
            self.plan(pe);
        }
    }

    /// What threads do before they park, when only timers are left. Whether there is something to do now, or the run has ended.
    fn rest(&mut self) -> bool {
        let has_timers = self.pes.iter().any(|driven| driven.pe.timers.pending_count() > 0);
        // While a timer may wake it, only those who await quiescence ask whether a coroutine waits for the outside. To find that
        // out may take a wake-up for each of its waits.
        if !has_timers || !self.pes[0].pe.quiescence_waiters.borrow().is_empty() {
            for pe in 0..self.pes.len() {
                self.on(pe, |pe| pe.tasks.settle_doubts(pe));
            }
            if self.world.is_busy() {
                return true;
            }
        }
        self.world.tell(|| "all rest".to_owned());
        self.pes.iter().for_each(|driven| quiescence::announce_idle(&driven.pe));
        let verdict = guarded(&self.pes[0].pe, |pe| Some(quiescence::judge(pe)));
        self.pes.iter().for_each(|driven| quiescence::announce_active(&driven.pe));
        self.plan(0);
        match verdict {
            Some(Verdict::Quiescent) => return false,
            // What they wait for may come from a coroutine that sleeps.
            Some(Verdict::Busy) if has_timers => return false,
            Some(Verdict::Busy) => self.refuse_external(),
            _ => {}
        }
        true
    }

    /// Ends a run in which coroutines wait for the outside world.
    fn refuse_external(&mut self) {
        let mut names = Vec::new();
        for Driven { pe, .. } in &self.pes {
            pe.tasks.for_each_external(|entry, chare| names.push((pe, entry, chare)));
        }
        if names.is_empty() {
            let text = "nothing is on its way, but the board says that something is".to_owned();
            return self.shared.stop(Reason::Internal(text));
        }
        let mut lines: Vec<String> = (names.iter().take(NAMED))
            .map(|(pe, entry, chare)| {
                let index = chare.map_or_else(String::new, |chare| pe.element_name(chare));
                let name = if entry.chare == entry.name { String::new() } else { format!(".{}", entry.name) };
                format!("\n  {}{index}{name} ({}:{}) on PE {}", entry.chare, entry.file, entry.line, pe.id())
            })
            .collect();
        if names.len() > NAMED {
            lines.push(format!("\n  and {} more", names.len() - NAMED));
        }
        self.refuse("coroutines wait for something outside of the runtime:", &lines.concat());
    }

    fn refuse(&self, what: &str, more: &str) {
        self.shared.stop(Reason::NotSimulated(format!("{what}{more}")));
    }

    /// When the last PE has done what it was at.
    fn end_ns(&self) -> u64 {
        self.pes.iter().map(|driven| driven.free_ns).fold(self.world.now_ns(), u64::max)
    }

    fn simulation(&self) -> Simulation {
        let [within_processes, between_processes, between_hosts] = self.world.carried();
        Simulation {
            spec: self.world.sim().to_string(),
            pes: self.pes.len(),
            time: Duration::from_nanos(self.end_ns()),
            busy: self.pes.iter().map(|driven| Duration::from_nanos(driven.busy_ns)).collect(),
            steps: self.steps,
            within_processes,
            between_processes,
            between_hosts,
            migrations: self.migrations,
            trace_hash: self.world.trace_hash(),
        }
    }

    /// Ends the PEs in the steps in which their threads would (see `run_pe`). Returns the hang report.
    fn end(self) -> String {
        self.world.finish(self.end_ns());
        let Simulator { shared, pes, world, .. } = self;
        let all = |f: &dyn Fn(&Pe)| pes.iter().for_each(|driven| guarded(&driven.pe, f));
        all(&|pe| shared.keep_profile(pe.take_profile()));
        device_work::abandon_unless_ended_well(&shared);
        let hang = HangReport::new(pes.len(), true);
        if shared.tells_what_waits() {
            all(&|pe| hang.tell(pe));
            all(&|pe| hang.write(pe));
        }
        all(&Pe::dismantle);
        world.land_all().into_iter().for_each(|(to, msg)| shared.push(to, msg));
        shared.wait_for_foreign_pushes();
        all(&Pe::drain);
        drop(pes);
        hang.into_text()
    }
}

/// Does something on a PE. A panic that belongs to no method ends the run.
fn guarded<V: Default>(pe: &Pe, f: impl FnOnce(&Pe) -> V) -> V {
    let _on_pe = OnPe::enter(pe);
    caught::catch(pe, || f(pe)).unwrap_or_else(|panic| {
        pe.end_step();
        pe.tell(&panic);
        V::default()
    })
}
