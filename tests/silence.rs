//! What a run prints of a panic that it catches: nothing, whatever thread it happens on; a panic on a thread of the
//! program's own goes to the hook that was there before. In a process of its own, since a process has one hook.

use std::sync::Mutex;

use chare::device::{DeviceError, InOut, Kernel, Launch};
use chare::prelude::*;
use chare::{Options, Runtime};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

const PANIC: Kernel<(InOut<u64>,)> =
    Kernel::new("panic", |_: &Launch, _: (&mut [u64],)| panic!("a kernel gave way"));

struct Worker;

#[chare]
impl Worker {
    fn new() -> Self {
        Worker
    }

    #[entry]
    async fn fail(&mut self, cx: &Cx<Self>) -> Result<String> {
        let dev = cx.device();
        let mut buffer = dev.alloc::<u64>(1)?;
        match dev.launch(&PANIC, 1, (&mut buffer,))?.await {
            Err(DeviceError::Fault(fault)) => Ok(fault.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[entry]
    fn give_way(&self) {
        panic!("an entry gave way");
    }
}

fn seen() -> Vec<String> {
    SEEN.lock().expect("no hook panics").clone()
}

#[test]
fn only_panics_of_the_programs_own_threads_are_printed() {
    std::panic::set_hook(Box::new(|info| {
        SEEN.lock().expect("no hook panics").push(info.payload_as_str().unwrap_or("?").to_owned());
    }));
    // Devices that are there before the first run install the hook of kernels before that of PEs.
    let spec = "host".parse().expect("a device");
    drop(chare::device::Devices::open(&spec, chare::device::HostMode::Inline));
    for (number, device) in ["host:inline", "host:workers=1", "host:workers=2"].into_iter().enumerate() {
        let options = Options::default().with_pes(2).with_device(device.parse().expect("a device"));
        let report = Runtime::run(options, async move |rt: Runtime| {
            let workers = rt.group::<Worker>().create(()).await?;
            for fault in workers.fail().gather().await? {
                let place = format!(" at {}:", file!());
                assert!(fault.contains("a kernel gave way") && fault.contains(&place), "{fault}");
            }
            assert!(workers.on(0_usize).give_way().await.is_err());
            assert_eq!(seen().len(), number);
            let ended = std::thread::spawn(|| panic!("a thread of its own")).join();
            assert!(ended.is_err() && seen().len() == number + 1);
            Result::<()>::Ok(())
        });
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{report}");
    }
    assert!(seen().iter().all(|said| said == "a thread of its own"), "{:?}", seen());
}
