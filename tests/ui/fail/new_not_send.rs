use std::rc::Rc;

use chare::prelude::*;

struct Hello(u32);

#[chare]
impl Hello {
    async fn new() -> Self {
        let count = Rc::new(3);
        std::future::ready(()).await;
        Hello(*count)
    }
}

fn main() {}
