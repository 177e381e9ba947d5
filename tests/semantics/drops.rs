//! Destructors: those of chares, coroutines, messages and values run exactly once, those of a PE on its own thread, and
//! nothing that a run has made outlives it, however it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chare::ExitReport;
use chare::prelude::*;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{PES, run};

/// Counts values that live, that were made, and that were dropped where they should not have been. It is known by its number, also to the
/// other processes of a run, which are inside of this one.
#[derive(Clone, Copy)]
struct Census(usize);

#[derive(Default)]
struct Counts {
    live: AtomicI64,
    made: AtomicU64,
    astray: AtomicU64,
}

static ALL: Mutex<Vec<&'static Counts>> = Mutex::new(Vec::new());

impl Census {
    fn new() -> Self {
        let mut all = ALL.lock().expect("nobody panics with the lock");
        all.push(Box::leak(Box::default()));
        Census(all.len() - 1)
    }

    fn counts(self) -> &'static Counts {
        ALL.lock().expect("nobody panics with the lock")[self.0]
    }

    fn make(self) -> Tracked {
        self.counts().live.fetch_add(1, Ordering::SeqCst);
        self.counts().made.fetch_add(1, Ordering::SeqCst);
        Tracked(self)
    }

    fn live(self) -> i64 {
        self.counts().live.load(Ordering::SeqCst)
    }

    /// Checks that all of many values are gone.
    #[track_caller]
    fn close(self, at_least: u64) {
        assert_eq!(self.live(), 0, "values outlive the run, or were dropped twice");
        let Counts { made, astray, .. } = self.counts();
        let (made, astray) = (made.load(Ordering::SeqCst), astray.load(Ordering::SeqCst));
        assert!(made >= at_least, "only {made} values were made");
        assert_eq!(astray, 0, "values of a PE were dropped elsewhere");
    }
}

struct Tracked(Census);

impl Clone for Tracked {
    fn clone(&self) -> Self {
        self.0.make()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.0.counts().live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What another process makes of it is another value.
impl Serialize for Tracked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tracked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Census(usize::deserialize(deserializer)?).make())
    }
}

/// A value that must be dropped on the PE that it was made on.
struct AtHome(Runtime, PeId, Tracked);

impl AtHome {
    fn new(rt: &Runtime, value: Tracked) -> Self {
        AtHome(rt.clone(), rt.my_pe(), value)
    }
}

impl Drop for AtHome {
    fn drop(&mut self) {
        let here = catch_unwind(AssertUnwindSafe(|| self.0.my_pe()));
        if here.ok() != Some(self.1) {
            self.2.0.counts().astray.fetch_add(1, Ordering::SeqCst);
        }
    }
}

struct Holder {
    own: AtHome,
    kept: Vec<Tracked>,
}

#[chare(index = usize)]
impl Holder {
    fn new(cx: &Cx<Self>, value: Tracked) -> Self {
        Holder { own: AtHome::new(cx, value), kept: Vec::new() }
    }

    #[entry]
    fn take(&self, _value: Tracked) -> Tracked {
        self.own.2.clone()
    }

    #[entry]
    fn keep(&mut self, value: Tracked) {
        self.kept.push(value);
    }

    #[entry]
    async fn park(this: This<Self>, value: Tracked) -> Result<()> {
        let own = AtHome::new(&this, value);
        let (_promise, never) = this.promise::<()>();
        never.await?;
        drop(own);
        Ok(())
    }

    #[entry]
    async fn park_exclusively(&mut self, cx: &Cx<Self>, value: Tracked) -> Result<()> {
        let own = AtHome::new(cx, value);
        let (_promise, never) = cx.promise::<()>();
        never.await?;
        drop(own);
        Ok(())
    }

    /// Sends into a channel that nobody reads, beyond its window.
    #[entry]
    fn stuff(&self, cx: &Cx<Self>, value: Tracked) {
        let channel = cx.channel(&cx.array().at(0), 0);
        for _ in 0..2000 {
            channel.send(value.clone()).expect("the backlog is larger");
        }
    }

