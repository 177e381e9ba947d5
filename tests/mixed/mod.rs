//! One message with device memory that goes by several paths, and what is read where it comes.

use chare::Bulk;
use chare::device::{Account, DeviceSlice};
use chare::prelude::*;
use cuda_stand_in::StandIn;
use serde::{Deserialize, Serialize};

use super::{LONG, bytes, path};

const SHORT: usize = 1000;
const MANY: usize = 1200;

/// What one message brings, each with other contents.
#[derive(Serialize, Deserialize)]
struct Load {
    /// On the sender's device: lent, or sent by MPI, or staged, the long one in pieces.
    own: DeviceSlice<u8>,
    long: DeviceSlice<u8>,
    /// On another device of the sender's process.
    near: DeviceSlice<u8>,
    plain: Bulk<u8>,
    /// Came to all staged, and lies in the host's memory.
    kept: DeviceSlice<u8>,
    /// Of the process that it goes to: where that has lent it, it is staged on its way back.
    back: DeviceSlice<u8>,
    long_back: DeviceSlice<u8>,
    empty: DeviceSlice<u8>,
}

/// One on each PE, each of another device than the next.
struct Carrier {
    kept: Option<DeviceSlice<u8>>,
}

#[chare]
impl Carrier {
    fn new() -> Self {
        Carrier { kept: None }
    }

    #[entry]
    fn keep(&mut self, share: DeviceSlice<u8>) {
        self.kept = Some(share);
    }

    #[entry]
    fn make(&self, cx: &Cx<Self>, len: usize, seed: usize) -> Result<DeviceSlice<u8>> {
        Ok(cx.device().upload(bytes(len, seed))?.share())
    }

    /// How often its device has copied to the host and from other devices, and how often its process has opened memory of another one.
    #[entry]
    fn counts(&self, cx: &Cx<Self>) -> [u64; 3] {
        let copies = cx.device().device().copies();
        let opened = StandIn::loaded().map_or(0, |gpus| gpus.call_count("cuIpcOpenMemHandle_v2"));
        [copies.to_host, copies.from_peers, opened]
    }

    /// Sends everything in one message, with memory of the carrier next to it: how many copies to the host its process has made for that.
    #[entry]
    async fn load_and_send(this: This<Self>, next: Element<Carrier>, to: Element<Carrier>) -> Result<u64> {
        let dev = this.device();
        let make = |len, seed| Ok::<_, chare::device::DeviceError>(dev.upload(bytes(len, seed))?.share());
        let load = Load {
            own: make(SHORT, 1)?,
            long: make(LONG, 2)?,
            near: next.make(SHORT, 3).await?,
            plain: bytes(SHORT, 4).into(),
            kept: this.with(|carrier| carrier.kept.clone()).ok_or("it has kept nothing")?,
            back: to.make(SHORT, 6).await?,
            long_back: to.make(LONG, 7).await?,
            empty: make(0, 8)?,
        };
        let own = || dev.device().copies().to_host;
        let before = own() + next.counts().await?[0];
        to.look(load).await?;
        Ok(own() + next.counts().await?[0] - before)
    }

    /// Sends more than go beside a frame: the first ones by the path that there is, and what is packed by way of the host.
    #[entry]
    async fn send_many(this: This<Self>, to: Element<Carrier>) -> Result<()> {
        let dev = this.device();
        let shares = (0..MANY).map(|seed| Ok(dev.upload(bytes(1 + seed % 5, seed))?.share()));
        Ok(to.look_at_many(shares.collect::<Result<_>>()?).await?)
    }

    #[entry]
    async fn look_at_many(this: This<Self>, shares: Vec<DeviceSlice<u8>>) -> Result<()> {
        assert_eq!(shares.len(), MANY);
        for (seed, share) in shares.iter().enumerate() {
            assert_eq!(seen(&this.device(), share).await?, bytes(1 + seed % 5, seed), "{seed}");
        }
        Ok(())
    }

    #[entry]
    async fn look(this: This<Self>, load: Load) -> Result<()> {
        let Load { own, long, near, plain, kept, back, long_back, empty } = load;
        assert_eq!(*plain, bytes(SHORT, 4));
        let dev = this.device();
        for (share, len, seed) in [
            (own, SHORT, 1),
            (long, LONG, 2),
            (near, SHORT, 3),
            (kept, SHORT, 5),
            (back, SHORT, 6),
            (long_back, LONG, 7),
            (empty, 0, 8),
        ] {
            assert_eq!(seen(&dev, &share).await?, bytes(len, seed), "{len} bytes, {seed}");
        }
        Ok(())
    }
}

/// What a share holds, as a copy on the device of this account has it.
async fn seen(dev: &Account, share: &DeviceSlice<u8>) -> Result<Vec<u8>> {
    let copy = dev.copy(share)?;
    Ok(dev.download(&copy)?.await?)
}

/// Between processes both ways, and inside of one.
pub(super) async fn mixed_paths(rt: Runtime) -> Result<()> {
    let carriers = rt.group::<Carrier>().create(()).await?;
    carriers.keep(carriers.on(0).make(SHORT, 5).await?).await?;
    let last = rt.num_pes() - 1;
    assert_eq!(last, 3, "two processes of two PEs");
    for (from, next, to) in [(0, 1, last), (last, last - 1, 0), (0, 1, 1)] {
        let [_, peers, opened] = carriers.on(to).counts().await?;
        let copies = carriers.on(from).load_and_send(carriers.on(next), carriers.on(to)).await?;
        let [_, peers_since, opened_since] = carriers.on(to).counts().await?;
        let is_between = from.abs_diff(to) > 1;
        match &*path() {
            // What is lent is not copied. Both that were lent by the other process go back by way of the host, as does what is empty.
            "auto" | "ipc" if is_between => {
                assert_eq!(copies, 3);
                assert!(opened_since > opened && peers_since > peers, "{opened_since} {peers_since}");
            }
            // All of the sender's process, and what is long in pieces where that is not the host's memory.
            "staged" if is_between => assert!(copies >= 4, "{copies}"),
            // By MPI, or in the process.
            _ => assert_eq!(opened_since, opened),
        }
        carriers.on(from).send_many(carriers.on(to)).await?;
        let [_, peers_of_many, _] = carriers.on(to).counts().await?;
        assert!(
            &*path() != "mpi" || !is_between || peers_of_many == peers_since,
            "MPI has brought it to the device of the PE that it is for: {peers_since} {peers_of_many}"
        );
        assert!(is_between || peers_since > peers, "memory of one is read on the other: {peers_since}");
    }
    Ok(())
}
