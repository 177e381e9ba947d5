//! Host memory that devices copy from and to, and memory of a device, are two types.

use chare::device::{DeviceVec, InOut, Kernel, Launch};
use chare::prelude::*;

const CLEAR: Kernel<(InOut<f64>,)> =
    Kernel::new("clear", |_: &Launch, (values,): (&mut [f64],)| values.fill(0.0));

struct Block {
    values: DeviceVec<f64>,
}

#[chare(index = usize)]
impl Block {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Block { values: cx.device().alloc(8)? })
    }

    #[entry]
    async fn host_for_device(&mut self, cx: &Cx<Self>) -> Result<()> {
        let dev = cx.device();
        let mut pinned = dev.host_vec::<f64>(8)?;
        dev.launch(&CLEAR, 8, (&mut pinned,))?.await?;
        dev.download(&pinned)?.await?;
        let other = dev.host_vec::<f64>(8)?;
        dev.write(&mut pinned, other)?.await?;
        self.values = pinned;
        Ok(())
    }

    #[entry]
    async fn device_for_host(&mut self, cx: &Cx<Self>) -> Result<()> {
        let dev = cx.device();
        let buffer = dev.alloc::<f64>(8)?;
        dev.write(&mut self.values, buffer)?.await?;
        let buffer = dev.alloc::<f64>(8)?;
        dev.read(&self.values, buffer)?.await?;
        Ok(())
    }
}

fn main() {}
