//! Memory: a program in a steady state does not grow, whatever kinds of messages it sends.
//!
//! Each thread counts the bytes that it allocates less those that it frees. What one PE allocates and another frees
//! adds up over all of them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use std::time::Duration;

use chare::SharedFuture;
use chare::prelude::*;
use futures::FutureExt;
use futures::future::{BoxFuture, poll_immediate};

const HOUR: Duration = Duration::from_secs(3600);

/// A process of several keeps so many bytes of batches that have been full at once, for the next burst: 32 of 64 KiB.
const KEPT_BATCHES: i64 = 2 << 20;

thread_local! {
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // A thread that ends allocates when its counter is gone already; that is not counted.
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() + bytes));
}

struct Counting;

// SAFETY: all is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Runner;

#[chare]
impl Runner {
    fn new() -> Self {
        Runner
    }

    #[entry]
    fn pass_on(&self, cx: &Cx<Self>, left: u64, values: Vec<u64>) {
        let (Some(group), true) = (cx.group(), left > 0) else { return };
        group.on((cx.index() + 1) % cx.num_pes()).pass_on(left - 1, values.clone()).send();
    }

    #[entry]
    fn length(&self, values: Vec<u64>) -> Vec<u64> {
        values
    }

    /// Awaits calls, promises, channels, reductions and a condition.
    #[entry]
    async fn converse(this: This<Self>, rounds: usize) -> Result<()> {
        let group = this.group().expect("it is a group");
        let next = group.on((this.index() + 1) % this.num_pes());
        let previous = group.on((this.index() + this.num_pes() - 1) % this.num_pes());
        let (to, from) = (this.channel::<Vec<u64>, _>(&next, 0), this.channel::<Vec<u64>, _>(&previous, 0));
        for round in 0..rounds {
            let values = next.length(vec![round as u64; 100]).await?;
            to.send(values)?;
            let (promise, value) = this.promise();
            promise.send(from.recv().await?)?;
            let largest = this.allreduce(value.await?, reduce::Max).await?;
            this.wait_until(|_| largest.len() == 100).await;
        }
        Ok(())
    }

    /// Sets timers, all pending at a time, and gives them up.
    #[entry]
    async fn sleep_in_vain(this: This<Self>, count: usize) {
        let mut naps: Vec<_> = (0..count).map(|_| Box::pin(this.sleep(HOUR))).collect();
        for nap in &mut naps {
            assert!(poll_immediate(nap).await.is_none());
        }
    }

    /// Begins to wait for what does not come at once, and gives that up.
    #[entry]
    async fn wait_in_vain(this: This<Self>, rounds: usize) -> Result<()> {
        let (this_one, channel) = (this.this(), this.channel::<u64, _>(&this.this(), 1));
        let (promise, mut value) = this.promise::<u64>();
        for _ in 0..rounds {
            let waits: [BoxFuture<'_, ()>; 6] = [
                channel.recv().map(drop).boxed(),
                this.wait_until(|_| false).boxed(),
                this_one.length(vec![0; 100]).map(drop).boxed(),
                this.promise::<u64>().1.map(drop).boxed(),
                this.quiescence().map(drop).boxed(),
                this.timeout(HOUR, &mut value).map(drop).boxed(),
            ];
            for wait in waits {
                assert!(poll_immediate(wait).await.is_none());
            }
            this_one.length(Vec::new()).await?;
        }
        promise.send(0)?;
        value.await.map(drop).map_err(Into::into)
    }

    /// Begins to read a promise that many read, and gives that up.
    #[entry]
    async fn read_in_vain(_this: This<Self>, value: SharedFuture<u64>, count: usize) {
        for _ in 0..count {
            let (mut loser, mut winner) = (value.clone(), std::future::ready(()));
            futures::select_biased! {
                _ = (&mut loser).fuse() => panic!("nobody has sent it"),
                () = (&mut winner).fuse() => {}
            }
        }
    }

