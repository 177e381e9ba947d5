use chare::prelude::*;

struct Face;

pub struct Block;

#[chare]
impl Block {
    fn new() -> Self {
        Block
    }

    #[entry]
    fn ghost(&mut self, _face: Face) {}
}

fn main() {}
