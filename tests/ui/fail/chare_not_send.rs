use std::rc::Rc;

use chare::prelude::*;

struct Hello {
    names: Rc<Vec<String>>,
}

#[chare]
impl Hello {
    fn new() -> Self {
        Hello {
            names: Rc::new(Vec::new()),
        }
    }
}

fn main() {}
