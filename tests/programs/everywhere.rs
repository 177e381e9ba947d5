//! A program whose kernels are written in every language: it prints what it runs on. Started by `devices.rs`.

use chare::device::{InOut, Language, Launch, kernel};
use chare::prelude::*;

kernel! {
    const TWICE: fn twice(x: InOut<u32>) {
        rust: |_: &Launch, (x,): (&mut [u32],)| x.iter_mut().for_each(|x| *x *= 2),
        cuda: "KERNEL twice(InOut<u32> x, Grid grid) {
            u32 i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < grid.x) x[i] *= 2;
        }",
        wgsl: "
            @group(0) @binding(0) var<storage, read_write> x: array<u32>;
            @compute @workgroup_size(64) fn twice(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arrayLength(&x) { x[at.x] *= 2u; }
            }",
    }
}

struct Worker;

#[chare]
impl Worker {
    fn new() -> Self {
        Worker
    }

    #[entry]
    async fn double(&mut self, cx: &Cx<Self>) -> Result<u32> {
        let dev = cx.device();
        let mut x = dev.upload(vec![21])?;
        dev.launch(&TWICE, 1, (&mut x,))?;
        Ok(dev.download(&x)?.await?[0])
    }
}

#[chare::main]
async fn main(rt: Runtime) -> Result<()> {
    println!("runs on {}", rt.device_names().join(", "));
    // The driver that tests stand in for knows no kernels of this program.
    if rt.device_language() != Language::CudaC {
        println!("{}", rt.single::<Worker>().create(()).await?.double().await?);
    }
    Ok(())
}
