use chare::prelude::*;

struct Hello;

#[chare(index = usize)]
impl Hello {
    fn new() -> Self {
        Hello
    }

    fn new(_seed: u64) -> Self {
        Hello
    }
}

fn main() {}
