use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn gather(&self) -> u32 {
        3
    }
}

struct Group;

#[chare]
impl Group {
    fn new() -> Self {
        Group
    }

    // Only proxies of arrays have this one.
    #[entry]
    fn shape(&self) {}
}

struct Array;

#[chare(index = usize)]
impl Array {
    fn new() -> Self {
        Array
    }

    #[entry]
    fn shape(&self) {}
}

fn main() {}
