//! Waiting for several things at once, with the combinators of the futures crate and of tokio, over everything that can be
//! awaited; and suspending in between. In `losers`, what becomes of the waits that lose; in `timeouts`, waits with a
//! limit; in `readiness`, looking without waiting.

mod losers;
mod readiness;
mod timeouts;

use std::pin::pin;
use std::time::Duration;

use chare::device::{Kernel, Launch, Out};
use chare::prelude::*;
use futures::future::{BoxFuture, Either, FutureExt, join, join_all, select, select_all, try_join_all};
use futures::stream::{self, FuturesUnordered, StreamExt};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

const FILL: Kernel<(Out<f64>, f64)> =
    Kernel::new("fill", |_: &Launch, (out, value): (&mut [f64], f64)| out.fill(value));

/// Answers, and does what others wait for. Never waits itself, unless it is told to.
#[derive(Default)]
struct Server {
    calls: u64,
}

#[chare(index = usize)]
impl Server {
    fn new() -> Self {
        Server::default()
    }

    #[entry]
    fn echo(&mut self, value: u64) -> u64 {
        self.calls += 1;
        value
    }

    /// Calls of `echo` and `fail` so far.
    #[entry]
    fn calls(&self) -> u64 {
        self.calls
    }

    #[entry]
    fn fulfil(&self, promise: Promise<u64>, value: u64) -> Result<()> {
        Ok(promise.send(value)?)
    }

    #[entry]
    fn fail(&mut self) -> Result<u64> {
        self.calls += 1;
        Err("nobody saw this".into())
    }

    /// Answers when the gate opens.
    #[entry]
    async fn echo_after(this: This<Self>, key: Key, value: u64) -> Result<u64> {
        this.with(|server| server.calls += 1);
        wait_for_key(&this, key).await?;
        Ok(value)
    }

    /// Fails when the gate opens.
    #[entry]
    async fn fail_after(this: This<Self>, key: Key) -> Result<u64> {
        this.with(|server| server.calls += 1);
        wait_for_key(&this, key).await?;
        Err("nobody saw this".into())
    }
}

/// Who waits at a gate sends what opens it here.
type Key = Promise<Promise<()>>;

/// Waits until somebody uses the key.
async fn wait_for_key(rt: &Runtime, key: Key) -> Result<()> {
    let (open, opened) = rt.promise();
    key.send(open)?;
    Ok(opened.await?)
}

/// How several things are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
enum How {
    JoinAll,
    TryJoinAll,
    SelectAll,
    Unordered,
    Buffered,
    Nested,
}

const EVERY_WAY: [How; 6] =
    [How::JoinAll, How::TryJoinAll, How::SelectAll, How::Unordered, How::Buffered, How::Nested];

type Wait<'a> = BoxFuture<'a, Result<u64>>;

/// Waits for them all, suspending in between where the way allows it; the sum of their values.
async fn wait_for(how: How, cx: &Cx<Node>, server: Element<Server>, waits: Vec<Wait<'_>>) -> Result<u64> {
    let mut sum = 0;
    match how {
        How::JoinAll => {
            for value in join_all(waits).await {
                sum += value?;
            }
        }
        How::TryJoinAll => sum = try_join_all(waits).await?.into_iter().sum(),
        How::SelectAll => {
            let mut left = waits;
            while !left.is_empty() {
                let (value, _, others) = select_all(left).await;
                sum += value? + server.echo(0).await?;
                left = others;
            }
        }
        How::Unordered => {
            let mut set: FuturesUnordered<_> = waits.into_iter().collect();
            while let Some(value) = set.next().await {
                let (promise, told) = cx.promise();
                server.fulfil(promise, 0).send();
                sum += value? + told.await?;
                cx.sleep(Duration::ZERO).await;
            }
        }
        How::Buffered => {
            let mut buffered = stream::iter(waits).buffer_unordered(3);
            while let Some(value) = buffered.next().await {
                sum += value? + server.echo(0).await?;
            }
        }
        How::Nested => {
            let mut left = waits;
            let second_half = left.split_off(left.len() / 2);
            let mut first_half = pin!(join_all(left));
            let mut rest = pin!(async {
                let mut set = FuturesUnordered::from_iter(second_half);
                let mut sum = 0;
                while let Some(value) = set.next().await {
                    sum += value?;
                }
                Result::<u64>::Ok(sum)
            });
            let mut both = join(&mut first_half, &mut rest).fuse();
            let mut never = pin!(futures::future::pending::<()>().fuse());
            let (first, second) = futures::select! {
                both = both => both,
                () = never => unreachable!("it never comes"),
            };
            sum = second?;
            for value in first {
                sum += value?;
            }
        }
    }
    Ok(sum)
}

