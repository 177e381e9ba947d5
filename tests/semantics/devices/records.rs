//! What devices were used for: in the profile of a run, and asked by a chare.

use chare::DeviceProfile;
use chare::device::Grid;

use super::*;

#[chare]
impl Recorded {
    fn new() -> Self {
        Recorded
    }

    /// Launches and copies; what its own record then says.
    #[entry]
    async fn work(&mut self, cx: &Cx<Self>, launches: u64) -> Result<Option<(u64, u64, u64)>> {
        let dev = cx.device();
        let mut buffer = dev.upload(vec![1.0; 100])?;
        for _ in 0..launches {
            dev.launch(&ADD, 100, (&mut buffer, 1.0))?.await?;
        }
        dev.download(&buffer)?.await?;
        Ok(dev.usage().map(|usage| (usage.launches, usage.from_host_bytes, usage.to_host_bytes)))
    }
}

struct Recorded;

#[test]
fn a_profile_says_what_each_device_was_used_for() {
    for (pes, kind) in [(1, "inline"), (2, "inline"), (2, "workers=2"), (4, "polled")] {
        let device = format!("host:2:{kind}").parse().expect("a device");
        let options = Options::default().with_pes(pes).with_device(device).with_profile(true);
        let report = Runtime::run(options, async move |rt: Runtime| {
            for (pe, launches) in [(0, 3), (pes - 1, 4)] {
                let chare = rt.single::<Recorded>().on_pe(pe).create(()).await?;
                assert_eq!(chare.work(launches).await?, Some((launches, 800, 800)));
            }
            Result::<()>::Ok(())
        });
        let report = report.expect("the host device is always there");
        let profile = report.profile().unwrap_or_else(|| panic!("it was asked for: {report}"));
        let launches: Vec<_> = profile.devices.iter().map(|device| device.usage.launches).collect();
        // A PE that has both devices deals them out.
        assert_eq!(launches, [3, 4], "{pes} PEs, {kind}");
        assert!(profile.to_string().contains("\nhost:0: ") && profile.devices[1].name == "host:1");
        assert!(profile.devices[0].usage.launch_time > std::time::Duration::ZERO);
        // Each kernel has its part: this one has all.
        for DeviceProfile { usage, kernels, .. } in &profile.devices {
            let [add] = &kernels[..] else { panic!("one kernel was launched: {kernels:?}") };
            assert_eq!(
                (&*add.kernel, add.launches, add.elements),
                ("add", usage.launches, 100 * usage.launches)
            );
            assert_eq!((add.largest, add.launch_time), (Grid::from(100), usage.launch_time));
        }
        let text = profile.to_string();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("100 x 1 x 1")).collect();
        let cells: Vec<Vec<&str>> =
            lines.iter().map(|line| line.split_whitespace().take(3).collect()).collect();
        assert_eq!(cells, [["add", "3", "300"], ["add", "4", "400"]], "{text}");
    }
}

#[test]
fn without_a_profile_there_are_no_records() {
    on_each(&KINDS, async |rt: Runtime| {
        let chare = rt.single::<Recorded>().create(()).await?;
        assert_eq!(chare.work(2).await?, None);
        Ok(())
    });
}
