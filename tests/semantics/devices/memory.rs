//! Device memory: it is accounted to its chare and goes with it, a full device says so, and snapshots keep their values.

use std::sync::{Arc, Mutex};

use chare::device::{Account, Copies, Device, DeviceError, DeviceSlice, DeviceVec};
use chare::prelude::*;

use super::{ADD, COPY, FILL, KINDS, MIXED, on_each, run};
use crate::PES;

/// Allocates as it is told to.
#[derive(Default)]
struct Hoarder {
    hoard: Vec<DeviceVec<f64>>,
}

#[chare]
impl Hoarder {
    fn new() -> Self {
        Hoarder::default()
    }

    /// Keeps so many KiB more, and returns what it has in all, by its account and by the device's.
    #[entry]
    fn take(&mut self, cx: &Cx<Self>, kib: usize) -> Result<(u64, Device)> {
        let dev = cx.device();
        self.hoard.push(dev.alloc(kib * 128)?);
        Ok((dev.used_bytes(), dev.device()))
    }

    #[entry]
    fn drop_all(&mut self, cx: &Cx<Self>) -> u64 {
        self.hoard.clear();
        cx.device().used_bytes()
    }

    /// A share counts for who made it.
    #[entry]
    fn share(&self) -> DeviceSlice<f64> {
        self.hoard[0].share()
    }
}

#[test]
fn memory_is_accounted_to_its_chare_until_it_is_given_back() {
    for pes in PES {
        // Where nothing that was enqueued holds memory for longer.
        for device in [KINDS[0], KINDS[1], MIXED[0], MIXED[1]] {
            let devices = Arc::new(Mutex::new(Vec::new()));
            let kept = devices.clone();
            let report = run(pes, device, async move |rt: Runtime| {
                let hoarders = rt.group::<Hoarder>().create(()).await?;
                for (taken, _) in hoarders.take(8).gather().await? {
                    assert_eq!(taken, 8 << 10);
                }
                let share = hoarders.on(0).share().await?;
                for (pe, (taken, device)) in hoarders.take(32).gather().await?.into_iter().enumerate() {
                    assert_eq!(taken, 40 << 10);
                    let mates = (0..rt.num_pes())
                        .filter(|mate| mate % 4 == pe % 4 || device.capacity_bytes() == u64::MAX);
                    assert_eq!(device.used_bytes(), mates.count() as u64 * (40 << 10));
                    kept.lock().expect("not poisoned").push(device);
                }
                let left = hoarders.drop_all().gather().await?;
                assert_eq!((left[0], left[1..].iter().sum::<u64>()), (8 << 10, 0), "the share is alive");
                drop(share);
                assert_eq!(hoarders.on(0).drop_all().await?, 0);
                hoarders.take(16).gather().await?;
                Result::<()>::Ok(())
            });
            assert!(report.is_success(), "{report}");
            for device in devices.lock().expect("not poisoned").iter() {
                assert_eq!(device.used_bytes(), 0, "chares give their memory back when they go");
            }
        }
    }
}

#[test]
fn a_device_that_is_full_says_so() {
    on_each(
        &["host:mem=64KiB:inline", "host:mem=64KiB:workers=2", "host:mem=64KiB:polled"],
        async |rt: Runtime| {
            let hoarder = rt.single::<Hoarder>().on_pe(rt.num_pes() - 1).create(()).await?;
            hoarder.take(32).await?;
            let error = hoarder.take(64).await.expect_err("it does not fit");
            let Some(DeviceError::OutOfMemory(full)) = error.downcast_ref() else { panic!("{error}") };
            assert_eq!((full.requested_bytes, full.used_bytes, full.capacity_bytes), (65536, 32768, 65536));
            let text = error.to_string();
            for word in
                ["host:0", "Hoarder asked for 65536 bytes", "32768 of 65536", "Hoarder: 32768", "mem="]
            {
                assert!(text.contains(word), "{word}: {text}");
            }
            assert_eq!(hoarder.drop_all().await?, 0);
            hoarder.take(64).await?;
            Ok(())
        },
    );
}

#[test]
fn pes_are_spread_over_the_devices() {
    on_each(&MIXED, async |rt: Runtime| {
        assert_eq!(rt.device_names(), ["host:0", "host:1", "host:2", "host:3"]);
        assert_eq!(rt.device_reason(), "as asked for");
        let hoarders = rt.group::<Hoarder>().create(()).await?;
        let pes = rt.num_pes();
        for (pe, (_, device)) in hoarders.take(1).gather().await?.into_iter().enumerate() {
            // Neighbours share one, or each has several, of which the fast one is first.
            let ordinal = pe * 4 / pes + usize::from(pes < 4);
            assert_eq!(device.ordinal(), ordinal);
            assert_eq!((device.speed(), device.capacity_bytes()), ([1.0, 3.0][ordinal % 2], 1 << 20));
        }
        Ok(())
    });
}

