//! Which device a chare gets: that of its PE, the least loaded of several, the one that it asks for; and arrays that are
//! placed by what devices have left.

use chare::device::{Account, DeviceVec, In, Kernel, Launch, Out};
use chare::prelude::*;
use chare::{DeviceMap, Options, OverDevices, Runtime};

const COPY: Kernel<(In<u32>, Out<u32>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[u32], &mut [u32])| to.copy_from_slice(from));

struct User {
    device: Account,
    buffer: DeviceVec<u32>,
}

#[chare(index = usize)]
impl User {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        let device = cx.device();
        let buffer = device.upload(vec![cx.index() as u32; 4])?;
        Ok(User { device, buffer })
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> (usize, usize) {
        (cx.my_pe().index(), cx.device().device().ordinal())
    }

    /// Copies the buffer to another device, there to another buffer, and back to the host.
    #[entry]
    async fn go_to(&mut self, cx: &Cx<Self>, ordinal: usize) -> Result<(usize, Vec<u32>)> {
        let there = cx.use_device(ordinal);
        let here = there.import(&self.buffer.share())?;
        let mut copy = there.alloc::<u32>(4)?;
        cx.device().launch(&COPY, 4, (&here, &mut copy))?;
        let values = there.download(&copy)?.await?;
        self.device = cx.device();
        Ok((self.device.device().ordinal(), values))
    }

    #[entry]
    fn ask_for(&mut self, cx: &Cx<Self>, ordinal: usize) {
        cx.use_device(ordinal);
    }
}

fn run<Fut>(pes: usize, device: &str, map: DeviceMap, main: impl FnOnce(Runtime) -> Fut)
where
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let device = device.parse().expect("a device");
    let options = Options::default().with_pes(pes).with_device(device).with_device_map(map);
    let report = Runtime::run(options, main).expect("the run starts");
    assert!(report.is_success(), "{report}");
}

/// The devices of the elements of an array with one element on each PE, or with more.
async fn devices_of(rt: &Runtime, count: usize) -> Result<String> {
    let users = rt.array::<User>(count).create(()).await?;
    let places = users.place().gather().await?;
    Ok(places.iter().map(|(_, device)| device.to_string()).collect())
}

#[test]
fn pes_share_devices_or_have_several() {
    for (pes, device, map, devices) in [
        (4, "host:2", DeviceMap::Block, "0011"),
        (4, "host:2", DeviceMap::Cyclic, "0101"),
        (4, "host:2", DeviceMap::List(vec![1, 0, 0]), "1001"),
        (4, "host:4:polled", DeviceMap::Block, "0123"),
        (8, "host:3:workers=2", DeviceMap::Block, "00011122"),
        // Two elements a PE, and two devices.
        (2, "host:4", DeviceMap::Block, "0123"),
        (2, "host:4", DeviceMap::Cyclic, "0213"),
        // A device of three times the speed takes three times as many.
        (1, "host:2@1,3:polled", DeviceMap::Block, "1101"),
    ] {
        run(pes, device, map.clone(), async move |rt| {
            assert_eq!(devices_of(&rt, devices.len()).await?, devices, "{pes} PEs, {device}, {map}");
            Ok(())
        });
    }
}

#[test]
fn a_map_that_names_no_device_is_refused() {
    let device = "host:2".parse().expect("a device");
    let options = Options::default().with_device(device).with_device_map(DeviceMap::List(vec![2]));
    let error = Runtime::run(options, async |_| ()).expect_err("there is no such device").to_string();
    assert_eq!(error, "--device-map names device 2, and there are 2, from 0");
}

#[test]
fn a_chare_may_ask_for_another_device() {
    for device in ["host:2:inline", "host:2:workers=1", "host:2:polled"] {
        run(2, device, DeviceMap::Block, async |rt| {
            let users = rt.array::<User>(2).create(()).await?;
            assert_eq!(users.at(1).go_to(0).await?, (0, vec![1; 4]));
            assert_eq!(users.place().gather().await?, [(0, 0), (1, 0)]);
            let error = users.at(0).ask_for(2).await.expect_err("there are two").to_string();
            assert!(error.contains("there is no device 2: there are 2, from 0"), "{error}");
            Ok(())
        });
    }
}

#[test]
fn a_chare_keeps_its_device_when_it_moves() {
    run(2, "host:2:workers=1", DeviceMap::Block, async |rt| {
        let users = rt.array::<User>(2).create(()).await?;
        users.at(0).migrate(1).await?;
        assert_eq!(users.place().gather().await?, [(1, 0), (1, 1)]);
        assert_eq!(users.at(0).go_to(1).await?, (1, vec![0; 4]));
        Ok(())
    });
}

async fn pes_of(users: &Array<User>) -> Result<String> {
    Ok(users.place().gather().await?.iter().map(|(pe, _)| pe.to_string()).collect())
}

#[test]
fn arrays_are_placed_by_what_devices_have_left() {
    run(2, "host:2@1,3:polled", DeviceMap::Block, async |rt| {
        let users = rt.array::<User>(8).map(OverDevices::new(&rt, 8)).create(()).await?;
        assert_eq!(pes_of(&users).await?, "00111111");
        // The load is level: what comes next is shared out as before.
        let more = rt.array::<User>(4).map(OverDevices::new(&rt, 4)).create(()).await?;
        assert_eq!(pes_of(&more).await?, "0111");
        Ok(())
    });
    // Four buffers of 256 bytes fit on a device, of which one is taken.
    run(2, "host:2@1,9:mem=1KiB:inline", DeviceMap::Block, async |rt| {
        let users = rt.array::<User>(2).create(()).await?;
        let map = OverDevices::with_bytes_each(&rt, 6, 256);
        let more = rt.array::<User>(6).map(map).create(()).await?;
        assert_eq!((pes_of(&users).await?, pes_of(&more).await?), ("01".into(), "000111".into()));
        Ok(())
    });
}
