//! More device memory in one message than a frame between processes has places for. With `CHARE_TEST_PROCESSES=2` or 4 it leaves its process.

use chare::Placement;
use chare::device::{Account, DeviceSlice, DeviceVec};
use chare::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ADD, PANIC};

/// More than go beside one frame, whichever way they are taken.
const MANY: usize = 1500;

fn make(dev: &Account, of: usize) -> Result<DeviceVec<f64>> {
    Ok(dev.upload(vec![of as f64; 1 + of % 5])?)
}

async fn value(dev: &Account, share: &DeviceSlice<f64>) -> Result<usize> {
    let values = dev.download(share)?.await?;
    assert!(values.iter().all(|value| *value == values[0]) && values.len() == 1 + values[0] as usize % 5);
    Ok(values[0] as usize)
}

async fn values(dev: &Account, shares: &[DeviceSlice<f64>]) -> Result<Vec<usize>> {
    let mut all = Vec::new();
    for share in shares {
        all.push(value(dev, share).await?);
    }
    Ok(all)
}

fn numbers() -> Vec<usize> {
    (0..MANY).collect()
}

/// All are on the last PE.
struct Last;

impl Placement<usize> for Last {
    fn pe(&self, _: &usize, pe_count: usize) -> usize {
        pe_count - 1
    }
}

/// Many, of which each has one.
struct One {
    share: DeviceVec<f64>,
}

#[chare(index = usize)]
impl One {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(One { share: make(&cx.device(), cx.index())? })
    }

    #[entry]
    fn share(&self) -> DeviceSlice<f64> {
        self.share.share()
    }

    #[entry]
    fn share_some(&self, cx: &Cx<Self>) -> Result<DeviceSlice<f64>> {
        if cx.index() == 1200 {
            return Err("it has none".into());
        }
        Ok(self.share.share())
    }

    #[entry]
    fn give(&self, cx: &Cx<Self>, to: Promise<Vec<DeviceSlice<f64>>>) {
        cx.contribute(self.share.share(), reduce::Gather, to);
    }
}

/// One on each PE, which asks.
struct Asker;

#[chare]
impl Asker {
    fn new() -> Self {
        Asker
    }

    #[entry]
    async fn collect(this: This<Self>, ones: Array<One>) -> Result<Vec<usize>> {
        let shares = ones.share().gather().await?;
        values(&this.device(), &shares).await
    }

    #[entry]
    async fn collect_some(_this: This<Self>, ones: Array<One>) -> Result<String> {
        Ok(ones.share_some().gather().await.expect_err("one has none").to_string())
    }

    #[entry]
    async fn reduce(this: This<Self>, ones: Array<One>) -> Result<Vec<usize>> {
        let (to, all) = this.promise();
        ones.give(to).send();
        values(&this.device(), &all.await?).await
    }

    /// What has come, and gives it back.
    #[entry]
    async fn look(
        this: This<Self>,
        shares: Vec<DeviceSlice<f64>>,
    ) -> Result<(Vec<usize>, Vec<DeviceSlice<f64>>)> {
        Ok((values(&this.device(), &shares).await?, shares))
    }

    /// Sends many of them, one of which has been spoiled: those that are.
    #[entry]
    async fn send_spoiled(this: This<Self>, to: Element<Asker>) -> Result<Vec<usize>> {
        let dev = this.device();
        let mut all = numbers().into_iter().map(|of| make(&dev, of)).collect::<Result<Vec<_>>>()?;
        dev.launch(&PANIC, 1, (&mut all[1300],))?.await.expect_err("it panics");
        Ok(to.find_spoiled(all.iter().map(DeviceVec::share).collect()).await?)
    }

    #[entry]
    async fn find_spoiled(this: This<Self>, shares: Vec<DeviceSlice<f64>>) -> Result<Vec<usize>> {
        let mut spoiled = Vec::new();
        for (number, share) in shares.iter().enumerate() {
            if this.device().download(share)?.await.is_err() {
                spoiled.push(number);
            }
        }
        Ok(spoiled)
    }
}

/// Moves with many.
#[derive(Serialize, Deserialize)]
struct Mover {
    all: Vec<DeviceVec<f64>>,
}

#[chare(index = usize)]
impl Mover {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Mover { all: numbers().into_iter().map(|of| make(&cx.device(), of)).collect::<Result<_>>()? })
    }

    #[entry]
    async fn look(&mut self, cx: &Cx<Self>) -> Result<(usize, Vec<usize>)> {
        let shares: Vec<_> = self.all.iter().map(DeviceVec::share).collect();
        Ok((cx.my_pe().index(), values(&cx.device(), &shares).await?))
    }

    #[entry]
    fn write(&mut self, cx: &Cx<Self>) -> Result<()> {
        for buffer in &mut self.all {
            let len = buffer.len();
            cx.device().launch(&ADD, len as u32, (buffer, 5.0))?;
        }
        Ok(())
    }
}

async fn ones_on_the_last_pe(rt: &Runtime) -> Result<Array<One>> {
    Ok(rt.array::<One>(MANY).map(Last).create(()).await?)
}

async fn many_are_gathered_from_one_pe(rt: Runtime) -> Result<()> {
    let (ones, askers) = (ones_on_the_last_pe(&rt).await?, rt.group::<Asker>().create(()).await?);
    let last = rt.num_pes() - 1;
    for pe in [0, last / 2, last] {
        assert_eq!(askers.on(pe).collect(ones).await?, numbers());
        let error = askers.on(pe).collect_some(ones).await?;
        assert!(error.contains("One[1200]") && error.contains("it has none"), "{error}");
    }
    assert_eq!(askers.on(0).reduce(ones).await?, numbers());
    Ok(())
}

async fn many_are_arguments(rt: Runtime) -> Result<()> {
    let (ones, askers) = (ones_on_the_last_pe(&rt).await?, rt.group::<Asker>().create(()).await?);
    let last = rt.num_pes() - 1;
    let shares = ones.share().gather().await?;
    let (seen, back) = askers.on(last).look(shares).await?;
    assert_eq!(seen, numbers());
    // To all at once, as they came back.
    for (seen, back) in askers.look(back).gather().await? {
        assert_eq!((seen, back.len()), (numbers(), MANY));
    }
    assert_eq!(askers.on(0).send_spoiled(askers.on(last)).await?, [1300]);
    Ok(())
}

async fn a_chare_moves_with_many(rt: Runtime) -> Result<()> {
    let (mover, last) = (rt.array::<Mover>(1).create(()).await?.at(0), rt.num_pes() - 1);
    mover.migrate(last).await?;
    assert_eq!(mover.look().await?, (last, numbers()));
    mover.write().await?;
    mover.migrate(0).await?;
    assert_eq!(mover.look().await?, (0, numbers().iter().map(|number| number + 5).collect()));
    Ok(())
}

on_each_kind! {
    many_are_gathered_from_one_pe: gathered_inline gathered_workers gathered_polled,
    many_are_arguments: arguments_inline arguments_workers arguments_polled,
    a_chare_moves_with_many: moves_inline moves_workers moves_polled,
}
