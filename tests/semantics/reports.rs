//! What the hang report names beyond the coroutines themselves: who holds up a reduction, chares of other PEs by their
//! names, chares that have panicked; and how long it gets.

use std::sync::Mutex;

use chare::prelude::*;

use super::{PES, run};

/// The hang report of a program that must hang.
fn hang_of<F, Fut>(pes: usize, main: F) -> String
where
    F: FnOnce(Runtime) -> Fut + Send,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let report = run(pes, main);
    report.hang().unwrap_or_else(|| panic!("at {pes} PEs it must hang: {report}")).to_owned()
}

/// Checks that one line has all of these words.
#[track_caller]
fn expect(report: &str, words: &[&str]) {
    let found = report.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(found, "no line has all of {words:?}:\n{report}");
}

/// `file:line` of the line of this file that ends with `// here: <mark>`.
fn place(mark: &str) -> String {
    let mark = format!("// here: {mark}");
    let line = include_str!("reports.rs").lines().position(|line| line.ends_with(&mark));
    format!("{}:{}", file!(), 1 + line.expect("the mark stands in this file"))
}

/// Keeps the writing ends of what coroutines wait for.
type Ends = Shared<Mutex<Vec<Promise<()>>>>;

/// Which elements are never there.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Flaw {
    fails: usize,
    waits: usize,
    /// Gets the array, which an awaited creation that fails does not bring.
    array: Promise<Array<Giver>>,
}

/// Contributes when told to.
struct Giver;

#[chare(index = usize)]
impl Giver {
    async fn new(cx: &Cx<Self>, flaw: Option<Flaw>) -> Result<Self> {
        let Some(flaw) = flaw else { return Ok(Giver) };
        if cx.index() == 0 {
            flaw.array.send(cx.array())?;
        }
        if cx.index() == flaw.fails {
            return Err("no more givers".into());
        }
        if cx.index() == flaw.waits {
            cx.promise::<()>().1.await?;
        }
        Ok(Giver)
    }

    #[entry]
    fn give(&self, cx: &Cx<Self>, times: usize, to: Promise<u64>) {
        (0..times).for_each(|_| cx.contribute(1_u64, reduce::Sum, &to));
    }

    #[entry]
    fn panic(&self) {
        panic!("the giver broke"); // here: giver
    }

    #[entry]
    fn send_to(&self, cx: &Cx<Self>, to: usize, count: usize) -> Result<()> {
        let channel = cx.channel(&cx.array().at(to), 3);
        (0..count).try_for_each(|value| Ok(channel.send(value)?))
    }

    #[entry]
    async fn receive_from(this: This<Self>, from: usize) -> Result<()> {
        let channel = this.channel::<usize, _>(&this.array().at(from), 4);
        channel.recv().await?;
        Ok(())
    }

    /// Keeps the chare to itself.
    #[entry]
    async fn hold(&mut self, cx: &Cx<Self>) -> Result<()> {
        cx.promise::<()>().1.await?;
        Ok(())
    }

    #[entry]
    async fn park(this: This<Self>, ends: Ends) -> Result<()> {
        let (promise, value) = this.promise(); // here: park
        ends.lock().map_err(|_| "nobody panics with the lock")?.push(promise);
        Ok(value.await?)
    }

    /// Waits for many promises at once.
    #[entry]
    async fn park_on_many(this: This<Self>) -> Result<()> {
        let (promises, values): (Vec<_>, Vec<_>) = (0..500).map(|_| this.promise::<()>()).unzip(); // here: many
        futures::future::join_all(values).await;
        drop(promises);
        Ok(())
    }
}

async fn givers(rt: &Runtime, count: usize) -> Result<Array<Giver>> {
    Ok(rt.array::<Giver>(count).create(None).await?)
}

#[test]
fn a_reduction_names_who_is_missing_wherever_it_lives() {
    for pes in PES {
        for missing in 0..4 {
            let report = hang_of(pes, async move |rt| {
                let (givers, (to, sum)) = (givers(&rt, 4).await?, rt.promise());
                (0..4).filter(|&i| i != missing).for_each(|i| givers.at(i).give(1, to.clone()).send());
                sum.await?;
                Ok(())
            });
            let who = format!("missing here: [{missing}]");
            expect(&report, &["reduction 0 of Giver", "3 of 4 elements have contributed", &who]);
            assert_eq!(report.matches("reduction").count(), 1, "{report}");
        }
    }
}

