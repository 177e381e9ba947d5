use chare::prelude::*;

struct Hello;

/// Is not `Clone`.
struct Once;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry(restart)]
    async fn solve(&mut self, _once: Once) {}
}

fn main() {}
