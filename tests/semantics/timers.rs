//! Sleeping: at least as long as asked, in the order of the deadlines, without a limit on pending timers.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use chare::HANG_EXIT_CODE;
use chare::prelude::*;

#[derive(Default)]
struct Sleeper {
    /// What each nap was, in the order of waking: the earliest and the latest that its deadline can be.
    woken: Vec<(Instant, Instant)>,
    sum: u64,
}

#[chare(index = usize)]
impl Sleeper {
    fn new() -> Self {
        Sleeper::default()
    }

    #[entry]
    async fn nap(this: This<Self>, duration: Duration) {
        let before = Instant::now();
        let mut sleep = pin!(this.sleep(duration));
        let first = poll_fn(|context| Poll::Ready(sleep.as_mut().poll(context))).await;
        let after = Instant::now();
        if first.is_pending() {
            sleep.await;
        }
        assert!(before.elapsed() >= duration, "slept for {:?} only, not {duration:?}", before.elapsed());
        this.with(|sleeper| sleeper.woken.push((before + duration, after + duration)));
    }

    /// How many naps there were, and whether any was over before one with an earlier deadline.
    #[entry]
    fn woken(&self) -> (usize, bool) {
        let mut pairs = self.woken.iter().zip(self.woken.iter().skip(1));
        (self.woken.len(), pairs.any(|(earlier, later)| later.1 < earlier.0))
    }

    #[entry]
    fn add(&mut self, amount: u64) -> u64 {
        self.sum += amount;
        self.sum
    }
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "it measures real time")]
async fn a_thousand_timers_are_pending_at_once(rt: Runtime) -> Result<()> {
    let sleepers = rt.array::<Sleeper>(8).create(()).await?;
    let naps: Vec<_> = (0..1000_u64)
        .map(|number| sleepers.at(number as usize % 8).nap(Duration::from_millis(number * 7 % 50)).future())
        .collect();
    for nap in naps {
        nap.await?;
    }
    for (naps, is_out_of_order) in sleepers.woken().gather().await? {
        assert_eq!(naps, 125);
        assert!(!is_out_of_order, "a timer fired before one with an earlier deadline");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn others_run_meanwhile(rt: Runtime) -> Result<()> {
    let sleepers = rt.array::<Sleeper>(8).create(()).await?;
    let napping = sleepers.nap(Duration::from_secs(86_400)).future();
    for sum in 1..100 {
        assert_eq!(sleepers.add(1).gather().await?, [sum; 8]);
    }
    drop(napping);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_longest_and_the_shortest_sleep(rt: Runtime) -> Result<()> {
    let sleepers = rt.array::<Sleeper>(8).create(()).await?;
    sleepers.at(7).nap(Duration::ZERO).await?;
    rt.sleep(Duration::ZERO).await;
    let mut for_ever = pin!(rt.sleep(Duration::MAX));
    let polled = poll_fn(|context| Poll::Ready(for_ever.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    rt.sleep(Duration::from_millis(1)).await;
    Ok(())
}

/// A timer that nobody waits for any more keeps nothing alive: the hang is found at once, not after an hour.
#[test]
fn a_dropped_timer_is_forgotten() {
    for pes in [1, 2, 4, 8] {
        let report = crate::run(pes, |rt| async move {
            let mut hour = Box::pin(rt.sleep(Duration::from_secs(3600)));
            poll_fn(|context| {
                assert!(hour.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(hour);
            let (_promise, never) = rt.promise::<()>();
            never.await
        });
        assert_eq!(report.code(), HANG_EXIT_CODE, "{report}");
    }
}

#[derive(Default)]
struct Turns(Vec<u32>);

#[chare(index = usize)]
impl Turns {
    fn new() -> Self {
        Turns::default()
    }

    #[entry]
    async fn take(this: This<Self>, who: u32) {
        for _ in 0..4 {
            this.with(|turns| turns.0.push(who));
            this.yield_now().await;
        }
    }

    #[entry]
    fn taken(&self) -> Vec<u32> {
        self.0.clone()
    }

    /// Spins until a message has come that is sent only now.
    #[entry]
    async fn spin(this: This<Self>) -> u64 {
        this.this().take(7).send();
        let mut spins = 0;
        while this.with(|turns| turns.0.is_empty()) {
            spins += 1;
            this.yield_now().await;
        }
        spins
    }
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn coroutines_that_yield_take_turns(rt: Runtime) -> Result<()> {
    let turns = rt.array::<Turns>(2).create(()).await?;
    let (one, two) = (turns.at(1).take(1).future(), turns.at(1).take(2).future());
    one.await?;
    two.await?;
    let taken = turns.at(1).taken().await?;
    assert_eq!(taken.len(), 8);
    // The second comes while the first has begun, and then they alternate.
    let start = taken.iter().position(|who| *who == 2).expect("it has run");
    let both: Vec<u32> = taken[start..].iter().copied().take(2 * (4 - start.min(4))).collect();
    assert!(both.chunks(2).all(|pair| pair[0] != pair[1]), "{taken:?}");
    assert!(turns.at(0).spin().await? > 0, "what it waits for is not there before it waits");
    Ok(())
}
