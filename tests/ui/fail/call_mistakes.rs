use chare::prelude::*;

struct Hello;

#[chare(index = usize)]
impl Hello {
    fn new(_seed: u64) -> Self {
        Hello
    }

    #[entry]
    fn say_hi(&mut self, _from: usize) -> u32 {
        3
    }

    fn helper(&self) {}
}

async fn call(hello: Element<Hello>) {
    hello.say_hi("me").send();
    hello.say_hi().send();
    hello.helper().send();
}

fn main() {}
