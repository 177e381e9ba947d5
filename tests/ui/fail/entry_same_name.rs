use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn greet(&self) {}

    #[entry]
    fn greet(&self, _name: String) {}
}

fn main() {}
