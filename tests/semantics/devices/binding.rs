//! Which device a chare gets: that of its PE, the least loaded of several, the one that it asks for; where it goes when the chare moves,
//! with the chare's buffers; and arrays that are placed by what devices have left.

use std::sync::{Arc, Mutex};

use chare::device::{Account, DeviceVec, In, InOut, Kernel, Launch, Out};
use chare::prelude::*;
use chare::{DeviceMap, Options, OverDevices, Runtime, Warning};

const COPY: Kernel<(In<u32>, Out<u32>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[u32], &mut [u32])| to.copy_from_slice(from));

const ADD: Kernel<(InOut<u32>, u32)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [u32], u32)| {
        buffer.iter_mut().for_each(|x| *x += value);
    });

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
    fn ordinal_of_kept(&self) -> usize {
        self.device.device().ordinal()
    }

    /// Adds on the chare's device.
    #[entry]
    async fn add(&mut self, cx: &Cx<Self>, value: u32) -> Result<Vec<u32>> {
        drop(cx.device().launch(&ADD, 4, (&mut self.buffer, value))?);
        Ok(self.device.download(&self.buffer)?.await?)
    }

    /// Buffers that its device has taken from others.
    #[entry]
    fn copies(&self) -> u64 {
        self.device.device().copies().from_peers
    }

    /// The bytes that it holds, and those that all hold on its device.
    #[entry]
    fn used_bytes(&self) -> (u64, u64) {
        (self.device.used_bytes(), self.device.device().used_bytes())
    }

    /// Adds 1 a round, and moves to the next PE while that is under way. What was shared in the seventh round, and the end.
    #[entry]
    async fn wander(&mut self, cx: &Cx<Self>, rounds: usize) -> Result<[Vec<u32>; 2]> {
        let mut shared = None;
        for round in 0..rounds {
            let done = self.device.launch(&ADD, 4, (&mut self.buffer, 1))?;
            cx.this().migrate((cx.my_pe().index() + 1) % cx.num_pes()).send();
            if round == 6 {
                shared = Some(self.buffer.share());
            }
            done.await?;
        }
        let shared = self.device.download(&shared.expect("there are seven rounds"))?.await?;
        Ok([shared, self.device.download(&self.buffer)?.await?])
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
    let options = Options::default().with_device_map(DeviceMap::List(Vec::new()));
    let error = Runtime::run(options, async |_| ()).expect_err("there is no device in it").to_string();
    assert_eq!(
        error,
        "the device map is a list without devices; name the device of each PE, or take `block`"
    );
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
fn a_chare_uses_the_devices_of_the_pe_that_it_moves_to() {
    for device in ["host:2:inline", "host:2:workers=2", "host:2:polled"] {
        run(4, device, DeviceMap::Block, async |rt| {
            let users = rt.array::<User>(4).create(()).await?;
            // To the other PE of its device, and to one of the other device; the last is where it is.
            for (index, pe) in [(0, 1), (1, 2), (2, 0), (3, 3)] {
                users.at(index).migrate(pe).await?;
            }
            assert_eq!(users.place().gather().await?, [(1, 0), (2, 1), (0, 0), (3, 1)]);
            // An account that it has kept is there too, and nothing was copied by going there.
            let kept = users.ordinal_of_kept().gather().await?;
            assert_eq!((kept, users.copies().gather().await?), (vec![0, 1, 0, 1], vec![0; 4]));
            for index in 0..4 {
                assert_eq!(users.at(index).add(10).await?, [index as u32 + 10; 4]);
            }
            // One buffer has come to each device, and is charged there.
            assert_eq!(users.copies().gather().await?, [1; 4]);
            assert_eq!(users.used_bytes().gather().await?, [(256, 512); 4]);
            Ok(())
        });
    }
}

#[test]
fn a_chare_that_has_chosen_its_device_keeps_it() {
    run(2, "host:3:workers=1", DeviceMap::List(vec![0, 1]), async |rt| {
        let users = rt.array::<User>(2).create(()).await?;
        users.at(0).ask_for(0).await?;
        users.at(1).ask_for(2).await?;
        users.at(0).migrate(1).await?;
        users.at(1).migrate(0).await?;
        assert_eq!(users.place().gather().await?, [(1, 0), (0, 2)]);
        for index in 0..2 {
            assert_eq!(users.at(index).add(5).await?, [index as u32 + 5; 4]);
        }
        assert_eq!(users.copies().gather().await?, [0, 1]);
        Ok(())
    });
}

#[test]
fn a_chare_launches_while_it_moves_between_devices() {
    for pes in [1, 2, 4, 8] {
        for device in ["host:3:inline", "host:3@1,3,2:workers=3", "host:2:polled"] {
            run(pes, device, DeviceMap::Cyclic, async move |rt| {
                let users = rt.array::<User>(6).create(()).await?;
                for (index, values) in users.wander(15).gather().await?.into_iter().enumerate() {
                    // What was shared half way is as it was then.
                    let last = index as u32 + 15;
                    assert_eq!(
                        values,
                        [vec![last - 8; 4], vec![last; 4]],
                        "User[{index}] on {device} at {pes}"
                    );
                }
                Ok(())
            });
        }
    }
}

#[test]
fn a_chare_stays_on_its_device_if_it_does_not_fit_on_another() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let device = "host:2:mem=1KiB".parse().expect("a device");
    let options = Options::default().with_pes(2).with_device(device).on_warning({
        let heard = heard.clone();
        move |warning| match warning {
            Warning::Device(warning) => heard.lock().expect("nobody panics").push(warning.clone()),
            other => panic!("{other}"),
        }
    });
    let report = Runtime::run(options, async |rt: Runtime| -> Result<()> {
        let users = rt.array::<User>(8).create(()).await?;
        users.at(1).migrate(1).await?;
        assert_eq!(users.at(1).place().await?, (1, 0));
        assert_eq!(users.at(1).add(3).await?, [4; 4], "nothing is lost");
        // By its own wish it does not go either.
        users.at(7).ask_for(0).await?;
        assert_eq!(users.at(7).place().await?, (1, 1));
        Ok(())
    });
    assert!(report.expect("the run starts").is_success());
    let heard = std::mem::take(&mut *heard.lock().expect("nobody panics"));
    let texts = heard.iter().map(|warning| Warning::Device(warning.clone()).to_string()).collect::<Vec<_>>();
    assert_eq!(texts.len(), 2, "{texts:?}");
    for (text, (chare, from, to)) in texts.iter().zip([("User[1]", 0, 1), ("User[7]", 1, 0)]) {
        let words = format!(
            "warning: {chare} stays on host:{from} with all its buffers: host:{to} is out of memory: {chare} asked for 256 bytes, \
             1024 of 1024 are in use; held by User["
        );
        assert!(text.starts_with(&words), "{text}");
    }
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
