//! What goes wrong with conditions: they panic, or never hold; their chare is poisoned, or the run ends.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use chare::prelude::*;
use chare::{ExitReport, HANG_EXIT_CODE};

use super::super::{PES, run};

/// `file:line` of the line of this file that ends with `// here: <mark>`.
fn place(mark: &str) -> String {
    let mark = format!("// here: {mark}");
    let line = include_str!("failures.rs").lines().position(|line| line.ends_with(&mark));
    format!("{}:{}", file!(), 1 + line.expect("the mark stands in this file"))
}

/// A tag that panics when it is asked to, and cannot be shown.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Fuse {
    value: u32,
    blows: Blows,
}

#[derive(Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
enum Blows {
    Never,
    Compared,
    Hashed,
}

impl PartialEq for Fuse {
    fn eq(&self, other: &Self) -> bool {
        assert!(self.blows != Blows::Compared && other.blows != Blows::Compared, "compared");
        self.value == other.value
    }
}

impl Eq for Fuse {}

impl Hash for Fuse {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(self.blows != Blows::Hashed, "hashed");
        self.value.hash(state);
    }
}

macro_rules! shaky {
    ($name:ident, #[$chare:meta]) => {
        struct $name {
            level: u32,
            fuse: Fuse,
            ran: Vec<u32>,
        }

        #[$chare]
        impl $name {
            fn new() -> Self {
                $name { level: 0, fuse: Fuse { value: 0, blows: Blows::Never }, ran: Vec::new() }
            }

            #[entry]
            fn set(&mut self, level: u32) {
                self.level = level;
            }

            #[entry]
            fn set_fuse(&mut self, value: u32, blows: Blows) {
                self.fuse = Fuse { value, blows };
            }

            #[entry]
            fn ran(&self) -> Vec<u32> {
                self.ran.clone()
            }

            #[entry]
            fn blow(&mut self) {
                panic!("blown");
            }

            /// Panics without having touched the state.
            #[entry]
            async fn blow_apart(this: This<Self>) {
                panic!("blown apart {}", this.my_pe());
            }

            #[entry(when = |s: &Self| {
                                                                        assert!(s.level != 13, "level 13");
                                                                        s.level > 0
                                                                    })]
            fn on_state(&mut self, number: u32) -> u32 {
                self.ran.push(number);
                number
            }

            #[entry(when = |s: &Self, number: &u32| 1000 / (13 - s.level) > 0 && s.level >= *number)]
            fn on_call(&mut self, number: u32) -> u32 {
                self.ran.push(number);
                number
            }

            #[entry(when(self.fuse == fuse))]
            fn on_tag(&mut self, fuse: Fuse) -> u32 {
                self.ran.push(fuse.value);
                fuse.value
            }

            #[entry(when = |s: &Self| s.level > 0)]
            fn fail(&self) -> Result<()> {
                Err("as it was told")?
            }

            #[entry(when = |s: &Self| s.level > 0)]
            fn blow_later(&mut self) {
                panic!("blown later");
            }
        }
    };
}

