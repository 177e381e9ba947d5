//! Device memory that is longer than the pieces that it goes in, where it has to be staged. Run with `CHARE_TEST_PROCESSES=2` or 4 it goes in pieces on devices
//! that are polled, whose memory is not the host's; elsewhere, and in one process, the same programs show the same.

use chare::device::{DeviceSlice, DeviceVec};
use chare::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ADD, PANIC};

/// What goes by itself.
const PIECE: usize = 512 << 10;
/// More pieces than may be out at a time.
const LONG: usize = 20 * PIECE + 1;

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + (i >> 9) + seed) as u8).collect()
}

/// One on each PE.
struct End {
    log: Vec<String>,
    ballast: Option<DeviceVec<u8>>,
    kept: Option<DeviceSlice<u8>>,
}

#[chare]
impl End {
    fn new() -> Self {
        End { log: Vec::new(), ballast: None, kept: None }
    }

    #[entry]
    fn make(&self, cx: &Cx<Self>, len: usize, seed: usize) -> Result<DeviceSlice<u8>> {
        Ok(cx.device().upload(bytes(len, seed))?.share())
    }

    /// Whether a share is as it was made: by a device, and by the host.
    #[entry]
    async fn is_whole(this: This<Self>, share: DeviceSlice<u8>, seed: usize) -> Result<bool> {
        let (dev, expected) = (this.device(), bytes(share.len(), seed));
        let copy = dev.copy(&share)?;
        Ok(dev.download(&copy)?.await? == expected && dev.download(&share)?.await? == expected)
    }

    /// As that, by somebody else.
    #[entry]
    async fn relay(this: This<Self>, share: DeviceSlice<u8>, seed: usize, to: Element<End>) -> Result<bool> {
        this.with(|end| end.log.push("relayed".to_owned()));
        Ok(to.is_whole(share, seed).await?)
    }

    /// Sends long shares, which all go at once, and waits until all have been looked at.
    #[entry]
    async fn send_long(this: This<Self>, to: Element<End>, count: usize) -> Result<bool> {
        let dev = this.device();
        let send = |seed| Ok(to.is_whole(dev.upload(bytes(LONG, seed))?.share(), seed).future());
        let all: Vec<_> = (0..count).map(send).collect::<Result<_>>()?;
        let mut are_whole = true;
        for whole in all {
            are_whole &= whole.await?;
        }
        Ok(are_whole)
    }

    /// Sends long shares between short messages.
    #[entry]
    fn send_in_order(&self, cx: &Cx<Self>, to: Element<End>) -> Result<()> {
        for number in 0..3 {
            to.note(format!("before {number}")).send();
            to.note_share(cx.device().upload(bytes(LONG, number))?.share()).send();
            to.note_share(cx.device().upload(bytes(number, 1))?.share()).send();
        }
        to.note("behind".to_owned()).send();
        Ok(())
    }

    #[entry]
    fn note(&mut self, what: String) {
        self.log.push(what);
    }

    /// Drops it unread.
    #[entry]
    fn note_share(&mut self, share: DeviceSlice<u8>) {
        self.log.push(format!("{} bytes", share.len()));
    }

    #[entry]
    fn logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    #[entry]
    fn send_many(&self, cx: &Cx<Self>, to: Element<End>, count: usize) -> Result<()> {
        let share = cx.device().upload(bytes(2 * PIECE + 7, 0))?.share();
        (0..count).for_each(|_| to.note_share(share.clone()).send());
        Ok(())
    }

    #[entry]
    async fn used_bytes(&mut self, cx: &Cx<Self>) -> Result<u64> {
        cx.device().fence()?.await?;
        Ok(cx.device().device().used_bytes())
    }

    /// Leaves little room on its device.
    #[entry]
    fn crowd(&mut self, cx: &Cx<Self>, len: usize) -> Result<u64> {
        self.ballast = Some(cx.device().alloc(len)?);
        Ok(cx.device().device().used_bytes())
    }

    #[entry]
    fn keep(&mut self, cx: &Cx<Self>, share: DeviceSlice<u8>) -> u64 {
        self.kept = Some(share);
        cx.device().device().used_bytes()
    }

