use chare::prelude::*;

struct Hello;

#[chare(index = usize)]
impl Hello {
    #[entry]
    fn new() -> Self {
        Hello
    }
}

fn main() {}
