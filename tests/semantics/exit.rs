//! How a program ends: by main's return or error, by `exit` and `abort` from anywhere; the first reason counts.

use chare::prelude::*;
use chare::{CallFuture, ExitReport, ExitWith};
use futures::future::poll_immediate;

use super::{PES, is_spread, run};

struct Ender;

#[chare]
impl Ender {
    fn new() -> Self {
        Ender
    }

    #[entry]
    fn exit(&self, cx: &Cx<Self>, code: i32) {
        cx.exit(code);
        cx.exit(code + 1);
    }

    #[entry]
    fn fail(&self) -> Result<(), String> {
        Err("a call's".to_owned())
    }

    /// The outcome of a call, as a future that was made here.
    #[entry]
    fn fail_there(&self, cx: &Cx<Self>, outcome: Promise<CallFuture<()>>) -> Result<()> {
        Ok(outcome.send(cx.this().fail().future())?)
    }

    #[entry]
    async fn abort(&self, cx: &Cx<Self>) {
        cx.abort(format!("PE {} has had enough", cx.my_pe()));
    }

    /// Sends messages without end.
    #[entry]
    fn run_for_ever(&self, cx: &Cx<Self>) {
        let next = (cx.index() + 1) % cx.num_pes();
        if let Some(group) = cx.group() {
            group.on(next).run_for_ever().send();
        }
    }
}

#[test]
fn returning_is_success() {
    for pes in PES {
        let report = run(pes, async |_| ());
        assert!(report.is_success() && report.code() == 0 && report.to_string().is_empty(), "{report}");
        let report = run(pes, async |_| Result::<()>::Ok(()));
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn an_error_of_main_is_told() {
    for pes in PES {
        let report = run(pes, async |_| "12x".parse::<u32>().map(drop));
        assert_eq!((report.code(), report.to_string().as_str()), (1, "error: invalid digit found in string"));
        assert!(report.main_error().is_some_and(|error| error.is::<std::num::ParseIntError>()));
        let report = run(pes, async |_| Result::<()>::Err(ExitWith::usage("no such file").into()));
        assert_eq!((report.code(), report.to_string().as_str()), (2, "error: no such file"));
        let silent = ExitWith { code: 77, message: String::new() };
        let report = run(pes, async |_| Result::<()>::Err(silent.into()));
        assert_eq!((report.code(), report.to_string().as_str()), (77, ""));
    }
}

/// Outcomes of calls that have failed, which nobody has taken: of this PE, of the last, and of a call that was made on the last, whose
/// future does not leave its process.
async fn failures(rt: &Runtime) -> Result<Vec<CallFuture<()>>> {
    let group = rt.group::<Ender>().create(()).await?;
    let last = group.on(rt.num_pes() - 1);
    let mut failures = vec![group.on(0).fail().future(), last.fail().future()];
    if !is_spread(rt) {
        let (to, there) = rt.promise();
        last.fail_there(to).await?;
        let mut there = there.await?;
        if rt.num_pes() > 1 {
            assert!(poll_immediate(&mut there).await.is_none(), "it asks");
        }
        failures.push(there);
    }
    rt.quiescence().await?;
    Ok(failures)
}

#[test]
fn an_error_of_main_is_not_hidden_by_what_it_drops() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let _failures = failures(&rt).await?;
            Result::<()>::Err("main's own".into())
        });
        assert_eq!((report.code(), report.to_string().as_str()), (1, "error: main's own"));
        let report = run(pes, async |rt: Runtime| {
            let _failures = failures(&rt).await;
            if rt.num_pes() > 0 {
                panic!("main's own");
            }
        });
        let text = report.to_string();
        assert!(report.code() == 1 && text.contains("main's own") && !text.contains("a call's"), "{text}");
    }
}

#[test]
fn what_main_drops_ends_the_run_badly_if_main_does_not() {
    for pes in PES {
        for goes_on in [false, true] {
            let report = run(pes, async move |rt: Runtime| {
                drop(failures(&rt).await?);
                if goes_on {
                    rt.promise::<()>().1.await?;
                }
                Result::<()>::Ok(())
            });
            let text = report.to_string();
            assert!(report.code() == 1 && text.contains("Ender"), "{text}");
            assert!(report.unawaited().is_some() && text.contains("a call's"), "{text}");
        }
    }
}

#[test]
fn exit_ends_the_program_from_any_pe() {
    for pes in PES {
        for (pe, code) in [(0, 0), (0, 5), (pes - 1, 0), (pes - 1, 300), (pes - 1, -1)] {
            let report = run(pes, async move |rt: Runtime| {
                let group = rt.group::<Ender>().create(()).await?;
                group.run_for_ever().send();
                group.on(pe).exit(code).send();
                rt.promise::<()>().1.await?;
                Result::<()>::Ok(())
            });
            assert_eq!(report.code(), code, "{report}");
            assert_eq!(report.is_success(), code == 0);
            assert_eq!(report.to_string(), "");
        }
    }
}

#[test]
fn exit_in_main_is_not_undone_by_returning() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| rt.exit(9));
        assert_eq!(report.code(), 9);
    }
}

#[test]
fn abort_says_why() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let group = rt.group::<Ender>().create(()).await?;
            group.run_for_ever().send();
            group.on(pes - 1).abort().await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1);
        let text = report.to_string();
        assert!(text.contains("aborted") && text.contains("has had enough"), "{text}");
    }
}

#[test]
fn returning_ends_what_still_runs() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            rt.group::<Ender>().create(()).await?.run_for_ever().send();
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
    }
}

fn somebody_has_had_enough(report: &ExitReport) {
    assert_eq!(report.code(), 1);
    assert!(report.to_string().contains("has had enough"), "{report}");
}

/// A test that is about another end than a good one looks at the report itself, however it is run.
#[chare::test(pes = [1, 2, 4, 8], ends = somebody_has_had_enough)]
async fn a_test_looks_at_the_end_of_its_run(rt: Runtime) -> Result<()> {
    let group = rt.group::<Ender>().create(()).await?;
    Ok(group.on(rt.num_pes() - 1).abort().await?)
}

#[chare::test(ends = |report| assert!(!report.is_success(), "it has ended well"))]
#[should_panic(expected = "it has ended well")]
async fn a_test_whose_end_is_another_one_fails(_: Runtime) {}
