use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    unsafe fn risky(&mut self) {}

    #[entry]
    extern "C" fn foreign(&mut self) {}

    #[entry]
    const fn constant(&self) -> u32 {
        3
    }
}

fn main() {}
