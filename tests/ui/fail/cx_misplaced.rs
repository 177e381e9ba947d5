use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new(_seed: u64, _cx: &Cx<Self>) -> Self {
        Hello
    }
}

struct Other;

#[chare]
impl Other {
    fn new() -> Self {
        Other
    }

    #[entry]
    fn last(&mut self, _n: u32, _cx: &Cx<Self>) {}

    #[entry]
    fn changed(&mut self, _cx: &mut Cx<Self>) {}

    #[entry]
    fn moved(&mut self, _cx: Cx<Self>) {}

    #[entry]
    fn of_another(&mut self, _cx: &Cx<Hello>) {}

    #[entry]
    fn twice(&mut self, _cx: &Cx<Self>, _again: &Cx<Self>) {}
}

fn main() {}
