//! A reducer takes values of its own kind, a tuple of them a tuple of as many.

use chare::prelude::*;

struct Block;

#[chare(index = usize)]
impl Block {
    fn new() -> Self {
        Block
    }

    #[entry]
    fn finish_step(&self, cx: &Cx<Self>) {
        cx.contribute((1, 2.0, 3), (reduce::Sum, reduce::Max), Callback::ignore());
        cx.contribute(1, reduce::Concat, Callback::ignore());
        cx.contribute(1.0, reduce::Xor, Callback::ignore());
    }
}

fn main() {}