shaky!(Shaky, #[chare(index = usize)]);
shaky!(Tough, #[chare(index = usize, keep_after_panic)]);

/// Puts all elements on the last PE, which may be in another process than main.
struct Last;

impl chare::Placement<usize> for Last {
    fn pe(&self, _: &usize, pe_count: usize) -> usize {
        pe_count - 1
    }
}

#[track_caller]
fn panicked(error: CallError, words: &[&str]) {
    let CallError::Panicked(panicked) = &error else { panic!("{error}") };
    assert!(panicked.location.contains("failures.rs") && panicked.element == "[0]", "{error}");
    assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
}

#[track_caller]
fn poisoned(error: CallError, words: &[&str]) {
    assert!(matches!(error, CallError::Poisoned(_)), "{error}");
    assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
}

#[chare::test(pes = [1, 2, 4])]
async fn a_condition_that_panics_at_arrival_is_a_panic_of_the_call(rt: Runtime) -> Result<()> {
    let shaky = rt.array::<Shaky>(1).map(Last).create(()).await?.at(0);
    shaky.set(13).await?;
    panicked(shaky.on_state(1).await.expect_err("it panics"), &["Shaky[0].on_state", "level 13"]);
    poisoned(shaky.ran().await.expect_err("it is poisoned"), &["Shaky.on_state", "level 13"]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4], unsimulated = "plain messages are taken to come in order")]
async fn a_condition_that_panics_later_is_a_panic_of_the_oldest_call(rt: Runtime) -> Result<()> {
    let shaky = rt.array::<Shaky>(1).map(Last).create(()).await?.at(0);
    let (first, second) = (shaky.on_state(1).future(), shaky.on_state(2).future());
    let other = shaky.on_call(3).future();
    rt.quiescence().await?;
    shaky.set(13).await?;
    panicked(first.await.expect_err("it panics"), &["level 13"]);
    poisoned(second.await.expect_err("it is poisoned"), &["level 13"]);
    poisoned(other.await.expect_err("it is poisoned"), &["level 13"]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_chare_that_is_kept_after_panics_keeps_what_it_keeps(rt: Runtime) -> Result<()> {
    let tough = rt.array::<Tough>(1).map(Last).create(()).await?.at(0);
    let all = [tough.on_call(14).future(), tough.on_state(1).future(), tough.on_call(3).future()];
    let kept = tough.on_tag(Fuse { value: 5, blows: Blows::Never }).future();
    rt.quiescence().await?;
    tough.set(13).await?;
    for call in all {
        panicked(call.await.expect_err("its own condition panics"), &[]);
    }
    panicked(tough.on_state(1).await.expect_err("at once"), &["level 13"]);
    tough.set_fuse(5, Blows::Never).await?;
    assert_eq!(kept.await?, 5);
    assert_eq!(tough.ran().await?, [5]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn tags_may_panic(rt: Runtime) -> Result<()> {
    let tough = rt.array::<Tough>(1).map(Last).create(()).await?.at(0);
    tough.set_fuse(1, Blows::Never).await?;
    for (blows, word) in [(Blows::Compared, "compared"), (Blows::Hashed, "hashed")] {
        let call = tough.on_tag(Fuse { value: 2, blows });
        panicked(call.await.expect_err("at arrival"), &["on_tag", word]);
    }
    let (first, second) = (Fuse { value: 2, blows: Blows::Never }, Fuse { value: 3, blows: Blows::Never });
    let [second, first, again] =
        [second.clone(), first, second].map(|fuse| (fuse.value, tough.on_tag(fuse).future()));
    rt.quiescence().await?;
    tough.set_fuse(2, Blows::Hashed).await?;
    for (_, call) in [second, first, again] {
        panicked(call.await.expect_err("one after another"), &["on_tag", "hashed"]);
    }
    tough.set_fuse(4, Blows::Never).await?;
    let kept = tough.on_tag(Fuse { value: 6, blows: Blows::Never }).future();
    tough.set_fuse(6, Blows::Never).await?;
    assert_eq!(kept.await?, 6);
    assert_eq!(tough.ran().await?, [6]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_poisoned_chare_refuses_what_it_keeps(rt: Runtime) -> Result<()> {
    let array = rt.array::<Shaky>(3).create(()).await?;
    for index in 0..3 {
        let shaky = array.at(index);
        let calls = [shaky.on_state(1).future(), shaky.on_call(2).future(), shaky.on_call(3).future()];
        let tagged = shaky.on_tag(Fuse { value: 9, blows: Blows::Never }).future();
        rt.quiescence().await?;
        let blown = match index {
            0 => shaky.blow().await,
            1 => shaky.blow_apart().await,
            _ => {
                let blown = shaky.blow_later().future();
                shaky.set(1).await?;
                blown.await
            }
        };
        assert!(matches!(blown, Err(CallError::Panicked(_))));
        let [first, second, third] = calls;
        if index < 2 {
            poisoned(first.await.expect_err("refused"), &["was poisoned", "blown"]);
        } else {
            assert_eq!(first.await?, 1, "it came before the one that panics");
        }
        for call in [second, third, tagged] {
            poisoned(call.await.expect_err("refused"), &["was poisoned", "blown"]);
        }
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn an_error_of_a_kept_call_arrives(rt: Runtime) -> Result<()> {
    let shaky = rt.array::<Shaky>(1).map(Last).create(()).await?.at(0);
    let call = shaky.fail().future();
    rt.quiescence().await?;
    shaky.set(1).await?;
    let error = call.await.expect_err("it fails");
    assert!(matches!(error, CallError::Failed(_)) && error.to_string().contains("as it was told"), "{error}");
    Ok(())
}

#[test]
fn a_condition_that_panics_with_nobody_waiting_ends_the_run() {
    for pes in PES {
        for is_kept in [false, true] {
            let report = run(pes, async move |rt: Runtime| {
                let shaky = rt.array::<Shaky>(1).map(Last).create(()).await?.at(0);
                if !is_kept {
                    shaky.set(13).await?;
                }
                shaky.on_state(1).send();
                shaky.set(13).send();
                rt.quiescence().await?;
                Result::<()>::Ok(())
            });
            assert_eq!(report.code(), 1, "{report}");
            assert!(report.to_string().contains("Shaky[0].on_state panicked"), "{report}");
        }
    }
}

#[test]
fn what_a_poisoned_chare_keeps_for_nobody_ends_the_run() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let shaky = rt.array::<Shaky>(1).map(Last).create(()).await?.at(0);
            shaky.on_state(1).send();
            rt.quiescence().await?;
            shaky.blow().await.expect_err("it panics");
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert!(matches!(report.unawaited(), Some(CallError::Poisoned(_))), "{report}");
    }
}

/// Holds what it is given.
#[derive(Default)]
struct Keeper {
    is_open: bool,
    step: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Unshown(u32);

#[derive(Default)]
struct Doors {
    keeper: Keeper,
    unshown: Option<Unshown>,
}

#[chare(index = usize)]
impl Doors {
    fn new() -> Self {
        Doors::default()
    }

    #[entry(when = |s: &Self| s.keeper.is_open)]
    fn open(&self, _held: Arc<()>) {} // here: open

    #[entry(when = |s: &Self, step: &u32, _: &Arc<()>| s.keeper.step > *step)]
    fn after(&self, _step: u32, _held: Arc<()>) {} // here: after

    #[entry(when(self.keeper.step == step))]
    fn exactly(&self, _step: u32, _held: Arc<()>) {} // here: exactly

    #[entry(when(key == self.unshown))]
    async fn unshown(_this: This<Self>, _key: Option<Unshown>, _held: Arc<()>) {} // here: unshown

    #[entry]
    fn count(&self, to: Promise<()>) -> Result<()> {
        Ok(to.send(())?)
    }

    #[entry(when = |s: &Self| s.keeper.is_open)]
    fn exit(&self, cx: &Cx<Self>) {
        cx.exit(7);
    }

    #[entry]
    fn unlock(&mut self) {
        self.keeper.is_open = true;
    }
}

#[track_caller]
fn expect(report: &ExitReport, words: &[&str]) {
    assert_eq!(report.code(), HANG_EXIT_CODE, "{report}");
    let text = report.hang().expect("a hang has a report");
    assert!(
        text.lines().any(|line| words.iter().all(|word| line.contains(word))),
        "no line has all of {words:?}:\n{report}"
    );
}

#[test]
fn a_condition_that_never_holds_is_in_the_hang_report() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let doors = rt.array::<Doors>(5).create(()).await?;
            let door = doors.at(4);
            let held = Arc::new(());
            for step in 2..14 {
                door.exactly(step, held.clone()).send();
                door.after(step, held.clone()).send();
                door.unshown(Some(Unshown(step)), held.clone()).send();
                rt.quiescence().await?;
            }
            door.exactly(2, held.clone()).send();
            doors.open(held).await?; // here: broadcast
            Result::<()>::Ok(())
        });
        expect(&report, &["main", "the end of Doors.open on all elements", &place("broadcast")]);
        for index in 0..5 {
            let words = [
                &*format!("1 call of Doors.open ({}) for Doors[{index}]", place("open")),
                "s.keeper.is_open",
            ];
            expect(&report, &words);
        }
        expect(&report, &["12 calls of Doors.after", &place("after"), "Doors[4]", "s.keeper.step > *step"]);
        let tags = "(there: 0; wanted: 2, 3, 4, 5, 6, 7, 8, 9 and 4 more)";
        expect(&report, &["13 calls of Doors.exactly", &place("exactly"), "self.keeper.step == step", tags]);
        expect(&report, &["12 calls of Doors.unshown", &place("unshown"), "kept until key == self.unshown"]);
    }
}

/// A tag whose text panics.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Shy(u32);

impl std::fmt::Debug for Shy {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("never show this")
    }
}

struct Hidden(Shy);

#[chare]
impl Hidden {
    fn new() -> Self {
        Hidden(Shy(0))
    }

    #[entry(when(self.0 == key))]
    fn find(&self, _key: Shy) {}
}

#[test]
fn a_tag_whose_text_panics_is_left_out_of_the_report() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            rt.single::<Hidden>().create(()).await?.find(Shy(1)).await?;
            Result::<()>::Ok(())
        });
        expect(&report, &["1 call of Hidden.find", "kept until self.0 == key"]);
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn what_is_kept_does_not_hold_up_quiescence(rt: Runtime) -> Result<()> {
    let doors = rt.array::<Doors>(9).create(()).await?;
    let mut kept = Vec::new();
    let mut opens = Vec::new();
    for index in 0..9 {
        let door = doors.at(index);
        kept.extend([door.after(5, Arc::default()).future(), door.exactly(5, Arc::default()).future()]);
        opens.push(door.open(Arc::default()).future());
    }
    let (to, counted) = rt.promises(9);
    doors.count(to).send();
    rt.quiescence().await?;
    assert!(counted.is_ready(), "what is not kept has run");
    counted.await?;
    assert!(kept.iter().chain(&opens).all(|call| !call.is_ready()), "all are kept");
    doors.unlock().await?;
    rt.quiescence().await?;
    assert!(opens.iter().all(|call| call.is_ready()), "their conditions hold");
    assert!(kept.iter().all(|call| !call.is_ready()));
    Ok(())
}

#[test]
fn what_is_kept_at_the_end_is_dropped() {
    for pes in PES {
        let held = Arc::new(());
        let mine = held.clone();
        let report = run(pes, async move |rt: Runtime| {
            let doors = rt.array::<Doors>(9).create(()).await?;
            for step in 0..100 {
                doors.after(step, mine.clone()).send();
                doors.exactly(1 + step, mine.clone()).send();
                doors.unshown(Some(Unshown(step % 7)), mine.clone()).send();
            }
            doors.open(mine).send();
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn nothing_more_runs_when_the_run_ends() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let doors = rt.array::<Doors>(1).create(()).await?.at(0);
            for _ in 0..3 {
                doors.exit().send();
                doors.open(Arc::new(())).send();
            }
            rt.quiescence().await?;
            doors.unlock().send();
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 7, "{report}");
    }
}
