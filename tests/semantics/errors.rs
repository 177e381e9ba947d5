//! Errors that nobody awaits, where the program decides what becomes of them; and warnings of mailboxes that grow.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex};

use chare::prelude::*;
use chare::{ExitReport, MailboxWarning, MainOutput, Options, Sim, Unawaited, Warning};

use super::PES;

#[derive(Default)]
struct Cup {
    sips: u64,
}

#[chare(index = usize)]
impl Cup {
    fn new() -> Self {
        Cup::default()
    }

    #[entry]
    fn spill(&self, what: String) -> Result<(), String> {
        Err(what)
    }

    /// Spills what the cup of this index has.
    #[entry]
    fn spill_from(&self, cx: &Cx<Self>, index: usize) -> Result<usize, String> {
        if cx.index() == index { Err("from that one".into()) } else { Ok(cx.index()) }
    }

    #[entry]
    fn break_up(&self) {
        panic!("in pieces");
    }

    #[entry]
    fn sip(&mut self) {
        self.sips += 1;
    }

    #[entry]
    fn sips(&self) -> u64 {
        self.sips
    }

    /// Sips later, many times.
    #[entry]
    fn sip_often(&self, cx: &Cx<Self>, count: u64) {
        let own = cx.array().at(cx.index());
        (0..count).for_each(|_| own.sip().send());
    }

    /// Owns the cup until the key is used.
    #[entry]
    async fn hold(&mut self, cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<()> {
        let (open, opened) = cx.promise();
        key.send(open)?;
        Ok(opened.await?)
    }

    /// Tells who decides on this PE whom to call.
    #[entry]
    fn is_called_on_errors(&self, cx: &Cx<Self>) {
        CALLED.set(Some(((**cx).clone(), cx.array().at(0))));
    }

    #[entry]
    fn is_called_no_more(&self) {
        CALLED.take();
    }

    #[entry]
    fn puzzle(&self) -> Result<(), Riddle> {
        Err(Riddle)
    }

    #[entry]
    async fn spill_later(this: This<Self>, key: Promise<Promise<()>>) -> Result<()> {
        let (open, opened) = this.promise();
        key.send(open)?;
        opened.await?;
        Err("later".into())
    }
}

thread_local! {
    /// What a PE, whose thread this is, uses when it decides upon an error: the run, and whom it calls.
    static CALLED: RefCell<Option<(Runtime, Element<Cup>)>> = const { RefCell::new(None) };
}

/// An error that cannot be told.
#[derive(Debug)]
struct Riddle;

impl fmt::Display for Riddle {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no words for it")
    }
}

impl std::error::Error for Riddle {}

/// Is constructed when the key is used, or fails.
struct Late;

#[chare(index = usize)]
impl Late {
    async fn new(cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<Self> {
        let (open, opened) = cx.promise();
        key.send(open)?;
        opened.await?;
        Ok(Late)
    }

    #[entry]
    fn poke(&self) {}
}

/// The same, single.
struct Alone;

#[chare]
impl Alone {
    async fn new(cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<Self> {
        let (open, opened) = cx.promise();
        key.send(open)?;
        opened.await?;
        Ok(Alone)
    }

    #[entry]
    fn poke(&self) {}
}

struct Stillborn;

#[chare]
impl Stillborn {
    fn new() -> Result<Self, String> {
        Err("no room".into())
    }

