use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new(_cx: &Cx<Self>, _name: &str) -> Self {
        Hello
    }
}

fn main() {}
