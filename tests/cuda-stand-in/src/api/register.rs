//! What a driver has not: functions for tests.

use std::ffi::c_void;

use super::{In, driver};
use crate::code::Code;
use crate::kernel::{Kernel, Parameter, Run};
use crate::world::world;

driver! {
    fn stand_in_register_kernel(
        name: In<u8>,
        parameters: In<[u32; 2]>,
        count: usize,
        run: Run,
        state: *const c_void,
    ) {
        let parameters = parameters.read_all(count)?.into_iter().map(Parameter::decode).collect();
        world().registry.add(Kernel::new(name.text()?, parameters, run, state));
        Ok(())
    }

    fn stand_in_fail_device(device: i32, code: i32) {
        let mut state = world().lock();
        let device = state.check_device(device)?;
        state.poison(device, Code(code));
        world().finished.notify_all();
        world().runnable.notify_all();
        Ok(())
    }

    fn stand_in_call_count(name: In<u8>, count: super::Out<u64>) {
        count.put(world().call_count(&name.text()?))
    }
}
