use chare::prelude::*;

struct A;
#[chare]
impl A {
    fn new() -> Option<Self> {
        None
    }
}

struct B;
#[chare]
impl B {
    fn new() {}
}

struct C;
#[chare]
impl C {
    fn new() -> Result<u32> {
        Ok(3)
    }
}

fn main() {}