/// Waits, for everything and in every way.
#[derive(Default)]
struct Node {
    ready: bool,
}

const NODES: usize = 16;

/// Copies of each wait that may be there in any number; with one of each, more than the 30 from which `join_all` polls
/// only what was woken.
const COPIES: usize = 4;

/// One of everything that a coroutine may wait for, whoever owns the chare, each of value 1.
fn all_kinds<'a>(cx: &'a Cx<Node>, servers: Array<Server>, channel: &'a Channel<u64>) -> Vec<Wait<'a>> {
    let (near, far) = (servers.at(cx.index()), servers.at((cx.index() + NODES / 2) % NODES));
    let mut waits: Vec<Wait<'_>> = Vec::new();
    for server in [near, far].repeat(COPIES) {
        let (promise, one) = cx.promise();
        server.fulfil(promise, 1).send();
        let (promise, three) = cx.promises(3);
        (0..3).for_each(|_| server.fulfil(promise.clone(), 1).send());
        let started = server.echo(1).future();
        waits.push(Box::pin(async move { Ok(server.echo(1).await?) }));
        waits.push(Box::pin(async move { Ok(started.await?) }));
        waits.push(Box::pin(async move { Ok(one.await?) }));
        waits.push(Box::pin(async move { Ok(three.await?.into_iter().sum::<u64>() / 3) }));
    }
    waits.push(Box::pin(async { Ok(channel.recv().await?) }));
    waits.push(Box::pin(channel.reserve().map(|_unused| Ok(1))));
    waits.push(Box::pin(cx.sleep(MOMENT).map(|()| Ok(1))));
    waits.push(Box::pin(servers.echo(1).map(|outcome| Ok(outcome.map(|()| 1)?))));
    waits.push(Box::pin(
        servers.echo(1).gather().map(|values| Ok(values?.into_iter().sum::<u64>() / NODES as u64)),
    ));
    waits.push(Box::pin(cx.allreduce(1_u64, reduce::Max).map(|value| Ok(value?))));
    waits.push(Box::pin(cx.barrier().map(|outcome| Ok(outcome.map(|()| 1)?))));
    waits.push(Box::pin(async {
        let device = cx.device();
        let mut buffer = device.alloc(4)?;
        device.launch(&FILL, 4, (&mut buffer, 0.5))?.await?;
        Ok(device.download(&buffer)?.await?.into_iter().sum::<f64>() as u64 - 1)
    }));
    let rt: &Runtime = cx;
    let (created, end) = rt.array::<Server>(3).create(()).start();
    waits.push(Box::pin(async move { Ok(end.await.map(|()| 1)?) }));
    waits.push(Box::pin(async move { Ok(created.at(2).echo(1).await?) }));
    waits.push(Box::pin(async move { Ok(rt.group::<Lone>().create(1).await?.on(0).value().await?) }));
    waits.push(Box::pin(async move { Ok(rt.single::<Lone>().create(1).await?.value().await?) }));
    waits.push(Box::pin(async move { Ok(cx.timeout(HOUR, near.echo(1)).await??) }));
    waits.push(Box::pin(async {
        Ok(cx.timeout(Duration::ZERO, futures::future::pending()).await.map_or(1, |()| 0))
    }));
    waits.push(Box::pin(cx.quiescence().map(|outcome| Ok(outcome.map(|()| 1)?))));
    waits
}

#[chare(index = usize)]
impl Node {
    fn new() -> Self {
        Node::default()
    }

    #[entry]
    fn make_ready(&mut self) {
        self.ready = true;
    }

    /// Waits for everything that there is.
    #[entry]
    async fn everything(this: This<Self>, how: How, servers: Array<Server>) -> Result<u64> {
        let channel = this.channel(&this.array().at(this.index() ^ 1), 0);
        channel.send(1)?;
        let mut waits = all_kinds(&this, servers, &channel);
        this.with(|node| node.ready = false);
        waits.push(Box::pin(this.wait_until(|node| node.ready).map(|()| Ok(1))));
        this.this().make_ready().send();
        let count = waits.len() as u64;
        Ok(count - wait_for(how, &this, servers.at(this.index()), waits).await?)
    }

