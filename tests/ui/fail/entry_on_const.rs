use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    #[entry]
    const SIZE: usize = 3;

    fn new() -> Self {
        Hello
    }
}

fn main() {}
