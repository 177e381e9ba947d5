use chare::prelude::*;

struct Hello;

impl Hello {
    #[entry]
    fn say_hi(&mut self) {}
}

fn main() {}