    /// Makes room, and uses what is kept.
    #[entry]
    async fn use_kept(&mut self, cx: &Cx<Self>, seed: usize) -> Result<bool> {
        (self.ballast, self.log) = (None, Vec::new());
        let share = self.kept.take().expect("it keeps one");
        let copy = cx.device().copy(&share)?;
        Ok(cx.device().download(&copy)?.await? == bytes(share.len(), seed))
    }

    /// A share that a kernel has failed to write.
    #[entry]
    async fn send_spoiled(this: This<Self>, to: Element<End>) -> Result<String> {
        let (mut spoiled, dev) = (this.device().alloc::<f64>(LONG / 8)?, this.device());
        dev.launch(&PANIC, 1, (&mut spoiled,))?.await.expect_err("it panics");
        Ok(to.first_of(spoiled.share()).await.expect_err("it is spoiled").to_string())
    }

    /// A share that a kernel is about to fail to write, and one that is whole behind it.
    #[entry]
    async fn send_spoiled_first(this: This<Self>, to: Element<End>) -> Result<bool> {
        let dev = this.device();
        let mut spoiled = dev.alloc::<f64>(LONG / 8)?;
        let kernel = dev.launch(&PANIC, 1, (&mut spoiled,))?;
        let whole = dev.upload(bytes(LONG, 3))?.share();
        let is_whole = to.is_second_whole(spoiled.share(), whole, 3).future();
        kernel.await.expect_err("it panics");
        Ok(is_whole.await?)
    }

    #[entry]
    async fn is_second_whole(
        this: This<Self>,
        spoiled: DeviceSlice<f64>,
        whole: DeviceSlice<u8>,
        seed: usize,
    ) -> Result<bool> {
        this.device().download(&spoiled)?.await.expect_err("it is spoiled");
        Ok(this.device().download(&whole)?.await? == bytes(LONG, seed))
    }

    #[entry]
    async fn first_of(this: This<Self>, share: DeviceSlice<f64>) -> Result<f64> {
        Ok(this.device().download(&share)?.await?[0])
    }
}

/// Moves with long buffers.
#[derive(Serialize, Deserialize)]
struct Field {
    values: DeviceVec<f64>,
    short: DeviceVec<f64>,
}

#[chare(index = usize)]
impl Field {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        let values = cx.device().upload((0..LONG / 8).map(|i| i as f64).collect())?;
        Ok(Field { values, short: cx.device().upload(vec![0.5; 10])? })
    }

    #[entry]
    fn add(&mut self, cx: &Cx<Self>) -> Result<()> {
        cx.device().launch(&ADD, 1, (&mut self.values, 1.0))?;
        cx.device().launch(&ADD, 1, (&mut self.short, 1.0))?;
        Ok(())
    }

    #[entry]
    async fn look(&mut self, cx: &Cx<Self>) -> Result<(Vec<f64>, Vec<f64>)> {
        let dev = cx.device();
        Ok((dev.download(&self.values)?.await?, dev.download(&self.short)?.await?))
    }
}

async fn shares_of_all_lengths_come_whole(rt: Runtime) -> Result<()> {
    let (ends, last) = (rt.group::<End>().create(()).await?, rt.num_pes() - 1);
    for (seed, len) in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, LONG].into_iter().enumerate() {
        for (from, to) in [(0, last), (last, 0)] {
            let share = ends.on(from).make(len, seed).await?;
            assert!(ends.on(to).is_whole(share.clone(), seed).await?, "{len} bytes from {from} to {to}");
            assert!(ends.on(to).relay(share, seed, ends.on(from)).await?, "{len} bytes from {to} to {from}");
        }
    }
    let share = ends.on(last).make(LONG, 3).await?;
    let whole = ends.is_whole(share, 3).gather().await?;
    assert_eq!(whole, vec![true; rt.num_pes()]);
    Ok(())
}

async fn both_directions_go_at_once(rt: Runtime) -> Result<()> {
    let (ends, pes) = (rt.group::<End>().create(()).await?, rt.num_pes());
    let sends: Vec<_> =
        (0..pes).map(|pe| ends.on(pe).send_long(ends.on((pe + pes / 2) % pes), 3).future()).collect();
    for whole in sends {
        assert!(whole.await?);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4], device = "host:2:polled", unsimulated = "plain messages overtake each other there")]