    /// The same, owning the chare.
    #[entry]
    async fn everything_alone(&mut self, cx: &Cx<Self>, how: How, servers: Array<Server>) -> Result<u64> {
        let channel = cx.channel(&cx.array().at(cx.index() ^ 1), 0);
        channel.send(1)?;
        let waits = all_kinds(cx, servers, &channel);
        let count = waits.len() as u64;
        Ok(count - wait_for(how, cx, servers.at(cx.index()), waits).await?)
    }

    /// `select!` of the futures crate in a loop that suspends in its branches, until all is done.
    #[entry]
    async fn select_by_futures(this: This<Self>, servers: Array<Server>) -> Result<u64> {
        let channel = this.channel(&this.array().at(this.index() ^ 1), 0);
        let server = servers.at((this.index() + NODES / 2) % NODES);
        let (mut first, mut second) = (server.echo(1).fuse(), servers.at(this.index()).echo(2).fuse());
        channel.send(4)?;
        let mut received = pin!(channel.recv().fuse());
        let mut slept = pin!(this.sleep(MOMENT).fuse());
        let mut reduced = this.allreduce(8_u64, reduce::Max).fuse();
        let mut sum = 0;
        loop {
            sum += futures::select! {
                value = first => value? + server.echo(0).await?,
                value = second => value?,
                value = received => value? + this.allreduce(0, reduce::Sum).await?,
                value = reduced => value?,
                () = slept => {
                    this.sleep(Duration::ZERO).await;
                    16
                }
                complete => return Ok(sum),
            };
        }
    }

    /// The same by `select!` of tokio, owning the chare.
    #[entry]
    async fn select_by_tokio(&mut self, cx: &Cx<Self>, servers: Array<Server>) -> Result<u64> {
        let channel = cx.channel(&cx.array().at(cx.index() ^ 1), 0);
        let server = servers.at((cx.index() + NODES / 2) % NODES);
        let (mut call, mut received, mut slept) =
            (server.echo(1), pin!(channel.recv()), pin!(cx.sleep(MOMENT)));
        channel.send(2)?;
        let mut left = [true; 3];
        let mut sum = 0;
        while left.contains(&true) {
            tokio::select! {
                value = &mut call, if left[0] => {
                    sum += value? + server.echo(0).await?;
                    left[0] = false;
                }
                value = &mut received, if left[1] => {
                    sum += value? + cx.allreduce(0, reduce::Sum).await?;
                    left[1] = false;
                }
                () = &mut slept, if left[2] => {
                    cx.sleep(Duration::ZERO).await;
                    sum += 4;
                    left[2] = false;
                }
            }
        }
        Ok(sum)
    }

    /// `join!` of either crate, inside each other.
    #[entry]
    async fn join_both(this: This<Self>, servers: Array<Server>) -> Result<u64> {
        let server = servers.at((this.index() + NODES / 2) % NODES);
        let reduced = async {
            this.sleep(MOMENT).await;
            this.allreduce(1_u64, reduce::Sum).await
        };
        let ((call, gathered), reduced, ()) = futures::join!(
            async { tokio::join!(server.echo(1), servers.echo(2).gather()) },
            reduced,
            this.sleep(Duration::ZERO),
        );
        Ok(call? + gathered?.into_iter().sum::<u64>() + reduced?)
    }

    /// Takes turns between a set of calls that is refilled all the time, and a stream of values.
    #[entry]
    async fn keep_some_in_flight(this: This<Self>, servers: Array<Server>, calls: u64) -> Result<u64> {
        let channel = this.channel(&this.array().at(this.index() ^ 1), 0);
        let (mut set, mut sent, mut sum, mut received) = (FuturesUnordered::new(), 0, 0, 0);
        while sum + received < 2 * calls {
            while sent < calls && set.len() < 7 {
                set.push(servers.at((this.index() + sent as usize) % NODES).echo(1));
                channel.send(sent)?;
                sent += 1;
            }
            let next = if set.is_empty() {
                Either::Right(channel.recv().await?)
            } else {
                match select(set.select_next_some(), pin!(channel.recv())).await {
                    Either::Left((value, _)) => Either::Left(value?),
                    Either::Right((number, _)) => Either::Right(number?),
                }
            };
            match next {
                Either::Left(one) => sum += one,
                Either::Right(number) => {
                    assert_eq!(number, received, "values come in order, whatever else is waited for");
                    received += 1;
                }
            }
            if (sum + received).is_multiple_of(3) {
                servers.at(this.index()).echo(0).await?;
            }
        }
        Ok(sum)
    }

