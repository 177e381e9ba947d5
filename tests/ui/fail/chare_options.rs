use chare::prelude::*;

struct A;
#[chare(idx = usize, keep_after_panic)]
impl A {
    fn new() -> Self {
        A
    }
}

struct B;
#[chare(index = usize, index = (usize, usize))]
impl B {
    fn new() -> Self {
        B
    }
}

struct C;
#[chare(index, keep_after_panic = true)]
impl C {
    fn new() -> Self {
        C
    }
}

struct D;
#[chare(usize)]
impl D {
    fn new() -> Self {
        D
    }
}

struct E<T>(T);
#[chare(types = E<u8>)]
impl<T: Send + 'static> E<T> {
    fn new(value: T) -> Self {
        E(value)
    }
}

struct F;
#[chare(types = [F])]
impl F {
    fn new() -> Self {
        F
    }
}

fn main() {}
