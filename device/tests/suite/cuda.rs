//! The suite on the `cuda` backend, over the stand-in for NVIDIA's driver.

use std::sync::{Arc, Mutex};

use chare_device::{Devices, HostMode};
use cuda_stand_in::StandIn;
use libtest_mimic::Trial;

use crate::apart::apart;
use crate::kernels::{ADD, BOTH, COPY, FILL, GATHER};
use crate::register::register;
use crate::{Case, Table};

/// A case in a process of its own: what it does to a driver ends with it.
pub(crate) fn trial(case: &'static Case, table: &Arc<Mutex<Table>>) -> Trial {
    let name = format!("{} on cuda", case.name);
    let table = table.clone();
    Trial::test(name.clone(), move || {
        let note = |word| {
            let _ = table.lock().unwrap().insert((case.name, "cuda"), word);
        };
        note("FAILED");
        let count = case.devices.to_string();
        apart(&name, &[("STAND_IN_DEVICES", &count)], || {
            register(&ADD);
            register(&BOTH);
            register(&COPY);
            register(&FILL);
            register(&GATHER);
            // With no parameters: its launches are refused, which is a fault that the device outlives.
            let stand_in = StandIn::loaded().expect("the library on the path is the stand-in");
            stand_in.register("panic", &[], |_, _| Ok(()));
            let spec = format!("cuda{}", case.options);
            let devices = Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap();
            (case.run)(&devices);
        });
        note("ok");
        Ok(())
    })
}
