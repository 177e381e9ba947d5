//! A program with a kernel that is written in Rust alone: it prints what it runs on. Started by `devices.rs`.

use chare::device::{InOut, Launch, kernel};
use chare::prelude::*;

kernel! {
    const TWICE: fn twice(x: InOut<u32>) {
        rust: |_: &Launch, (x,): (&mut [u32],)| x.iter_mut().for_each(|x| *x *= 2),
        cuda: "KERNEL twice(InOut<u32> x, Grid grid) { x[0] *= 2; }",
    }
}

kernel! {
    const TRIPLE: fn triple(x: InOut<u32>) {
        rust: |_: &Launch, (x,): (&mut [u32],)| x.iter_mut().for_each(|x| *x *= 3),
    }
}

struct Worker;

#[chare]
impl Worker {
    fn new() -> Self {
        Worker
    }

    #[entry]
    async fn multiply(&mut self, cx: &Cx<Self>) -> Result<u32> {
        let dev = cx.device();
        let mut x = dev.upload(vec![7])?;
        dev.launch(&TWICE, 1, (&mut x,))?;
        dev.launch(&TRIPLE, 1, (&mut x,))?;
        Ok(dev.download(&x)?.await?[0])
    }
}

#[chare::main]
async fn main(rt: Runtime) -> Result<()> {
    println!("runs on {}", rt.device_names().join(", "));
    println!("{}", rt.single::<Worker>().create(()).await?.multiply().await?);
    Ok(())
}
