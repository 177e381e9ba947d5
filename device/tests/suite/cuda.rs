//! The suite on the `cuda` backend: over the stand-in for NVIDIA's driver, each case in a process of its own, or, if
//! `REQUIRE_DEVICE` names `cuda`, over the driver of this machine.

use std::sync::{Arc, Mutex, OnceLock};

use chare_device::cuda::{Compiler, ImageKind, look, ship};
use chare_device::{DeviceSpec, Devices, HostMode, Kernel, Params};
use cuda_stand_in::StandIn;
use libtest_mimic::{Completion, Trial};

use crate::apart::apart;
use crate::kernels::{ADD, BOTH, COPY, FILL, GATHER, LATE, PANIC};
use crate::register::register;
use crate::{Case, Outcome, Table, is_required};

/// What the stand-in says that its devices can.
const CAPABILITY: (u32, u32) = (9, 0);

/// A case on this backend.
pub(crate) fn trial(case: &'static Case, table: &Arc<Mutex<Table>>) -> Trial {
    let name = format!("{} on cuda", case.name);
    let table = table.clone();
    Trial::ignorable_test(name.clone(), move || {
        let note = |outcome| {
            let _ = table.lock().unwrap().insert((case.name, "cuda"), outcome);
        };
        note(Outcome::Failed);
        if !is_required("cuda") {
            let count = case.devices.to_string();
            // The process of the case has what it needs.
            let kernels = std::env::var("CHARE_KERNELS");
            let kernels = kernels.unwrap_or_else(|_| listings().unwrap_or_default().to_owned());
            apart(&name, &[("STAND_IN_DEVICES", &count), ("CHARE_KERNELS", &kernels)], || run(case));
        } else if case.devices <= look().unwrap() {
            run(case);
        } else {
            let reason = format!("it wants {} GPUs, and there are {}", case.devices, look().unwrap());
            note(Outcome::Skipped(reason.clone()));
            return Ok(Completion::ignored_with(reason));
        }
        note(Outcome::Ok);
        Ok(Completion::Completed)
    })
}

fn run(case: &Case) {
    register_all();
    let ordinals = (0..case.devices).map(|ordinal| ordinal.to_string()).collect::<Vec<_>>();
    let spec = format!("cuda:{}{}", ordinals.join(","), case.options);
    let spec: DeviceSpec = spec.parse().unwrap();
    let spec = if case.keeps_records() { spec.with_records() } else { spec };
    let devices = Devices::open(&spec, HostMode::Inline).unwrap();
    (case.run)(&devices);
}

/// Lets the stand-in run the kernels, if it is the driver.
fn register_all() {
    let Some(stand_in) = StandIn::loaded() else { return };
    register(&ADD);
    register(&BOTH);
    register(&COPY);
    register(&FILL);
    register(&GATHER);
    register(&LATE);
    // With no parameters: its launches are refused, which is a fault that the device outlives.
    stand_in.register("panic", &[], |_, _| Ok(()));
}

static LISTINGS: OnceLock<Option<String>> = OnceLock::new();

/// Removes what has been made for the processes of the cases.
pub(crate) fn remove_listings() {
    if let Some(Some(folder)) = LISTINGS.get() {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Where there is no compiler: a folder with a listing for each kernel, which is all that the stand-in wants of code.
fn listings() -> Option<&'static str> {
    let make = || {
        if Compiler::new(None, ImageKind::Cubin).version().is_some() {
            return None;
        }
        let folder = std::env::temp_dir().join(format!("chare-suite-{}", std::process::id()));
        let list = |name: &str, source: &str| {
            assert!(ship(&folder, (name, source, &[]), CAPABILITY, format!("kernel {name}").as_bytes()));
        };
        fn parts<A: Params>(kernel: &Kernel<A>) -> (&'static str, &'static str) {
            (kernel.name(), kernel.cuda_source().unwrap())
        }
        let [add, both, copy, fill] = [parts(&ADD), parts(&BOTH), parts(&COPY), parts(&FILL)];
        for (name, source) in [add, both, copy, fill, parts(&GATHER), parts(&LATE), parts(&PANIC)] {
            list(name, source);
        }
        Some(folder.to_str().unwrap().to_owned())
    };
    LISTINGS.get_or_init(make).as_deref()
}
