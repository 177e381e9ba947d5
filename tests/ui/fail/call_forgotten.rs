#![deny(unused_must_use)]

use chare::prelude::*;

struct Hello;

#[chare(index = usize)]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn say_hi(&mut self) {}
}

fn call(hellos: Array<Hello>) {
    hellos.at(3).say_hi();
    hellos.say_hi();
}

fn main() {}