/// Sends snapshots of a buffer that it goes on writing, or receives them.
struct Peer {
    buffer: DeviceVec<f64>,
    arguments: Vec<DeviceSlice<f64>>,
}

const SNAPSHOTS: usize = 20;

/// The values of the snapshots.
fn snapshot_values() -> Vec<Vec<f64>> {
    // It is filled with ten times the number at every third, and added to else.
    let value = |number: usize| (number / 3 * 30 + number % 3) as f64;
    (0..SNAPSHOTS).map(|number| vec![value(number); 64]).collect()
}

#[chare(index = usize)]
impl Peer {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Peer { buffer: cx.device().alloc(64)?, arguments: Vec::new() })
    }

    #[entry]
    async fn write_and_share(&mut self, cx: &Cx<Self>, to: Element<Peer>, by_channel: bool) -> Result<()> {
        let (dev, channel) = (cx.device(), cx.channel(&to, 0));
        for number in 0..SNAPSHOTS {
            if number % 3 == 0 {
                dev.launch(&FILL, 64, (&mut self.buffer, 10.0 * number as f64))?;
            } else {
                dev.launch(&ADD, 64, (&mut self.buffer, 1.0))?;
            }
            if by_channel {
                channel.send(self.buffer.share())?;
            } else {
                to.take(number, self.buffer.share()).await?;
            }
        }
        dev.launch(&FILL, 64, (&mut self.buffer, -1.0))?.await?;
        Ok(())
    }

    #[entry]
    async fn receive(&mut self, cx: &Cx<Self>, from: Element<Peer>) -> Result<Vec<Vec<f64>>> {
        let (dev, channel) = (cx.device(), cx.channel::<DeviceSlice<f64>, _>(&from, 0));
        let mut snapshots = Vec::new();
        for _ in 0..SNAPSHOTS {
            snapshots.push(channel.recv().await?);
        }
        read(&dev, &snapshots).await
    }

    /// The error of using memory of another run.
    #[entry]
    fn use_foreign(&mut self, cx: &Cx<Self>, foreign: DeviceSlice<f64>) -> Vec<DeviceError> {
        let dev = cx.device();
        let imported = dev.import(&foreign).map(drop);
        let launched = dev.launch(&COPY, 64, (&foreign, &mut self.buffer)).map(drop);
        let errors = [imported, launched, dev.download(&foreign).map(drop)];
        errors.into_iter().map(|result| result.expect_err("it is of another run")).collect()
    }

    #[entry]
    fn take(&mut self, number: usize, snapshot: DeviceSlice<f64>) {
        assert_eq!(number, self.arguments.len());
        self.arguments.push(snapshot);
    }

    #[entry]
    async fn read_arguments(&mut self, cx: &Cx<Self>) -> Result<Vec<Vec<f64>>> {
        read(&cx.device(), &std::mem::take(&mut self.arguments)).await
    }

    #[entry]
    fn share(&self) -> DeviceSlice<f64> {
        self.buffer.share()
    }

    #[entry]
    fn used_bytes(&self, cx: &Cx<Self>) -> u64 {
        cx.device().used_bytes()
    }
}

async fn read(dev: &Account, snapshots: &[DeviceSlice<f64>]) -> Result<Vec<Vec<f64>>> {
    let mut values = Vec::new();
    for snapshot in snapshots {
        let here = dev.import(snapshot)?;
        values.push(dev.download(&here)?.await?);
    }
    Ok(values)
}

#[test]
fn snapshots_keep_their_values_while_the_sender_writes() {
    let all = [KINDS, MIXED].concat();
    on_each(&all, async |rt: Runtime| {
        let peers = rt.array::<Peer>(16).create(()).await?;
        // Both on one PE, and as far from each other as can be.
        for (from, to) in [(0, 1), (0, 15), (15, 6)] {
            let (from, to) = (peers.at(from), peers.at(to));
            let received = to.receive(from).future();
            from.write_and_share(to, true).await?;
            assert_eq!(received.await?, snapshot_values());
            from.write_and_share(to, false).await?;
            assert_eq!(to.read_arguments().await?, snapshot_values());
        }
        rt.quiescence().await?;
        let used = peers.used_bytes().gather().await?;
        assert!(used.iter().all(|bytes| *bytes == used[0]), "snapshots are gone: {used:?}");
        Ok(())
    });
}

