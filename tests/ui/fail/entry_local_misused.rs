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

    #[entry]
    fn anywhere(&mut self) -> u32 {
        self.0
    }
}

fn misuse(group: Group<Hello>, element: Element<Hello>) {
    group.near().send();
    let _ = element.anywhere().now();
    let _: Callback<()> = element.callback(Hello::NEAR);
}

fn main() {}