#[test]
fn pes_where_nobody_has_contributed_name_their_elements_too() {
    for pes in PES {
        let report = hang_of(pes, async |rt| {
            let (givers, (to, sum)) = (givers(&rt, 16).await?, rt.promise());
            givers.at(0).give(1, to).send();
            sum.await?;
            Ok(())
        });
        (1..16).for_each(|i| expect(&report, &["1 of 16 elements have contributed", &format!("[{i}]")]));
    }
}

#[test]
fn missing_elements_and_reductions_are_limited() {
    for pes in PES {
        let report = hang_of(pes, async |rt| {
            let (givers, (to, sum)) = (givers(&rt, 4000).await?, rt.promise());
            givers.at(0).give(300, to).send();
            sum.await?;
            Ok(())
        });
        expect(&report, &["reduction 0 of Giver: 1 of 4000", "[1]", "more"]);
        expect(&report, &["reduction 2 of Giver: 1 of 4000", "[1]", "more"]);
        expect(&report, &["280 more reductions of Giver"]);
        assert!(report.len() < 1 + pes * 10_000, "{} bytes", report.len());
    }
}

#[test]
fn reductions_of_many_collections_are_limited() {
    for pes in PES {
        let report = hang_of(pes, async |rt| {
            let (to, sum) = rt.promise();
            for _ in 0..60 {
                givers(&rt, 16).await?.at(0).give(1, to.clone()).send();
            }
            drop(to);
            sum.await?;
            Ok(())
        });
        assert_eq!(report.matches("1 of 16 elements have contributed").count(), 20 * pes, "{report}");
        assert_eq!(report.matches("and 40 more reductions of Giver").count(), pes, "{report}");
    }
}

#[test]
fn a_reduction_that_is_over_is_not_named() {
    for pes in PES {
        let report = hang_of(pes, async |rt| {
            let (givers, (to, sum)) = (givers(&rt, 16).await?, rt.promise());
            givers.give(1, to).send();
            assert_eq!(sum.await?, 16);
            rt.promise::<()>().1.await?;
            Ok(())
        });
        assert!(!report.contains("reduction"), "{report}");
    }
}

#[test]
fn elements_that_can_never_contribute_are_named_with_the_reason() {
    for pes in PES {
        let report = hang_of(pes, async |rt| {
            let ((tell, array), (to, sum)) = (rt.promise(), rt.promise());
            let flaw = Flaw { fails: 13, waits: 14, array: tell };
            let creation = async { rt.array::<Giver>(16).create(Some(flaw)).await };
            let rest = async {
                let givers = array.await?;
                rt.quiescence().await?;
                assert!(givers.at(12).panic().await.is_err());
                (0..12).for_each(|i| givers.at(i).give(1, to.clone()).send());
                drop(to);
                sum.await
            };
            futures::future::join(creation, rest).await.1?;
            Ok(())
        });
        // 13 is no element: its constructor has failed, which is told apart.
        let begin = "reduction 0 of Giver: 12 of 15 elements have contributed";
        expect(&report, &[begin, "[12] (poisoned)"]);
        expect(&report, &["Giver[13].new failed"]);
        assert!(!report.contains("[13] ("), "{report}");
        expect(&report, &[begin, "[14] (its constructor has not ended)"]);
        expect(&report, &[begin, "[15]"]);
        let words =
            ["Giver[12] was poisoned by a panic in Giver.panic at", &place("giver"), "the giver broke"];
        expect(&report, &words);
    }
}

#[test]
fn a_singleton_of_another_pe_has_its_name() {
    for pes in PES {
        let report = hang_of(pes, async |rt| {
            let last = rt.num_pes() - 1;
            let idle = rt.single::<Other>().on_pe(last).create(None).await?;
            let asker = rt.single::<Asker>().on_pe(0).create(()).await?;
            asker.receive(idle).send();
            asker.fill(idle).send();
            rt.single::<Asker>().on_pe(last).create(()).await?.hang().await?; // here: hang
            Ok(())
        });
        expect(&report, &["main", "waits for the outcome of Asker.hang at", &place("hang")]);
        expect(&report, &["Asker.receive", "waits for a value from Other in channel 1"]);
        expect(&report, &["Asker.fill", "waits for credit from Other in channel 2"]);
        expect(&report, &["held: 1024 values for Other in channel 2 from Asker, which it has not opened"]);
    }
}

