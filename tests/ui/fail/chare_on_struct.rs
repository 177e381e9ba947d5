use chare::prelude::*;

#[chare(index = usize)]
struct Hello {
    greeted: u32,
}

fn main() {}