async fn nothing_overtakes_the_pieces(rt: Runtime) -> Result<()> {
    let (ends, last) = (rt.group::<End>().create(()).await?, rt.num_pes() - 1);
    ends.on(0).send_in_order(ends.on(last)).await?;
    rt.quiescence().await?;
    let of = |number: usize| [format!("before {number}"), format!("{LONG} bytes"), format!("{number} bytes")];
    let expected: Vec<String> = (0..3).flat_map(of).chain(["behind".to_owned()]).collect();
    assert_eq!(ends.on(last).logged().await?, expected);
    Ok(())
}

async fn memory_comes_back_from_what_nobody_reads(rt: Runtime) -> Result<()> {
    let (ends, last) = (rt.group::<End>().create(()).await?, rt.num_pes() - 1);
    let [here, there] = [0, last].map(|pe| ends.on(pe));
    let before = (here.used_bytes().await?, there.used_bytes().await?);
    here.send_many(there, 30).await?;
    there.send_many(here, 30).await?;
    rt.quiescence().await?;
    assert_eq!(there.logged().await?.len(), if last == 0 { 60 } else { 30 });
    // What has been copied is let go by who looks at the device next.
    while (here.used_bytes().await?, there.used_bytes().await?) != before {
        rt.yield_now().await;
    }
    Ok(())
}

async fn chares_move_with_long_buffers(rt: Runtime) -> Result<()> {
    let (fields, last) = (rt.array::<Field>(2).create(()).await?, rt.num_pes() - 1);
    for round in 1..=4 {
        fields.add().await?;
        for index in 0..2 {
            fields.at(index).migrate(if (round + index) % 2 == 0 { 0 } else { last }).await?;
            let (values, short) = fields.at(index).look().await?;
            let expected = |i: usize| (i + round) as f64;
            assert!(values.iter().enumerate().all(|(i, value)| *value == expected(i)), "round {round}");
            assert_eq!(short, [round as f64 + 0.5; 10]);
        }
    }
    Ok(())
}

async fn a_fault_comes_in_the_place_of_the_pieces(rt: Runtime) -> Result<()> {
    let (ends, last) = (rt.group::<End>().create(()).await?, rt.num_pes() - 1);
    let error = ends.on(0).send_spoiled(ends.on(last)).await?;
    assert!(error.contains("kernel `panic` of End") && error.contains("no more"), "{error}");
    assert!(ends.on(0).send_long(ends.on(last), 1).await?, "what comes later is not spoiled");
    Ok(())
}

/// The copies that fail had all the credit, which nobody brings back.
async fn what_fails_holds_up_nothing(rt: Runtime) -> Result<()> {
    let (ends, last) = (rt.group::<End>().create(()).await?, rt.num_pes() - 1);
    assert!(ends.on(0).send_spoiled_first(ends.on(last)).await?);
    Ok(())
}

/// The run ends while pieces are on their way.
async fn the_run_ends_between_pieces(rt: Runtime) -> Result<()> {
    let (ends, last) = (rt.group::<End>().create(()).await?, rt.num_pes() - 1);
    ends.on(0).send_many(ends.on(last), 10).await?;
    ends.on(last).send_many(ends.on(0), 10).send();
    Ok(())
}

/// Who uses it may have no other room than what is left.
#[chare::test(pes = [2, 4], device = "host:2:polled:mem=64MiB")]
async fn what_finds_little_room_waits_in_the_hosts_memory(rt: Runtime) -> Result<()> {
    let (ends, last) = (rt.group::<End>().create(()).await?, rt.num_pes() - 1);
    let share = ends.on(0).make(LONG, 5).await?;
    let used = ends.on(last).crowd(50 << 20).await?;
    assert_eq!(ends.on(last).keep(share).await?, used);
    assert!(ends.on(last).use_kept(5).await?);
    Ok(())
}

on_kinds_that_go_on! {
    shares_of_all_lengths_come_whole: lengths_workers lengths_polled,
    both_directions_go_at_once: both_workers both_polled,
    memory_comes_back_from_what_nobody_reads: unread_workers unread_polled,
    chares_move_with_long_buffers: moves_workers moves_polled,
    a_fault_comes_in_the_place_of_the_pieces: faults_workers faults_polled,
    what_fails_holds_up_nothing: holds_workers holds_polled,
    the_run_ends_between_pieces: end_workers end_polled,
}
