use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn by_value(self) {}

    #[entry]
    fn boxed(self: Box<Self>) {}

    #[entry]
    fn nobody() {}

    #[entry]
    async fn somebody(_n: u32) {}
}

fn main() {}
