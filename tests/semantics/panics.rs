//! Errors and panics: they reach who waits, or end the program with a report that names chare, method and place.

use std::fmt;

use chare::prelude::*;

use super::{PES, run};

/// An error with a cause.
#[derive(Debug, PartialEq)]
struct Spilled(u32, Cause);

#[derive(Debug, PartialEq)]
struct Cause;

impl fmt::Display for Spilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spilled {} cups", self.0)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the table is not level")
    }
}

impl std::error::Error for Cause {}

impl std::error::Error for Spilled {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.1)
    }
}

/// Panics at a place that is known.
fn give_way(text: &str) {
    panic!("{text} gave way");
}

/// Where [`give_way`] panics, as `file:line`.
fn place() -> String {
    let line = include_str!("panics.rs").lines().position(|line| line.ends_with("gave way\");"));
    format!("{}:{}", file!(), 1 + line.expect("it panics in this file"))
}

macro_rules! fragile {
    ($name:ident, #[$chare:meta]) => {
        #[derive(Default)]
        struct $name {
            calls: u32,
        }

        #[$chare]
        impl $name {
            fn new() -> Self {
                $name::default()
            }

            #[entry]
            fn count(&mut self) -> u32 {
                self.calls += 1;
                self.calls
            }

            #[entry]
            fn plain(&mut self) {
                give_way("a plain method");
            }

            #[entry]
            async fn exclusive(&mut self, cx: &Cx<Self>, other: Element<$name>) -> Result<()> {
                other.count().await?;
                give_way(&format!("element {}", cx.index()));
                Ok(())
            }

            #[entry]
            async fn interleaving(this: This<Self>, other: Element<$name>) -> Result<()> {
                other.count().await?;
                this.with(|_| give_way("a closure"));
                Ok(())
            }

            #[entry]
            fn odd_payload(&self) {
                std::panic::panic_any(7_u8);
            }

            #[entry]
            fn spill(&self, cups: u32) -> Result<(), Spilled> {
                Err(Spilled(cups, Cause))
            }

            #[entry]
            async fn wait_then_spill(&self, cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<()> {
                let (open, opened) = cx.promise();
                key.send(open)?;
                opened.await?;
                Err(Spilled(2, Cause).into())
            }

            /// Keeps the chare to itself, then panics.
            #[entry]
            async fn hold_then_panic(&mut self, cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<()> {
                let (open, opened) = cx.promise();
                key.send(open)?;
                opened.await?;
                give_way("the owner");
                Ok(())
            }
        }
    };
}

fragile!(Cup, #[chare(index = usize)]);
fragile!(Mug, #[chare(index = usize, keep_after_panic)]);

async fn cups(rt: &Runtime) -> Result<Array<Cup>> {
    Ok(rt.array::<Cup>(16).create(()).await?)
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_panic_reaches_who_waits_with_its_place(rt: Runtime) -> Result<()> {
    let mugs = rt.array::<Mug>(16).create(()).await?;
    for index in [0, 15] {
        let (mug, other) = (mugs.at(index), mugs.at(7));
        let outcomes = [
            ("plain", "a plain method gave way".into(), mug.plain().await),
            ("exclusive", format!("element {index} gave way"), mug.exclusive(other).await),
            ("interleaving", "a closure gave way".into(), mug.interleaving(other).await),
        ];
        for (method, message, outcome) in outcomes {
            let Err(CallError::Panicked(panicked)) = outcome else { panic!("{method}: {outcome:?}") };
            assert_eq!((panicked.entry.chare, panicked.entry.name), ("Mug", method));
            assert_eq!((&panicked.element, &panicked.message), (&format!("[{index}]"), &message));
            assert!(panicked.location.contains(&place()), "{panicked}");
            assert!(
                panicked.to_string().starts_with(&format!("Mug[{index}].{method} panicked at ")),
                "{panicked}"
            );
        }
        let error = mug.odd_payload().await.unwrap_err();
        assert!(error.to_string().contains("a value that is no text"), "{error}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_panic_poisons_the_chare_alone(rt: Runtime) -> Result<()> {
    let cups = cups(&rt).await?;
    for (index, method, message, panicked) in [
        (0, "plain", "a plain method gave way", cups.at(0).plain().await),
        (14, "exclusive", "element 14 gave way", cups.at(14).exclusive(cups.at(3)).await),
        (15, "interleaving", "a closure gave way", cups.at(15).interleaving(cups.at(3)).await),
    ] {
        assert!(matches!(panicked, Err(CallError::Panicked(_))), "{panicked:?}");
        let outcome = cups.at(index).count().await;
        assert!(matches!(&outcome, Err(CallError::Poisoned(panic)) if panic.entry.chare == "Cup"));
        let text = outcome.expect_err("it is poisoned").to_string();
        let (begin, place) = (format!("Cup[{index}] was poisoned by a panic in Cup.{method} at "), place());
        assert!(text.starts_with(&begin) && text.contains(&place) && text.ends_with(message), "{text}");
    }
    let outcomes = cups.count().gather_results().await?;
    let poisoned: Vec<_> = (0..16).filter(|&i| matches!(outcomes[i], Err(CallError::Poisoned(_)))).collect();
    assert_eq!(poisoned, [0, 14, 15]);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 13);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_was_held_for_a_chare_that_panics_is_refused(rt: Runtime) -> Result<()> {
    let cup = cups(&rt).await?.at(15);
    let (key, locked) = rt.promise();
    let holding = cup.hold_then_panic(key).future();
    let open = locked.await?;
    let held = cup.count().future();
    rt.quiescence().await?;
    open.send(())?;
    assert!(matches!(holding.await, Err(CallError::Panicked(_))));
    assert!(matches!(held.await, Err(CallError::Poisoned(_))));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_chare_may_be_kept_after_a_panic(rt: Runtime) -> Result<()> {
    let mug = rt.array::<Mug>(16).create(()).await?.at(15);
    assert!(mug.plain().await.is_err());
    assert_eq!(mug.count().await?, 1);
    let (key, locked) = rt.promise();
    let holding = mug.hold_then_panic(key).future();
    let open = locked.await?;
    let held = mug.count().future();
    rt.quiescence().await?;
    open.send(())?;
    assert!(matches!(holding.await, Err(CallError::Panicked(_))));
    assert_eq!(held.await?, 2);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_error_reaches_who_waits_as_itself(rt: Runtime) -> Result<()> {
    let cup = cups(&rt).await?.at(15);
    let error = cup.spill(3).await.unwrap_err();
    // What comes from another process is its text.
    let itself = if super::is_spread(&rt) { None } else { Some(&Spilled(3, Cause)) };
    assert_eq!(error.downcast_ref(), itself);
    assert_eq!(error.to_string(), "Cup[15].spill failed: spilled 3 cups: the table is not level");
    assert_eq!(cup.count().await?, 1, "an error does not poison");
    Ok(())
}

/// Something that is done to an array of cups.
type Begin = fn(Array<Cup>);

/// Runs a program that waits for ever, and must be ended by the error of what `begin` does.
fn ended_by(pes: usize, begin: Begin) -> chare::ExitReport {
    run(pes, async move |rt: Runtime| {
        begin(cups(&rt).await?);
        rt.sleep(std::time::Duration::MAX).await;
        Result::<()>::Ok(())
    })
}

#[test]
fn a_panic_that_nobody_awaits_ends_the_program() {
    let begin: [(&str, Begin); 4] = [
        ("Cup[15].plain", |cups| cups.at(15).plain().send()),
        ("Cup[14].exclusive", |cups| cups.at(14).exclusive(cups.at(0)).send()),
        ("Cup[0].interleaving", |cups| cups.at(0).interleaving(cups.at(1)).send()),
        (".plain", |cups| cups.plain().send()),
    ];
    for pes in PES {
        for (who, begin) in begin {
            let report = ended_by(pes, begin);
            let text = report.to_string();
            assert_eq!(report.code(), 1, "{text}");
            assert!(matches!(report.unawaited(), Some(CallError::Panicked(_))), "{text}");
            assert!(["panicked", "gave way", &place(), who].iter().all(|word| text.contains(word)), "{text}");
        }
    }
}

#[test]
fn an_error_that_nobody_awaits_ends_the_program() {
    for pes in PES {
        let report = ended_by(pes, |cups| cups.at(15).spill(4).send());
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("Cup[15].spill failed: spilled 4 cups: the table"), "{report}");
        let report = ended_by(pes, |cups| cups.at(16).count().send());
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("Cup has no element [16]"), "{report}");
    }
}

#[test]
fn the_error_of_a_call_that_was_given_up_ends_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let cup = cups(&rt).await?.at(15);
            let (key, waiting) = rt.promise();
            let given_up = cup.wait_then_spill(key).future();
            let open = waiting.await?;
            drop(given_up);
            open.send(())?;
            rt.sleep(std::time::Duration::MAX).await;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("spilled 2 cups"), "{report}");
    }
}

#[test]
fn a_panic_of_main_ends_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            rt.quiescence().await?;
            give_way("main");
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1, "{report}");
        let text = report.to_string();
        assert!(["main gave way", &place()].iter().all(|word| text.contains(word)), "{text}");
    }
}
