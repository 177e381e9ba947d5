//! Constructors: plain or coroutines, with arguments, and what happens when one fails.

use chare::prelude::*;

use super::{PES, run};

/// Asks others while it is constructed.
struct Late {
    sum: u64,
}

#[chare(index = usize)]
impl Late {
    async fn new(cx: &Cx<Self>, sources: Group<Source>, add: u64) -> Result<Self> {
        let mut sum = add;
        for pe in cx.pes() {
            sum += sources.on(pe).next().await?;
        }
        Ok(Late { sum })
    }

    #[entry]
    fn sum(&self) -> u64 {
        self.sum
    }
}

struct Source(u64);

#[chare]
impl Source {
    fn new(every: u64) -> Self {
        Source(every)
    }

    #[entry]
    fn next(&self) -> u64 {
        self.0
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_constructor_may_wait_for_others(rt: Runtime) -> Result<()> {
    let sources = rt.group::<Source>().create(3).await?;
    let lates = rt.array::<Late>(50).create((sources, 100)).await?;
    assert_eq!(lates.sum().gather().await?, vec![100 + 3 * rt.num_pes() as u64; 50]);
    let early = rt.array::<Late>(50).create((sources, 200)).send();
    assert_eq!(early.at(49).sum().await?, 200 + 3 * rt.num_pes() as u64);
    Ok(())
}

/// How a constructor shall end.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
enum End {
    Well,
    Error,
    Panic,
}

fn end(end: End) -> Result<(), String> {
    match end {
        End::Well => Ok(()),
        End::Error => Err("no room".into()),
        End::Panic => panic!("no nerve"),
    }
}

/// One element ends its constructor as it is told.
struct Plain;

#[chare(index = usize)]
impl Plain {
    fn new(cx: &Cx<Self>, at: usize, how: End) -> Result<Self, String> {
        end(if cx.index() == at { how } else { End::Well }).map(|()| Plain)
    }
}

/// The same as a coroutine and single chare.
struct Slow;

#[chare]
impl Slow {
    async fn new(cx: &Cx<Self>, how: End) -> Result<Self> {
        let source = cx.single::<Source>().create(1).await?;
        source.next().await?;
        end(how)?;
        Ok(Slow)
    }

    #[entry]
    fn nothing(&self) {}
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_error_of_a_constructor_reaches_who_awaits_the_creation(rt: Runtime) -> Result<()> {
    for at in [0, 15] {
        let error = rt.array::<Plain>(16).create((at, End::Error)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("Plain[{at}].new failed: no room"));
        let error = rt.array::<Plain>(16).create((at, End::Panic)).await.unwrap_err();
        assert!(matches!(&error, CallError::Panicked(panicked) if panicked.message == "no nerve"), "{error}");
        assert!(error.to_string().contains(&format!("Plain[{at}].new panicked at {}", file!())), "{error}");
    }
    for pe in rt.pes() {
        let error = rt.single::<Slow>().on_pe(pe).create(End::Error).await.unwrap_err();
        assert_eq!(error.to_string(), "Slow.new failed: no room");
        let error = rt.single::<Slow>().on_pe(pe).create(End::Panic).await.unwrap_err();
        assert!(error.to_string().contains("Slow.new panicked"), "{error}");
    }
    rt.single::<Slow>().create(End::Well).await?.nothing().await?;
    assert!(rt.group::<Slow>().create(End::Error).await.is_err());
    Ok(())
}

#[test]
fn the_error_of_a_constructor_that_nobody_awaits_ends_the_program() {
    for pes in PES {
        for how in [End::Error, End::Panic] {
            let report = run(pes, async move |rt: Runtime| {
                rt.array::<Plain>(16).create((15, how)).send();
                rt.sleep(std::time::Duration::MAX).await;
            });
            assert_eq!(report.code(), 1, "{report}");
            assert!(report.to_string().contains("Plain[15].new"), "{report}");
            let report = run(pes, async move |rt: Runtime| {
                rt.group::<Slow>().create(how).send();
                rt.sleep(std::time::Duration::MAX).await;
            });
            assert_eq!(report.code(), 1, "{report}");
            assert!(report.to_string().contains(".new"), "{report}");
        }
    }
}

/// Hands its own proxy out, then waits for the key and fails.
struct Doomed;

#[chare(index = usize)]
impl Doomed {
    async fn new(cx: &Cx<Self>, key: Promise<(Array<Doomed>, Promise<()>)>) -> Result<Self> {
        if cx.index() == 9 {
            let (open, opened) = cx.promise();
            key.send((cx.array(), open))?;
            opened.await?;
            end(End::Error)?;
        }
        Ok(Doomed)
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> usize {
        cx.index()
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn calls_of_a_chare_whose_constructor_failed_are_refused(rt: Runtime) -> Result<()> {
    let (key, handed_out) = rt.promise();
    let waiter = rt.single::<Waiter>().create(()).await?;
    let creation = waiter.create_doomed(key).future();
    let (doomed, open) = handed_out.await?;
    let (before, all_before) = (doomed.at(9).place().future(), doomed.place().gather_results());
    rt.quiescence().await?;
    open.send(())?;
    assert!(creation.await.unwrap_err().to_string().contains("Doomed[9].new failed"));
    let (after, all_after) = (doomed.at(9).place().future(), doomed.place().gather_results());
    for outcome in [before.await, after.await] {
        assert_eq!(outcome.unwrap_err().to_string(), "Doomed[9].new failed: no room");
    }
    // It is no element of the array.
    for outcomes in [all_before.await?, all_after.await?] {
        let indexes: Vec<_> =
            outcomes.into_iter().map(|outcome| outcome.expect("all others are well")).collect();
        assert_eq!(indexes, (0..16).filter(|index| *index != 9).collect::<Vec<_>>());
    }
    Ok(())
}

/// Awaits a creation that fails.
struct Waiter;

#[chare]
impl Waiter {
    fn new() -> Self {
        Waiter
    }

    #[entry]
    async fn create_doomed(this: This<Self>, key: Promise<(Array<Doomed>, Promise<()>)>) -> Result<()> {
        let rt: &Runtime = &this;
        rt.array::<Doomed>(16).create(key).await?;
        Ok(())
    }
}

/// Opens a channel, sends and contributes while it is constructed; a coroutine if it is of the second type.
struct Early {
    from_left: Channel<usize>,
}

impl Early {
    fn begin(cx: &Cx<Self>, count: usize, sum: Promise<usize>) -> Result<Self> {
        let element = |index: usize| cx.array().at(index % count);
        cx.channel(&element(cx.index() + 1), 0).send(cx.index())?;
        cx.contribute(cx.index(), reduce::Sum, sum);
        Ok(Early { from_left: cx.channel(&element(cx.index() + count - 1), 0) })
    }
}

#[chare(index = usize)]
impl Early {
    async fn new(cx: &Cx<Self>, count: usize, sum: Promise<usize>, waits: bool) -> Result<Self> {
        if waits {
            cx.sleep(std::time::Duration::from_millis(1)).await;
        }
        Early::begin(cx, count, sum)
    }

    #[entry]
    async fn receive(&mut self) -> Result<usize> {
        Ok(self.from_left.recv().await?)
    }

    #[entry]
    async fn sum(this: This<Self>) -> Result<usize> {
        Ok(this.allreduce(1, reduce::Sum).await?)
    }
}

/// As [`Early`], with a constructor that runs at once.
struct Prompt(Channel<usize>);

#[chare(index = usize)]
impl Prompt {
    fn new(cx: &Cx<Self>, count: usize, sum: Promise<usize>) -> Result<Self> {
        let channel = cx.channel(&cx.array().at((cx.index() + 1) % count), 0);
        channel.send(cx.index())?;
        cx.contribute(cx.index(), reduce::Sum, sum);
        Ok(Prompt(cx.channel(&cx.array().at((cx.index() + count - 1) % count), 0)))
    }

    #[entry]
    async fn receive(&mut self) -> Result<usize> {
        Ok(self.0.recv().await?)
    }

    #[entry]
    async fn sum(this: This<Self>) -> Result<usize> {
        Ok(this.allreduce(1, reduce::Sum).await?)
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_constructor_may_open_channels_send_and_contribute(rt: Runtime) -> Result<()> {
    let count = 20;
    let from_left: Vec<usize> = (0..count).map(|index| (index + count - 1) % count).collect();
    for waits in [false, true] {
        let (sum, total) = rt.promise();
        let early = rt.array::<Early>(count).create((count, sum, waits)).await?;
        assert_eq!(total.await?, count * (count - 1) / 2);
        assert_eq!(early.receive().gather().await?, from_left);
        assert_eq!(early.sum().gather().await?, vec![count; count]);
    }
    let (sum, total) = rt.promise();
    let prompt = rt.array::<Prompt>(count).create((count, sum)).await?;
    assert_eq!(total.await?, count * (count - 1) / 2);
    assert_eq!(prompt.receive().gather().await?, from_left);
    assert_eq!(prompt.sum().gather().await?, vec![count; count]);
    Ok(())
}
