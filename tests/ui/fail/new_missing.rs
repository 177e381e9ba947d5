use chare::prelude::*;

struct Hello;

#[chare(index = usize)]
impl Hello {
    #[entry]
    fn say_hi(&mut self) {}
}

fn main() {}
