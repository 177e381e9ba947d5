//! All PEs of a run on one thread, for tests: a seed decides which PE goes on when, and when each message arrives.
//!
//! The PEs, the inboxes, the board of quiescence and the end of the run are the real ones; only [`Mail`] and [`Clock`] are
//! not. A message that is sent lies on its way until it is chosen. What a PE does between two messages of its queue cannot
//! be seen by another one, so the choices are: this PE does one thing, or this message arrives. When nothing is left to
//! do and nothing is on its way, time goes on, those who await quiescence are told, or the program hangs.
//!
//! The same seed makes the same run.

pub(crate) mod shuttled;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use chare_device::{Devices, HostMode};

use crate::binding::BoundDevices;

use crate::caught;
use crate::current::OnPe;
use crate::hang::HangReport;
use crate::ids::PeId;
use crate::message::{Head, Msg, Name};
use crate::options::Options;
use crate::priority::Ranked;
use crate::process::Shared;
use crate::quiescence::{self, Verdict};
use crate::report::{ExitReport, Reason};
use crate::runtime::{MainOutput, Runtime, start_main};
use crate::scheduler::pe::{Clock, Mail, Pe};
use crate::scheduler::thread::ThreadMail;
use crate::scheduler::waker::Enrolment;
pub(crate) use crate::sim::rng::Rng;

/// Names a seed that is to be run again, alone and with a trace of what happens.
const SEED_VARIABLE: &str = "CHARE_MODEL_SEED";
/// More choices than any of the programs needs.
const MAX_CHOICES: u64 = 200_000;
/// How likely a pair of PEs, or a PE, is chosen: some are slow for a while.
const SPEEDS: [u64; 4] = [1, 8, 64, 64];
/// Choices after which, on average, the speeds are drawn anew.
const SPELL: usize = 40;

/// Which order messages keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// All messages to one PE arrive in the order in which they were sent, as the inboxes of threads have it.
    Inbox,
    /// Those from one PE to another do, as transports have it.
    Pair,
    /// None.
    Chaos,
}

/// One run.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) pe_count: usize,
    pub(crate) order: Order,
    /// The number of choices after which the run ends, whatever is under way.
    pub(crate) end_after: Option<u64>,
    is_traced: bool,
}

impl Case {
    pub(crate) fn new(seed: u64, order: Order) -> Self {
        let mut rng = Rng::new(!seed);
        let pe_count = 2 + rng.below(3);
        let end_after = rng.once_in(5).then(|| 1 + rng.below(600) as u64);
        Case { seed, pe_count, order, end_after, is_traced: false }
    }
}

/// Runs a program for many seeds, or for the one that the environment names.
pub(crate) fn explore(order: Order, seeds: u64, program: impl Fn(Case)) {
    struct Failing(Case);
    impl Drop for Failing {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let Case { seed, order, .. } = self.0;
                eprintln!("failed in the order {order:?} at seed {seed}; trace it: {SEED_VARIABLE}={seed}");
            }
        }
    }
    let wanted =
        std::env::var(SEED_VARIABLE).ok().map(|seed| seed.parse::<u64>().expect("a seed is a number"));
    let seeds = wanted.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in seeds {
        let failing = Failing(Case { is_traced: wanted.is_some(), ..Case::new(seed, order) });
        program(failing.0);
    }
}

/// Messages on their way.
struct Net {
    case: Case,
    /// By sender and receiver; with the order `Inbox`, all under the first sender.
    lanes: RefCell<Vec<VecDeque<Msg>>>,
}

impl Net {
    fn lane(&self, from: usize, to: usize) -> usize {
        let from = if self.case.order == Order::Inbox { 0 } else { from };
        from * self.case.pe_count + to
    }

    /// In the order of today no call follows an old place of its chare after a newer one, or the same. (What the runtime asks
    /// a chare for may be sent again when it has been there.)
    fn check(&self, msg: &Msg) {
        let msg = msg.payload::<Ranked>().map_or(msg, |ranked| &ranked.msg);
        let reply = &msg.head().reply;
        let is_call = matches!(msg.name(), Name::Entry(_));
        let is_astray = is_call && self.case.order == Order::Inbox && reply.trail.goes_back;
        assert!(!is_astray, "{} is sent back the way that it has come", Named(msg));
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.case.is_traced {
            eprintln!("{}", text());
        }
    }
}

/// The inbox of a PE, and the way of what it sends.
struct ModelMail {
    inbox: ThreadMail,
    net: Rc<Net>,
}

impl Mail for ModelMail {
    fn receive(&self) -> Option<Msg> {
        self.inbox.receive()
    }

    fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    fn send(&self, to: PeId, msg: Msg) {
        let from = self.inbox.pe;
        self.net.trace(|| format!("    {from:?} sends {} to {to:?}", Named(&msg)));
        self.net.check(&msg);
        self.net.lanes.borrow_mut()[self.net.lane(from.index(), to.index())].push_back(msg);
    }

    fn release_pinned(&self, block: NonNull<Head>) {
        self.inbox.release_pinned(block);
    }
}

struct Named<'a>(&'a Msg);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.0.head().to;
        match self.0.name() {
            Name::Entry(entry) => write!(f, "{}::{} for {to:?}", entry.chare, entry.name),
            Name::Runtime(name) => write!(f, "{name} for {to:?}"),
        }
    }
}

struct ModelClock(Rc<Cell<u64>>);

impl Clock for ModelClock {
    fn now_ns(&self) -> u64 {
        self.0.get()
    }
}

/// What can happen next.
#[derive(Clone, Copy)]
enum Choice {
    Work(usize),
    Arrival(usize),
}

struct Model {
    case: Case,
    shared: Arc<Shared>,
    pes: Vec<Pe>,
    net: Rc<Net>,
    now_ns: Rc<Cell<u64>>,
    rng: Rng,
    /// How much has been done.
    choices: u64,
    /// PEs that have nothing to do.
    is_idle: Vec<bool>,
    work_speeds: Vec<u64>,
    lane_speeds: Vec<u64>,
}

/// Runs a program to its end, and says how it ended.
pub(crate) fn run<F, Fut, R>(case: Case, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let mut model = Model::new(case);
    model.start(main);
    while !model.is_over() {
        match model.choose() {
            Some(choice) => model.act(choice),
            None => model.rest(),
        }
    }
    model.conclude()
}

impl Model {
    fn new(case: Case) -> Self {
        caught::note_panics();
        let options = Options::default().with_pes(case.pe_count);
        let devices = Devices::open(options.device(), HostMode::Inline).expect("the host is there");
        let devices =
            BoundDevices::new(devices, case.pe_count, options.device_map()).expect("a block map fits");
        let enrolment = Enrolment::reserve(false).expect("few tests run at a time");
        let (shared, readers) = Shared::new(&enrolment, options, devices, None);
        enrolment.complete(&shared);
        let lane_count = case.pe_count * case.pe_count;
        let lanes = RefCell::new((0..lane_count).map(|_| VecDeque::new()).collect());
        let net = Rc::new(Net { case, lanes });
        let now_ns = Rc::default();
        let pe = |(pe, reader)| {
            let inbox = ThreadMail { pe: PeId::new(pe), shared: shared.clone(), reader };
            let mail = ModelMail { inbox, net: Rc::clone(&net) };
            let clock = ModelClock(Rc::clone(&now_ns));
            Pe::new(PeId::new(pe), shared.clone(), Box::new(mail), Box::new(clock))
        };
        Model {
            case,
            pes: readers.into_iter().enumerate().map(pe).collect(),
            net,
            now_ns,
            rng: Rng::new(case.seed),
            choices: 0,
            is_idle: vec![false; case.pe_count],
            work_speeds: vec![1; case.pe_count],
            lane_speeds: vec![1; lane_count],
            shared,
        }
    }

    fn start<F, Fut, R>(&self, main: F)
    where
        F: FnOnce(Runtime) -> Fut,
        Fut: Future<Output = R> + Send + 'static,
        R: MainOutput,
    {
        self.on(0, |pe| start_main(pe, main));
    }

    /// Does something on a PE, as the thread of it would.
    fn on<V: Default>(&self, pe: usize, f: impl FnOnce(&Pe) -> V) -> V {
        let pe = &self.pes[pe];
        let _on_pe = OnPe::enter(pe);
        caught::catch(pe, || f(pe)).unwrap_or_else(|panic| {
            pe.end_step();
            pe.tell(&panic);
            V::default()
        })
    }

    fn is_over(&self) -> bool {
        self.shared.is_stopping()
    }

    fn is_possible(&self, choice: Choice) -> bool {
        match choice {
            Choice::Work(pe) => !self.is_idle[pe],
            Choice::Arrival(lane) => !self.net.lanes.borrow()[lane].is_empty(),
        }
    }

    fn is_anything_possible(&self) -> bool {
        self.is_idle.contains(&false) || self.net.lanes.borrow().iter().any(|lane| !lane.is_empty())
    }