    #[entry]
    fn poke(&self) {}
}

/// What listeners have heard.
type Heard<T> = Arc<Mutex<Vec<T>>>;

fn hear<T>(heard: &Heard<T>, what: T) {
    heard.lock().expect("no listener panics with the lock").push(what);
}

fn taken<T>(heard: &Heard<T>) -> Vec<T> {
    std::mem::take(&mut heard.lock().expect("no listener panics with the lock"))
}

fn run_with<F, Fut, R>(pes: usize, options: Options, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut + Send,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    crate::run_with(options.with_pes(pes), main)
}

/// Runs a program whose unawaited errors meet `fate`; brings its end and their texts, sorted.
fn decided<F, Fut>(pes: usize, fate: Unawaited, main: F) -> (ExitReport, Vec<String>)
where
    F: FnOnce(Runtime) -> Fut + Send,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let heard = Heard::default();
    let options = Options::default().on_unawaited({
        let heard = heard.clone();
        move |error| {
            hear(&heard, error.to_string());
            fate
        }
    });
    let report = run_with(pes, options, main);
    let mut heard = taken(&heard);
    heard.sort();
    (report, heard)
}

#[test]
fn every_kind_of_error_is_decided_upon_once() {
    for pes in PES {
        let (report, heard) = decided(pes, Unawaited::Ignore, async |rt: Runtime| {
            let cups = rt.array::<Cup>(8).create(()).await?;
            cups.at(7).spill("tea".into()).send();
            cups.at(6).break_up().send();
            rt.quiescence().await?;
            cups.at(6).sip().send();
            cups.at(8).sip().send();
            cups.spill("all".into()).send();
            rt.single::<Stillborn>().create(()).send();
            let (key, waiting) = rt.promise();
            let given_up = cups.at(5).spill_later(key).future();
            let open = waiting.await?;
            drop(given_up);
            open.send(())?;
            rt.quiescence().await?;
            assert!(cups.at(4).spill("awaited".into()).await.is_err());
            cups.at(7).sip().await?;
            assert_eq!(cups.at(7).sips().await?, 1);
            Ok(())
        });
        assert!(report.is_success() && report.to_string().is_empty(), "{report}");
        let expect = |text: &str, count: usize| {
            let there = heard.iter().filter(|error| error.contains(text)).count();
            assert_eq!(there, count, "{text}: {heard:#?}");
        };
        expect("Cup[7].spill failed: tea", 1);
        expect("in pieces", 3);
        expect("was poisoned", 2);
        expect("Cup has no element [8]", 1);
        expect("spill failed: all", 7);
        expect("Stillborn.new failed: no room", 1);
        expect("Cup[5].spill_later failed: later", 1);
        assert_eq!(heard.len(), 14, "{heard:#?}");
    }
}

#[test]
fn an_error_of_a_gathering_that_is_given_up_is_decided_upon_wherever_it_arose() {
    for (processes, seed) in
        [1, 2, 4].into_iter().flat_map(|processes| (0..10).map(move |seed| (processes, seed)))
    {
        let heard = Heard::default();
        let sim = Sim::new(seed).with_processes(processes, 1);
        let options = Options::default().simulate(sim).on_unawaited({
            let heard = heard.clone();
            move |error| {
                hear(&heard, error.to_string());
                Unawaited::Ignore
            }
        });
        let report = run_with(4, options, async |rt: Runtime| {
            let cups = rt.array::<Cup>(8).create(()).await?;
            drop(cups.spill_from(7).gather());
            drop(cups.spill_from(0).gather_results());
            rt.quiescence().await?;
            // Whoever awaits it gets it, and nobody else.
            assert!(cups.spill_from(6).gather().await.is_err());
            assert_eq!(
                cups.spill_from(6).gather_results().await?.into_iter().filter(Result::is_err).count(),
                1
            );
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        let mut heard = taken(&heard);
        heard.sort();
        let told = |index| format!("Cup[{index}].spill_from failed: from that one");
        assert_eq!(heard, [told(0), told(7)], "{processes} processes, seed {seed}");
    }
}

#[test]
fn an_error_that_is_to_end_the_run_ends_it() {
    for pes in PES {
        let (report, heard) = decided(pes, Unawaited::End, async |rt: Runtime| {
            let cups = rt.array::<Cup>(8).create(()).await?;
            cups.at(7).spill("tea".into()).send();
            rt.sleep(std::time::Duration::MAX).await;
            Ok(())
        });
        assert_eq!(
            (report.code(), heard.as_slice()),
            (1, ["Cup[7].spill failed: tea".to_owned()].as_slice())
        );
        assert!(matches!(report.unawaited(), Some(CallError::Failed(_))), "{report}");
    }
}

#[test]
fn an_error_that_arose_before_the_end_is_decided_upon_nevertheless() {
    for pes in PES {
        for (fate, code) in [(Unawaited::End, 1), (Unawaited::Ignore, 0)] {
            let (report, heard) = decided(pes, fate, async |rt: Runtime| {
                let cups = rt.array::<Cup>(8).create(()).await?;
                let spill = cups.at(0).spill("tea".into()).future();
                rt.quiescence().await?;
                drop(spill);
                Ok(())
            });
            assert_eq!((report.code(), heard.len()), (code, 1), "{report}");
            assert_eq!(report.unawaited().is_some(), code == 1, "{report}");
        }
    }
}

#[test]
fn a_reported_error_is_a_warning_and_spoils_the_end() {
    for pes in PES {
        let heard = Heard::default();
        let options = Options::default().on_unawaited(|_| Unawaited::Report).on_warning({
            let heard = heard.clone();
            move |warning| match warning {
                Warning::Unawaited(error) => hear(&heard, (error.to_string(), warning.to_string())),
                other => panic!("{other}"),
            }
        });
        let report = run_with(pes, options.clone(), async |rt: Runtime| {
            let cups = rt.array::<Cup>(8).create(()).await?;
            // Both are in one process, on two PEs where that can be: each process says how many it has reported.
            let other = if crate::is_spread(&rt) { 6 } else { 3 };
            cups.at(other).spill("tea".into()).send();
            cups.at(7).spill("tea".into()).send();
            rt.quiescence().await?;
            assert_eq!(cups.at(7).sips().await?, 0, "the run goes on");
            Result::<()>::Ok(())
        });
        assert_eq!(
            (report.code(), report.to_string()),
            (1, "error: 2 errors that nobody awaited were reported".to_owned())
        );
        let warnings = taken(&heard);
        assert_eq!(warnings.len(), 2);
        for (error, text) in warnings {
            assert_eq!(text, format!("error: {error} (nobody awaited the call; the program goes on)"));
        }
        // The program's own end counts if it is not a good one.
        let report = run_with(pes, options, async |rt: Runtime| {
            let cups = rt.array::<Cup>(8).create(()).await?;
            cups.at(7).spill("tea".into()).send();
            rt.quiescence().await?;
            rt.exit(7);
            Result::<()>::Ok(())
        });
        assert_eq!((report.code(), taken(&heard).len()), (7, 1));
    }
}

#[test]
fn an_error_without_words_is_reported_too() {
    let options = Options::default().on_unawaited(|_| Unawaited::Report);
    let report = run_with(2, options, async |rt: Runtime| {
        rt.array::<Cup>(8).create(()).await?.at(7).puzzle().send();
        rt.quiescence().await
    });
    assert_eq!(
        (report.code(), report.to_string()),
        (1, "error: an error that nobody awaited was reported".to_owned())
    );
}

#[test]
fn who_decides_may_use_the_runtime_and_is_where_the_error_arose() {
    for pes in PES {
        let heard = Heard::default();
        let options = Options::default().on_unawaited({
            let heard = heard.clone();
            move |_| {
                CALLED.with_borrow(|called| {
                    let (rt, cup) = called.as_ref().expect("set before the first error");
                    hear(&heard, rt.my_pe().index());
                    cup.sip().send();
                });
                Unawaited::Ignore
            }
        });
        let report = run_with(pes, options, async move |rt: Runtime| {
            let cups = rt.array::<Cup>(rt.num_pes()).create(()).await?;
            cups.is_called_on_errors().await?;
            cups.spill("all".into()).send();
            rt.quiescence().await?;
            assert_eq!(cups.at(0).sips().await?, rt.num_pes() as u64);
            cups.is_called_no_more().await?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        let mut pes_heard = taken(&heard);
        pes_heard.sort_unstable();
        assert_eq!(pes_heard, (0..pes).collect::<Vec<_>>());
    }
}

#[test]
fn a_panic_of_who_decides_or_listens_ends_the_run() {
    for pes in PES {
        let decides = Options::default().on_unawaited(|_| panic!("no decision"));
        let listens =
            Options::default().on_unawaited(|_| Unawaited::Report).on_warning(|_| panic!("not listening"));
        for (options, words) in [(decides, "no decision"), (listens, "not listening")] {
            let report = run_with(pes, options, async |rt: Runtime| {
                rt.array::<Cup>(8).create(()).await?.at(7).spill("tea".into()).send();
                rt.sleep(std::time::Duration::MAX).await;
                Result::<()>::Ok(())
            });
            assert_eq!(report.code(), 1, "{report}");
            let text = report.to_string();
            assert!(text.contains(words) && text.contains(file!()), "{text}");
        }
    }
}

#[test]
fn an_error_of_another_thread_is_decided_upon_by_a_pe() {
    for pes in PES {
        let (report, heard) = decided(pes, Unawaited::Ignore, async |rt: Runtime| {
            let cups = rt.array::<Cup>(8).create(()).await?;
            let handle = rt.handle();
            let thread = std::thread::spawn(move || {
                let _entered = handle.enter();
                cups.at(8).sip().send();
            });
            thread.join().expect("it only sends");
            Ok(rt.quiescence().await?)
        });
        assert!(report.is_success(), "{report}");
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].contains("Cup has no element [8]"), "{heard:?}");
    }
}

#[test]
fn errors_of_main_end_the_run_whatever_is_decided() {
    for pes in PES {
        let (report, heard) = decided(pes, Unawaited::Ignore, async |rt: Runtime| {
            rt.quiescence().await?;
            Err("main's own".into())
        });
        assert_eq!((report.code(), heard.len()), (1, 0), "{report}");
        let (report, heard) = decided(pes, Unawaited::Ignore, async |rt: Runtime| {
            rt.quiescence().await?;
            panic!("main's own")
        });
        assert_eq!((report.code(), heard.len()), (1, 0), "{report}");
    }
}

/// What a program with this budget is warned of.
fn warnings_of<F, Fut>(pes: usize, budget: usize, main: F) -> Vec<MailboxWarning>
where
    F: FnOnce(Runtime) -> Fut + Send,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let heard = Heard::default();
    let options = Options::default().with_mailbox_budget(budget).on_warning({
        let heard = heard.clone();
        move |warning| match warning {
            Warning::Mailbox(warning) => hear(&heard, warning.clone()),
            other => panic!("{other}"),
        }
    });
    let report = run_with(pes, options, main);
    assert!(report.is_success(), "{report}");
    taken(&heard)
}

#[test]
fn a_queue_that_grows_is_warned_of_each_time_it_doubles() {
    for pes in PES {
        let main = async |rt: Runtime| {
            let cups = rt.array::<Cup>(8).create(()).await?;
            // The second one is within what the first one was warned of, 100 doubled until it was enough.
            for count in [1000, 1500, 3000] {
                cups.at(7).sip_often(count).await?;
                rt.quiescence().await?;
            }
            Ok(())
        };
        let warnings = warnings_of(pes, 100, main);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for (warning, least) in warnings.iter().zip([900, 2900]) {
            assert_eq!((warning.pe.index(), &warning.held_for, warning.budget), (pes - 1, &None, 100));
            assert!(warning.count >= least && warning.most[0].0 == "Cup.sip", "{warning:?}");
            assert!(warning.most[0].1 >= least && warning.most.len() <= 3, "{warning:?}");
            let text = Warning::Mailbox(warning.clone()).to_string();
            assert_eq!(text.lines().count(), 1);
            let words = ["wait for their turns on PE", "budget of 100", "Cup.sip", "--mailbox-budget"];
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        assert_eq!(warnings_of(pes, 0, main), [], "no budget");
        assert_eq!(warnings_of(pes, 10_000, main), [], "within the budget");
    }
}

/// The counts of warnings of what is held, which name who it is held for and the entry.
fn held(warnings: &[MailboxWarning], who: &str, what: &str) -> Vec<usize> {
    let held: Vec<_> = warnings.iter().filter(|warning| warning.held_for.is_some()).collect();
    for warning in &held {
        assert_eq!(warning.held_for.as_deref(), Some(who));
        assert_eq!(warning.most, [(what.to_owned(), warning.count)]);
    }
    held.iter().map(|warning| warning.count).collect()
}

#[test]
fn what_is_held_for_a_chare_is_warned_of() {
    for pes in PES {
        let warnings = warnings_of(pes, 100, async |rt: Runtime| {
            let cups = rt.array::<Cup>(8).create(()).await?;
            let (key, waiting) = rt.promise();
            cups.at(6).hold(key).send();
            let open = waiting.await?;
            (0..250).for_each(|_| cups.at(6).sip().send());
            // By broadcast too.
            (0..200).for_each(|_| cups.sip().send());
            rt.quiescence().await?;
            open.send(())?;
            rt.quiescence().await?;
            assert_eq!(cups.at(6).sips().await?, 450);
            Ok(())
        });
        let counts = held(&warnings, "Cup[6], which an exclusive coroutine owns", "Cup.sip");
        assert_eq!(counts, [101, 201, 401]);
    }
}

#[test]
fn what_is_held_for_an_unborn_chare_is_warned_of() {
    for pes in PES {
        let warnings = warnings_of(pes, 10, async |rt: Runtime| {
            let (key, waiting) = rt.promises(2);
            let lates = rt.array::<Late>(2).create(key).send();
            let opens = waiting.await?;
            (0..15).for_each(|_| lates.at(1).poke().send());
            rt.quiescence().await?;
            opens.into_iter().try_for_each(|open| open.send(()))?;
            Ok(lates.at(1).poke().await?)
        });
        assert_eq!(held(&warnings, "Late[1], whose constructor has not ended", "Late.poke"), [11]);
        let warnings = warnings_of(pes, 10, async |rt: Runtime| {
            let (key, waiting) = rt.promise();
            let late = rt.single::<Alone>().create(key).send();
            let open = waiting.await?;
            (0..15).for_each(|_| late.poke().send());
            rt.quiescence().await?;
            open.send(())?;
            Ok(late.poke().await?)
        });
        assert_eq!(held(&warnings, "a singleton whose constructor has not ended", "Alone.poke"), [11]);
    }
}

struct Picky {
    is_ready: bool,
}

#[chare(index = usize)]
impl Picky {
    fn new() -> Self {
        Picky { is_ready: false }
    }

    #[entry(when = |s: &Self| s.is_ready)]
    fn take(&mut self, _number: u64) {}

    #[entry]
    fn be_ready(&mut self) {
        self.is_ready = true;
    }
}

#[test]
fn calls_that_wait_for_a_condition_are_warned_of() {
    for pes in PES {
        let warnings = warnings_of(pes, 100, async |rt: Runtime| {
            let picky = rt.array::<Picky>(8).create(()).await?;
            for number in 0..150 {
                picky.at(5).take(number).send();
                rt.quiescence().await?;
            }
            picky.at(5).be_ready().await?;
            Ok(())
        });
        assert_eq!(held(&warnings, "Picky[5], until conditions of its entries hold", "Picky.take"), [101]);
    }
}
