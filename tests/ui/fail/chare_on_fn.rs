use chare::prelude::*;

#[chare]
fn hello() {}

fn main() {}
