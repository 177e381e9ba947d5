use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    const LIMIT: u32 = 3;

    fn new() -> Self {
        Hello
    }

    #[entry]
    fn greet(&self) {}

    #[entry]
    #[allow(non_snake_case)]
    fn Greet(&self) {}

    #[entry]
    fn limit(&self) -> u32 {
        Self::LIMIT
    }
}

fn main() {}
