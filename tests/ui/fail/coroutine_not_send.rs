use std::rc::Rc;

use chare::prelude::*;

struct Hello {
    sum: u32,
}

#[chare]
impl Hello {
    fn new() -> Self {
        Hello { sum: 0 }
    }

    #[entry]
    async fn solve(&mut self, n: u32) -> u32 {
        let count = Rc::new(n);
        std::future::ready(()).await;
        self.sum += *count;
        self.sum
    }

    #[entry]
    async fn serve(this: This<Self>) {
        let count = Rc::new(3);
        std::future::ready(()).await;
        this.with(|s| s.sum += *count);
    }
}

fn main() {}
