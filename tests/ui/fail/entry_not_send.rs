use std::rc::Rc;

use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn take(&mut self, _count: Rc<u32>) {}

    #[entry]
    fn take_all(&mut self, _n: u32, _count: Rc<u32>) {}

    #[entry]
    fn give(&mut self) -> Rc<u32> {
        Rc::new(3)
    }
}

struct Other;

#[chare]
impl Other {
    fn new(_count: Rc<u32>) -> Self {
        Other
    }
}

fn main() {}
