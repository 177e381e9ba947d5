use chare::prelude::*;

struct Hello(u32);

#[chare]
impl Hello {
    fn new() -> Self {
        Hello(0)
    }

    #[entry(restart)]
    fn solve(&mut self) {}

    #[entry(inline, when = |s: &Self| s.0 == 1)]
    fn ghost(&mut self) {}

    #[entry(fast)]
    fn swift(&mut self) {}

    #[entry(priority)]
    fn ranked(&mut self) {}

    #[entry(priority = "high")]
    fn high(&mut self) {}

    #[entry(expedited = true)]
    fn urgent(&mut self) {}

    #[entry(expedited, priority = 3)]
    fn twice_ranked(&mut self) {}

    #[entry(inline, local)]
    fn twice_direct(&mut self) {}

    #[entry(inline)]
    async fn coroutine(&mut self) {}

    #[entry(local)]
    async fn local_coroutine(_this: This<Self>) {}

    #[entry = "x"]
    fn named(&mut self) {}

    #[entry]
    #[entry]
    fn twice(&mut self) {}
}

fn main() {}
