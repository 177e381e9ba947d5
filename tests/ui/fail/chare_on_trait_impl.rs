use chare::prelude::*;

struct Hello;

#[chare(index = usize)]
impl Default for Hello {
    fn default() -> Self {
        Hello
    }
}

fn main() {}
