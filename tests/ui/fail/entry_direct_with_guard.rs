use chare::prelude::*;

struct Hello(u32);

#[chare]
impl Hello {
    fn new() -> Self {
        Hello(0)
    }

    #[entry(local)]
    fn near(&mut self) -> u32 {
        self.0
    }

    #[entry(inline)]
    fn at_once(&mut self) -> u32 {
        self.0
    }

    #[entry]
    fn by_message(&mut self) -> u32 {
        self.0
    }
}

fn misuse(element: Element<Hello>) {
    let guard = remote!(|_: &Hello| chare::Decision::Run);
    let _ = element.near().when(guard);
    element.at_once().when(guard).send();
    // These are right.
    element.by_message().when(guard).when(guard).send();
    element.apply(remote!(|_: &mut Hello| ())).when(guard).send();
}

fn main() {}