    /// Contributes to a reduction that is never complete.
    #[entry]
    fn contribute_most(&self, cx: &Cx<Self>, value: Tracked, to: Promise<Vec<Tracked>>) {
        if cx.index() > 0 {
            cx.contribute(value, reduce::Gather, to);
        }
    }

    /// Passes a value on for ever.
    #[entry]
    fn pass_on(&self, cx: &Cx<Self>, value: Tracked) {
        let next = (cx.index() + 7) % cx.array().shape();
        cx.array().at(next).pass_on(value).send();
    }

    #[entry]
    fn crash(&self, _value: Tracked) {
        panic!("on purpose");
    }
}

/// Leaves values in every place that can hold one.
async fn fill(rt: &Runtime, census: Census) -> Result<Array<Holder>> {
    let holders = rt.array::<Holder>(20).create(census.make()).await?;
    holders.park(census.make()).send();
    holders.at(3).park_exclusively(census.make()).send();
    holders.at(19).park_exclusively(census.make()).send();
    holders.stuff(census.make()).send();
    holders.keep(census.make()).send();
    let (to, parts) = rt.promise();
    holders.contribute_most(census.make(), to).send();
    let (unread, value) = rt.promise();
    assert!(unread.send(census.make()).is_ok());
    let late = rt.group::<Late>().create(census.make()).send();
    late.take(census.make()).send();
    rt.quiescence().await?;
    std::mem::forget((parts, value));
    Ok(holders)
}

/// Its constructor never ends.
struct Late;

#[chare]
impl Late {
    async fn new(cx: &Cx<Self>, value: Tracked) -> Result<Self> {
        let own = AtHome::new(cx, value);
        let (_promise, never) = cx.promise::<()>();
        never.await?;
        drop(own);
        Ok(Late)
    }

    #[entry]
    fn take(&self, _value: Tracked) {}
}

/// Runs a program that fills all places and then ends as `end` says.
fn filled(pes: usize, end: fn(&Runtime, Array<Holder>, Census)) -> (ExitReport, Census) {
    let census = Census::new();
    let report = run(pes, async move |rt: Runtime| {
        let holders = fill(&rt, census).await?;
        end(&rt, holders, census);
        let (_promise, never) = rt.promise::<()>();
        Result::<()>::Ok(never.await?)
    });
    (report, census)
}

#[test]
fn nothing_outlives_an_exit() {
    for pes in PES {
        let (report, census) = filled(pes, |rt, _, _| rt.exit(0));
        assert!(report.is_success(), "{report}");
        census.close(20_000);
    }
}

#[test]
fn nothing_outlives_a_hang() {
    for pes in PES {
        let (report, census) = filled(pes, |_, _, _| ());
        assert_eq!(report.code(), chare::HANG_EXIT_CODE);
        census.close(20_000);
    }
}

#[test]
fn nothing_outlives_a_panic() {
    for pes in PES {
        let (report, census) = filled(pes, |_, holders, census| holders.at(12).crash(census.make()).send());
        assert_eq!(report.code(), 1);
        census.close(20_000);
    }
}

#[test]
fn messages_in_flight_are_dropped_with_the_run() {
    for pes in PES {
        let (report, census) = filled(pes, |rt, holders, census| {
            for index in (0..20).cycle().take(500) {
                holders.at(index).pass_on(census.make()).send();
            }
            holders.pass_on(census.make()).send();
            rt.exit(0);
        });
        assert!(report.is_success(), "{report}");
        census.close(20_500);
    }
}

