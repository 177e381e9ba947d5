//! A kernel's source may run on any thread, so it cannot hold the proof of being on this one.

use std::marker::PhantomData;

use chare::device::{Kernel, Launch, Out};

/// Only made on the main thread, and stays there.
#[derive(Clone, Copy)]
struct OnMain(PhantomData<*const ()>);

impl OnMain {
    fn touch(&self) {}
}

fn main() {
    let main = OnMain(PhantomData);
    let _kernel: Kernel<(Out<u32>,)> = Kernel::new("touch", move |_: &Launch, (_,): (&mut [u32],)| main.touch());
}
