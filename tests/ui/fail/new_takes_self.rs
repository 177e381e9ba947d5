use chare::prelude::*;

struct Hello;

#[chare(index = usize)]
impl Hello {
    fn new(&self) -> Self {
        Hello
    }
}

struct Other;

#[chare(index = usize)]
impl Other {
    async fn new(_this: This<Self>) -> Self {
        Other
    }
}

fn main() {}
