use std::cell::Cell;

use chare::prelude::*;

struct Hello {
    count: Cell<u32>,
}

#[chare]
impl Hello {
    fn new() -> Self {
        Hello { count: Cell::new(0) }
    }

    #[entry]
    async fn count(&self) -> u32 {
        std::future::ready(()).await;
        self.count.get()
    }
}

fn main() {}
