use chare::prelude::*;

struct Named<'a>(&'a str);

#[chare]
impl<'a> Named<'a> {
    fn new() -> Self {
        Named("x")
    }
}

struct Other<'a>(&'a str);

#[chare]
impl Other<'_> {
    fn new() -> Self {
        Other("x")
    }
}

fn main() {}
