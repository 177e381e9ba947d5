use chare::prelude::*;

struct Hello(u32);

#[chare]
impl Hello {
    fn new() -> Self {
        Hello(0)
    }

    #[entry(restart)]
    async fn solve(&mut self) {}

    #[entry(when = |s: &Self, n: &u32| s.0 == *n, priority = 3)]
    fn ghost(&mut self, _n: u32) {}

    #[entry(fast)]
    fn swift(&mut self) {}

    #[entry = "x"]
    fn named(&mut self) {}

    #[entry]
    #[entry]
    fn twice(&mut self) {}
}

fn main() {}