#[test]
fn a_singleton_that_is_not_there_is_described() {
    for pes in PES {
        for fails in [false, true] {
            let report = hang_of(pes, async move |rt| {
                let (tell, other) = rt.promise();
                let start = Some(Start { fails, proxy: tell });
                let creation = rt.single::<Other>().on_pe(rt.num_pes() - 1).create(start);
                let rest = async {
                    let other = other.await?;
                    rt.single::<Asker>().on_pe(0).create(()).await?.receive(other).await
                };
                futures::future::join(creation, rest).await.1?;
                Ok(())
            });
            if fails {
                expect(
                    &report,
                    &["Asker.receive", "a value from Other (its constructor failed) in channel 1"],
                );
                expect(&report, &["Other.new failed: not today"]);
            } else {
                let words = ["Asker.receive", "a value from a singleton whose constructor has not ended"];
                expect(&report, &words);
            }
        }
    }
}

#[test]
fn many_coroutines_that_wait_alike_are_counted() {
    for pes in PES {
        let ends = Shared::new(Mutex::new(Vec::new()));
        let report = hang_of(pes, async move |rt| {
            let givers = givers(&rt, 3000).await?;
            for _ in 0..2 {
                givers.park(ends.clone()).send();
            }
            givers.at(1).park_on_many().send();
            givers.at(2).park(ends).await?;
            Ok(())
        });
        let named = report.lines().filter(|line| line.contains("].park (")).count();
        let counted: usize = report
            .lines()
            .filter(|line| line.contains("more coroutines of Giver.park ("))
            .map(|line| {
                assert!(line.contains("wait for a promise at") && line.contains(&place("park")), "{line}");
                line.split_whitespace()
                    .nth(1)
                    .and_then(|count| count.parse::<usize>().ok())
                    .expect("a number")
            })
            .sum();
        assert_eq!(named + counted, 6001, "{report}");
        assert!((10 * pes..=20 * pes).contains(&named), "{named} lines are of single coroutines");
        expect(&report, &["main", "waits for the outcome of Giver[2].park"]);
        expect(&report, &["Giver[1].park_on_many", "waits for a promise at", &place("many"), "(500 times)"]);
        assert!(report.lines().all(|line| line.len() < 300), "{report}");
    }
}

#[test]
fn messages_of_one_kind_do_not_hide_those_of_another() {
    for pes in PES {
        let report = hang_of(pes, async |rt| {
            let ends = Shared::new(Mutex::new(Vec::new()));
            let givers = givers(&rt, 1000).await?;
            givers.hold().send();
            rt.quiescence().await?;
            givers.park(ends).send();
            rt.quiescence().await?;
            let others = self::givers(&rt, 8).await?;
            others.at(0).send_to(7, 5).await?;
            givers.at(7).hold().await?;
            Ok(())
        });
        expect(&report, &["held: Giver.park for Giver[0], which an exclusive coroutine owns"]);
        expect(&report, &["held: 5 values for Giver[7] in channel 3 from Giver[0], which it has not opened"]);
        expect(&report, &["more like these"]);
    }
}

#[test]
fn a_channel_to_a_chare_that_has_panicked_says_so() {
    for pes in PES {
        let report = hang_of(pes, async |rt| {
            let givers = givers(&rt, 16).await?;
            assert!(givers.at(15).panic().await.is_err());
            givers.at(2).receive_from(15).await?;
            Ok(())
        });
        expect(
            &report,
            &["Giver[2].receive_from", "waits for a value from Giver[15] (poisoned) in channel 4"],
        );
        expect(&report, &["Giver[15] was poisoned by a panic in Giver.panic", &place("giver")]);
    }
}

/// How the constructor of an [`Other`] never succeeds, and who gets its proxy.
#[derive(serde::Serialize, serde::Deserialize)]
struct Start {
    fails: bool,
    proxy: Promise<Element<Other>>,
}

/// Only there to be named.
struct Other;

#[chare]
impl Other {
    async fn new(cx: &Cx<Self>, start: Option<Start>) -> Result<Self> {
        let Some(Start { fails, proxy }) = start else { return Ok(Other) };
        proxy.send(cx.this())?;
        if fails {
            return Err("not today".into());
        }
        cx.promise::<()>().1.await?;
        Ok(Other)
    }
}

/// Waits for others.
struct Asker;

#[chare]
impl Asker {
    fn new() -> Self {
        Asker
    }

    #[entry]
    async fn hang(this: This<Self>) -> Result<()> {
        this.promise::<()>().1.await?;
        Ok(())
    }

    #[entry]
    async fn receive(this: This<Self>, from: Element<Other>) -> Result<()> {
        this.channel::<u8, _>(&from, 1).recv().await?;
        Ok(())
    }

    #[entry]
    async fn fill(this: This<Self>, to: Element<Other>) -> Result<()> {
        let channel = this.channel::<u8, _>(&to, 2);
        loop {
            channel.reserve().await.send(0);
        }
    }
}