    /// Reads a value that others read too.
    #[entry]
    async fn read(this: This<Self>, value: Readers) -> Result<u64> {
        this.sleep(Duration::ZERO).await;
        Ok(value.await?)
    }

    /// Gives up reading such a value.
    #[entry]
    async fn give_up_reading(this: This<Self>, value: Readers) -> Result<bool> {
        Ok(this.timeout(Duration::ZERO, value).await.is_err())
    }
}

/// The reading end of a promise, for several coroutines.
type Readers = futures::future::Shared<chare::PromiseFuture<u64>>;

/// A chare that is created while others wait for that.
struct Lone(u64);

#[chare]
impl Lone {
    async fn new(cx: &Cx<Self>, value: u64) -> Self {
        cx.sleep(Duration::ZERO).await;
        Lone(value)
    }

    #[entry]
    fn value(&self) -> u64 {
        self.0
    }
}

async fn create(rt: &Runtime) -> Result<(Array<Node>, Array<Server>)> {
    Ok((rt.array(NODES).create(()).await?, rt.array(NODES).create(()).await?))
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn everything_can_be_waited_for_together(rt: Runtime) -> Result<()> {
    let (nodes, servers) = create(&rt).await?;
    for how in EVERY_WAY {
        assert_eq!(nodes.everything(how, servers).gather().await?, [0; NODES], "{how:?}");
        assert_eq!(nodes.everything_alone(how, servers).gather().await?, [0; NODES], "{how:?}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn branches_of_a_select_may_suspend(rt: Runtime) -> Result<()> {
    let (nodes, servers) = create(&rt).await?;
    assert_eq!(nodes.select_by_futures(servers).gather().await?, [31; NODES]);
    assert_eq!(nodes.select_by_tokio(servers).gather().await?, [7; NODES]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn joins_nest(rt: Runtime) -> Result<()> {
    let (nodes, servers) = create(&rt).await?;
    assert_eq!(nodes.join_both(servers).gather().await?, [1 + 3 * NODES as u64; NODES]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_set_may_be_refilled_while_it_is_waited_for(rt: Runtime) -> Result<()> {
    let (nodes, servers) = create(&rt).await?;
    assert_eq!(nodes.keep_some_in_flight(servers, 100).gather().await?, [100; NODES]);
    Ok(())
}

/// The first to poll is not the only one that is woken, and may go before the value comes.
#[chare::test(pes = [1, 2, 4, 8], one_process = "a reading end stays in its process")]
async fn a_promise_may_have_several_readers(rt: Runtime) -> Result<()> {
    let (nodes, servers) = create(&rt).await?;
    for first_gives_up in [false, true] {
        let (promise, value) = rt.promise::<u64>();
        let value: Readers = futures::FutureExt::shared(value);
        if first_gives_up {
            assert!(nodes.at(NODES - 1).give_up_reading(value.clone()).await?);
            assert!(rt.timeout(Duration::ZERO, value.clone()).await.is_err());
        }
        let reads: Vec<_> = (0..NODES).map(|index| nodes.at(index).read(value.clone()).future()).collect();
        servers.echo(0).await?;
        servers.at(NODES / 2).fulfil(promise, 7).await?;
        for read in reads {
            assert_eq!(read.await?, 7);
        }
        assert_eq!(value.await?, 7);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn everything_of_a_hundred_thousand_calls_comes_once(rt: Runtime) -> Result<()> {
    let (_, servers) = create(&rt).await?;
    let calls = (0..100_000).map(|number| servers.at(number % NODES).echo(number as u64));
    let mut set: FuturesUnordered<_> = calls.collect();
    let mut seen = vec![false; set.len()];
    while let Some(number) = set.next().await {
        assert!(!std::mem::replace(&mut seen[number? as usize], true), "each comes once");
    }
    assert!(!seen.contains(&false));
    Ok(())
}
