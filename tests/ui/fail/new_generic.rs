use chare::prelude::*;

struct Hello(usize);

#[chare]
impl Hello {
    fn new<T: Into<usize>>(seed: T) -> Self {
        Hello(seed.into())
    }
}

fn main() {}