    /// Does what has been chosen, which is possible.
    fn act(&mut self, choice: Choice) {
        match choice {
            Choice::Work(pe) => {
                self.net.trace(|| format!("PE {pe} goes on"));
                self.is_idle[pe] = !self.on(pe, |pe| pe.work::<false>(1));
            }
            Choice::Arrival(lane) => self.arrive(lane),
        }
        self.choices += 1;
        assert!(self.choices < MAX_CHOICES, "it goes on and on");
        if self.case.end_after == Some(self.choices) {
            self.shared.stop(Reason::Exit(0));
        }
    }

    fn choose(&mut self) -> Option<Choice> {
        if self.rng.once_in(SPELL) {
            let Model { rng, work_speeds, lane_speeds, .. } = self;
            let speeds = work_speeds.iter_mut().chain(lane_speeds);
            speeds.for_each(|speed| *speed = SPEEDS[rng.below(SPEEDS.len())]);
        }
        let (lanes, drawn) = (self.lane_speeds.len(), self.rng.next());
        let works = (0..self.pes.len()).map(|pe| (Choice::Work(pe), self.work_speeds[pe]));
        let arrivals = (0..lanes).map(|lane| (Choice::Arrival(lane), self.lane_speeds[lane]));
        let possible = works.chain(arrivals).filter(|(choice, _)| self.is_possible(*choice));
        let total: u64 = possible.clone().map(|(_, speed)| speed).sum();
        let mut drawn = drawn.checked_rem(total)?;
        let mut chosen = possible.skip_while(|(_, speed)| {
            let is_passed = drawn >= *speed;
            drawn = drawn.saturating_sub(*speed);
            is_passed
        });
        chosen.next().map(|(choice, _)| choice)
    }

    fn arrive(&mut self, lane: usize) {
        let to = lane % self.case.pe_count;
        let msg = {
            let lane = &mut self.net.lanes.borrow_mut()[lane];
            let place = if self.case.order == Order::Chaos { self.rng.below(lane.len()) } else { 0 };
            lane.remove(place).expect("something is on its way there")
        };
        self.net.trace(|| format!("PE {to} gets {} from PE {}", Named(&msg), lane / self.case.pe_count));
        self.shared.push(PeId::new(to), msg);
        self.is_idle[to] = !self.on(to, Pe::receive);
    }

    /// What happens when all PEs are idle and nothing is on its way.
    fn rest(&mut self) {
        for pe in 0..self.pes.len() {
            self.is_idle[pe] = !self.on(pe, |pe| pe.tasks.settle_doubts(pe));
        }
        if self.is_idle.contains(&false) {
            return;
        }
        self.net.trace(|| "all rest".to_owned());
        self.pes.iter().for_each(quiescence::announce_idle);
        let verdict = self.on(0, |pe| Some(quiescence::judge(pe)));
        self.pes.iter().for_each(quiescence::announce_active);
        match verdict {
            Some(Verdict::Answered) => self.is_idle[0] = false,
            Some(Verdict::Quiescent) => self.fire_next(),
            verdict => panic!("nothing is on its way, but the board says {verdict:?}"),
        }
    }

    fn fire_next(&mut self) {
        let next = self.pes.iter().filter_map(|pe| pe.timers.next_deadline_ns()).min();
        self.now_ns.set(next.expect("only timers and the outside keep a run from being judged"));
        for pe in 0..self.pes.len() {
            self.on(pe, |pe| pe.timers.fire(pe, pe.now_ns()));
            self.is_idle[pe] = false;
        }
    }

    /// Ends the run as its threads would, and says how it ended.
    fn conclude(mut self) -> ExitReport {
        let hang = self.dismantle();
        ExitReport::new(self.shared.take_reason(), hang, None, None)
    }

    /// Returns the hang report, if it hung.
    fn dismantle(&mut self) -> String {
        let hang = HangReport::new(self.pes.len(), true);
        // If there is a reason, that stays.
        self.shared.stop(Reason::Returned);
        let hangs = matches!(self.shared.lock_reason().as_deref(), Some(Reason::Hang));
        if hangs {
            (0..self.pes.len()).for_each(|pe| self.on(pe, |pe| hang.tell(pe)));
            (0..self.pes.len()).for_each(|pe| self.on(pe, |pe| hang.write(pe)));
        }
        for (lane, msgs) in self.net.lanes.take().into_iter().enumerate() {
            msgs.into_iter().for_each(|msg| self.shared.push(PeId::new(lane % self.case.pe_count), msg));
        }
        (0..self.pes.len()).for_each(|pe| self.on(pe, Pe::dismantle));
        (0..self.pes.len()).for_each(|pe| self.on(pe, Pe::drain));
        self.pes.clear();
        assert_eq!(Arc::strong_count(&self.shared), 1, "nothing keeps a run that has ended");
        hang.into_text()
    }
}
