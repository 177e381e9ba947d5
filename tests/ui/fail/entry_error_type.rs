use chare::prelude::*;

struct NotAnError;

struct Hello;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn try_it(&mut self) -> Result<u32, NotAnError> {
        Err(NotAnError)
    }
}

fn main() {}