#[test]
fn messages_that_go_round_are_dropped_when_main_returns() {
    for pes in PES {
        let census = Census::new();
        let report = run(pes, async move |rt: Runtime| {
            let holders = rt.array::<Holder>(20).create(census.make()).await?;
            (0..500).for_each(|number| holders.at(number % 20).pass_on(census.make()).send());
            rt.sleep(Duration::from_millis(2)).await;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        census.close(500);
    }
}

#[test]
fn a_hundred_thousand_parked_coroutines_are_dropped() {
    for pes in PES {
        let census = Census::new();
        let report = run(pes, async move |rt: Runtime| {
            let holders = rt.array::<Holder>(20).create(census.make()).await?;
            (0..100_000).for_each(|number| holders.at(number % 20).park(census.make()).send());
            Result::<()>::Ok(rt.quiescence().await?)
        });
        assert!(report.is_success(), "{report}");
        census.close(100_000);
    }
}

async fn use_arguments_and_values(rt: Runtime) -> Result<()> {
    let census = Census::new();
    let holders = rt.array::<Holder>(20).create(census.make()).await?;
    rt.quiescence().await?;
    assert_eq!(census.live(), 20, "one for each element");
    for index in 0..20 {
        drop(holders.at(index).take(census.make()).await?);
        holders.at(index).take(census.make()).send();
        drop(holders.at(index).take(census.make()).future());
        holders.at(index).take(census.make()).to(Callback::ignore());
    }
    drop(holders.take(census.make()).gather().await?);
    holders.take(census.make()).await?;
    rt.quiescence().await?;
    assert_eq!(census.live(), 20);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "it counts in memory, which processes of MPI do not share")]
async fn arguments_and_values_are_gone_when_they_were_used(rt: Runtime) -> Result<()> {
    use_arguments_and_values(rt).await
}

#[test]
fn what_other_processes_make_of_them_is_gone_too() {
    for pes in PES {
        let report = run(pes, use_arguments_and_values);
        assert!(report.is_success(), "{report}");
    }
}

/// As long as it lives, the promise in it is not broken.
#[derive(Clone, Serialize, Deserialize)]
struct Traced(#[allow(dead_code, reason = "it is held")] Promise<()>);

struct Borrower {
    own: Traced,
}

#[chare(index = usize)]
impl Borrower {
    fn new(own: Traced) -> Self {
        Borrower { own }
    }

    #[entry]
    fn take(&self, _value: Traced) -> Traced {
        self.own.clone()
    }

    #[entry]
    fn give_back(&self, value: Traced) -> Traced {
        value
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn they_are_gone_in_all_processes(rt: Runtime) -> Result<()> {
    let trace = || {
        let (promise, gone) = rt.promise::<()>();
        (Traced(promise), gone)
    };
    let (own, own_gone) = trace();
    let borrowers = rt.array::<Borrower>(20).create(own).await?;
    for index in 0..20 {
        let (values, gone): (Vec<_>, Vec<_>) = (0..8).map(|_| trace()).unzip();
        let [a, b, c, d, e, f, g, h] = values.try_into().map_err(|_| "there are eight")?;
        let one = borrowers.at(index);
        drop(one.take(a).await?);
        drop(one.give_back(b).await?);
        one.take(c).send();
        drop(one.give_back(d).future());
        one.give_back(e).to(Callback::ignore());
        drop(borrowers.give_back(f).gather().await?);
        borrowers.take(g).await?;
        drop(borrowers.give_back(h).gather());
        rt.quiescence().await?;
        assert!(gone.iter().all(|value| value.is_ready()), "all are dropped");
        assert!(!own_gone.is_ready(), "the elements have theirs");
        for value in gone {
            assert!(matches!(value.await, Err(CallError::BrokenPromise)));
        }
    }
    Ok(())
}

#[test]
fn a_call_that_is_never_sent_drops_its_arguments() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let census = Census::new();
            let holders = rt.array::<Holder>(2).create(census.make()).await?;
            drop(holders.at(0).keep(census.make()));
            drop(holders.keep(census.make()));
            drop(rt.array::<Holder>(4).create(census.make()));
            rt.quiescence().await?;
            assert_eq!(census.live(), 2);
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
    }
}
