use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn not_async(_this: This<Self>) {}

    #[entry]
    async fn and_self(&mut self, _this: This<Self>) {}

    #[entry]
    async fn and_cx(_this: This<Self>, _cx: &Cx<Self>) {}

    #[entry]
    async fn by_reference(_this: &This<Self>) {}

    #[entry]
    async fn of_another(_this: This<String>) {}

    #[entry]
    async fn late(_n: u32, _this: This<Self>) {}
}

fn main() {}
