use chare::prelude::*;

struct Hello;

#[chare(indx = usize)]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn greet(&self, _name: &str) -> &str {
        "hello"
    }

    #[entry(swift)]
    fn send(self, _cx: &mut Cx<Self>) {}

    // This one is right, and can be called although the others are not.
    #[entry]
    fn right(&self, _n: u32) {}
}

fn call(hello: Element<Hello>) {
    hello.right(3).send();
}

fn main() {}