    #[entry]
    async fn read(_this: This<Self>, value: SharedFuture<u64>) -> Result<u64> {
        Ok(value.await?)
    }

    #[entry]
    fn live_bytes(&self) -> i64 {
        LIVE_BYTES.get()
    }
}

async fn live_bytes(rt: &Runtime, group: Group<Runner>) -> Result<i64> {
    rt.quiescence().await?;
    Ok(group.live_bytes().gather().await?.iter().sum())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_million_messages_leave_nothing_behind(rt: Runtime) -> Result<()> {
    let group = rt.group::<Runner>().create(()).await?;
    let mut live = Vec::new();
    for hops in [3_000, 15_625] {
        (0..64).for_each(|token| group.on(token % rt.num_pes()).pass_on(hops, vec![token as u64; 20]).send());
        live.push(live_bytes(&rt, group).await?);
    }
    // Less than two bytes for each message, more than the messages that are in flight at once. Between processes less than
    // seven bytes: which of the two bursts meets a process that is late, and fills more batches, is chance.
    let kept = if rt.num_processes() > 1 { rt.num_processes() as i64 * KEPT_BATCHES } else { 0 };
    assert!(live[1] - live[0] < (1 << 20) + kept, "live bytes grew from {} to {}", live[0], live[1]);
    Ok(())
}

/// On one PE: where there are several, each fills its free lists with what the others have allocated, up to a bound.
#[chare::test(pes = [1])]
async fn waiting_leaves_nothing_behind(rt: Runtime) -> Result<()> {
    let group = rt.group::<Runner>().create(()).await?;
    let mut live = Vec::new();
    for rounds in [1000, 20_000] {
        group.converse(rounds).await?;
        live.push(live_bytes(&rt, group).await?);
    }
    // Less than a byte for each round.
    assert!(live[1] - live[0] < 10_000, "live bytes grew from {} to {}", live[0], live[1]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn timers_that_are_given_up_leave_nothing_behind(rt: Runtime) -> Result<()> {
    let group = rt.group::<Runner>().create(()).await?;
    let mut live = Vec::new();
    for rounds in [1, 4] {
        for _ in 0..rounds {
            group.sleep_in_vain(100_000 / rt.num_pes()).await?;
        }
        live.push(live_bytes(&rt, group).await?);
    }
    // Less than three bytes for each timer.
    assert!(live[1] - live[0] < 1 << 20, "live bytes grew from {} to {}", live[0], live[1]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4], one_process = "a reading end stays in its process")]
async fn readers_that_are_given_up_leave_nothing_behind(rt: Runtime) -> Result<()> {
    let group = rt.group::<Runner>().create(()).await?;
    let (promise, value) = rt.promise();
    let value = value.shared();
    let readers = group.read(value.clone()).gather();
    let mut live = Vec::new();
    for readers in [1_000, 100_000] {
        group.read_in_vain(value.clone(), readers / rt.num_pes()).await?;
        live.push(live_bytes(&rt, group).await?);
    }
    // Less than a byte for each reader.
    assert!(live[1] - live[0] < 90_000, "live bytes grew from {} to {}", live[0], live[1]);
    promise.send(7)?;
    assert_eq!(readers.await?, vec![7; rt.num_pes()], "who waits is told");
    Ok(())
}

/// On one PE, as above.
#[chare::test(pes = [1])]
async fn waiting_in_vain_leaves_nothing_behind(rt: Runtime) -> Result<()> {
    let group = rt.group::<Runner>().create(()).await?;
    let mut live = Vec::new();
    for rounds in [1000, 20_000] {
        group.wait_in_vain(rounds).await?;
        live.push(live_bytes(&rt, group).await?);
    }
    // Less than a byte for each round.
    assert!(live[1] - live[0] < 10_000, "live bytes grew from {} to {}", live[0], live[1]);
    Ok(())
}

/// Comes, is called, and goes; or fails at once.
struct Passer;

#[chare(index = usize)]
impl Passer {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        if cx.index() % 8 == 7 { Err("no admittance".into()) } else { Ok(Passer) }
    }

    #[entry]
    fn pass(&self) {}
}

struct Lone;

#[chare]
impl Lone {
    fn new(fails: bool) -> Result<Self> {
        if fails { Err("no admittance".into()) } else { Ok(Lone) }
    }

    #[entry]
    fn pass(&self) {}
}

/// Lives of chares in each round.
const LIVES: usize = 20_000;

/// On one PE, as above.
#[chare::test(pes = [1])]
async fn elements_that_come_and_go_leave_nothing_behind(rt: Runtime) -> Result<()> {
    let group = rt.group::<Runner>().create(()).await?;
    let passers = rt.array_sparse::<Passer>().create_empty();
    passers.done_inserting().await?;
    let mut live = Vec::new();
    for round in 0..6 {
        for index in round * LIVES..(round + 1) * LIVES {
            match passers.insert(index, ()).await {
                Ok(passer) => {
                    passer.pass().await?;
                    passer.destroy().await?;
                }
                Err(error) => assert!(index % 8 == 7, "{error}"),
            }
        }
        live.push(live_bytes(&rt, group).await?);
    }
    // Less than a byte for each life.
    let most = 5 * LIVES as i64;
    assert!(live[5] - live[0] < most, "live bytes grew from {} to {}", live[0], live[5]);
    Ok(())
}

/// On one PE, as above.
#[chare::test(pes = [1])]
async fn singletons_that_come_and_go_leave_nothing_behind(rt: Runtime) -> Result<()> {
    let group = rt.group::<Runner>().create(()).await?;
    let mut live = Vec::new();
    for _ in 0..6 {
        for number in 0..LIVES {
            match rt.single::<Lone>().create(number % 8 == 7).await {
                Ok(lone) => {
                    lone.pass().await?;
                    lone.destroy().await?;
                }
                Err(error) => assert!(number % 8 == 7, "{error}"),
            }
        }
        live.push(live_bytes(&rt, group).await?);
    }
    let most = 5 * LIVES as i64;
    assert!(live[5] - live[0] < most, "live bytes grew from {} to {}", live[0], live[5]);
    Ok(())
}

/// Comes, is listened to through a channel, and goes.
struct Visitor;

#[chare(index = usize)]
impl Visitor {
    fn new() -> Self {
        Visitor
    }

    #[entry]
    fn say(&self, cx: &Cx<Self>, host: Element<Visitor>, value: u64) -> Result<()> {
        Ok(cx.channel::<u64, _>(&host, 1).send(value)?)
    }

    #[entry]
    async fn listen(this: This<Self>, visitor: Element<Visitor>) -> Result<u64> {
        Ok(this.channel::<u64, _>(&visitor, 1).recv().await?)
    }
}

/// On one PE, as above.
#[chare::test(pes = [1])]
async fn channels_to_elements_that_come_and_go_leave_nothing_behind(rt: Runtime) -> Result<()> {
    let group = rt.group::<Runner>().create(()).await?;
    let visitors = rt.array_sparse::<Visitor>().create_empty();
    let host = visitors.insert(6 * LIVES, ()).await?;
    visitors.done_inserting().await?;
    let mut live = Vec::new();
    for round in 0..6 {
        for index in round * LIVES..(round + 1) * LIVES {
            let visitor = visitors.insert(index, ()).await?;
            visitor.say(host, index as u64).await?;
            let hears_first = index % 2 == 0;
            if hears_first {
                assert_eq!(host.listen(visitor).await?, index as u64);
            }
            visitor.destroy().await?;
            if !hears_first {
                assert_eq!(host.listen(visitor).await?, index as u64);
            }
        }
        live.push(live_bytes(&rt, group).await?);
    }
    // Less than a byte for each life.
    let most = 5 * LIVES as i64;
    assert!(live[5] - live[0] < most, "live bytes grew from {} to {}", live[0], live[5]);
    Ok(())
}
