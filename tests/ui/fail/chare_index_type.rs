use chare::prelude::*;

struct Hello;

#[chare(index = u32)]
impl Hello {
    fn new() -> Self {
        Hello
    }
}

fn main() {}