#[test]
fn device_memory_of_another_run_is_refused() {
    for (pes, (first, second)) in PES.into_iter().zip([(0, 2), (2, 1), (1, 0), (1, 1)]) {
        let kept = Arc::new(Mutex::new(None));
        let place = kept.clone();
        let report = run(pes, KINDS[first], async move |rt: Runtime| {
            let peer = rt.array::<Peer>(1).create(()).await?.at(0);
            *place.lock().expect("not poisoned") = Some(peer.share().await?);
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        let foreign = kept.lock().expect("not poisoned").take().expect("the first run has put it there");
        let report = run(pes, KINDS[second], async move |rt: Runtime| {
            for error in rt.array::<Peer>(1).create(()).await?.at(0).use_foreign(foreign).await? {
                let text = error.to_string();
                assert!(matches!(error, DeviceError::OtherDevices { .. }), "{text}");
                assert!(text.contains("Peer[0] on host:0") && text.contains("another run"), "{text}");
            }
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
    }
}

/// Passes its values on, and takes those of the other.
struct Swapper {
    values: DeviceVec<f64>,
    taken: DeviceVec<f64>,
}

#[chare(index = usize)]
impl Swapper {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        let dev = cx.device();
        Ok(Swapper { values: dev.alloc(64)?, taken: dev.alloc(64)? })
    }

    /// Each round adds to what the other has had before.
    #[entry]
    async fn swap(&mut self, cx: &Cx<Self>, with: Element<Swapper>, rounds: usize) -> Result<Copies> {
        let (dev, channel) = (cx.device(), cx.channel::<DeviceSlice<f64>, _>(&with, 0));
        for _ in 0..rounds {
            dev.launch(&ADD, 64, (&mut self.values, 1.0 + cx.index() as f64))?;
            channel.send(self.values.share())?;
            let theirs = dev.import(&channel.recv().await?)?;
            dev.launch(&COPY, 64, (&theirs, &mut self.taken))?.await?;
            std::mem::swap(&mut self.values, &mut self.taken);
        }
        Ok(dev.device().copies())
    }

    /// Adds to a buffer that it is given, on its own device, and hands it on; the last one keeps it.
    #[entry]
    fn hand_on(&mut self, cx: &Cx<Self>, mut buffer: DeviceVec<f64>, left: usize) -> Result<()> {
        drop(cx.device().launch(&ADD, 64, (&mut buffer, 1.0))?);
        match left {
            0 => self.values = buffer,
            left => cx.array().at((cx.index() + 5) % 16).hand_on(buffer, left - 1).send(),
        }
        Ok(())
    }

    /// A buffer of zeros, with which whoever gets it can do what it wants.
    #[entry]
    fn give(&self, cx: &Cx<Self>) -> Result<DeviceVec<f64>> {
        Ok(cx.device().alloc(64)?)
    }

    /// Reads what another one shares, with no word about where that is.
    #[entry]
    async fn read_of(&mut self, cx: &Cx<Self>, theirs: DeviceSlice<f64>) -> Result<(f64, u64)> {
        let dev = cx.device();
        drop(dev.launch(&COPY, 64, (&theirs, &mut self.taken))?);
        drop(theirs);
        Ok((dev.download(&self.taken)?.await?[63], dev.used_bytes()))
    }

    #[entry]
    fn share(&self) -> DeviceSlice<f64> {
        self.values.share()
    }

    #[entry]
    async fn first(&mut self, cx: &Cx<Self>) -> Result<f64> {
        Ok(cx.device().download(&self.values)?.await?[0])
    }
}

#[test]
fn memory_goes_from_device_to_device_past_the_host() {
    for mode in ["inline", "workers=2", "polled"] {
        let report = run(2, &format!("host:2:{mode}"), async |rt: Runtime| {
            let swappers = rt.array::<Swapper>(2).create(()).await?;
            let swap = |index: usize| swappers.at(index).swap(swappers.at(1 - index), 9).future();
            for copies in [swap(0), swap(1)] {
                let Copies { from_host, to_host, from_peers, .. } = copies.await?;
                assert_eq!((from_host, to_host, from_peers), (0, 0, 9));
            }
            // Both values have visited both, in turns, and end with the other after an odd number of rounds.
            assert_eq!((swappers.at(0).first().await?, swappers.at(1).first().await?), (14.0, 13.0));
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{mode}: {report}");
    }
}

#[test]
fn what_is_handed_on_is_used_on_the_device_of_who_has_it() {
    let all = [KINDS, MIXED].concat();
    on_each(&all, async |rt: Runtime| {
        let swappers = rt.array::<Swapper>(16).create(()).await?;
        let ball = swappers.at(0).give().await?;
        swappers.at(7).hand_on(ball, 40).await?;
        rt.quiescence().await?;
        // Forty times five places on from the seventh.
        assert_eq!(swappers.at(15).first().await?, 41.0);
        let shared = swappers.at(15).share().await?;
        for (value, bytes) in swappers.read_of(shared).gather().await? {
            assert_eq!(value, 41.0);
            assert!(bytes <= 4 * 512, "{bytes}");
        }
        rt.quiescence().await?;
        Ok(())
    });
}
