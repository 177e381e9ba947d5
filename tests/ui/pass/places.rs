//! Reports name a chare and its methods by the place where the user wrote them.

use chare::prelude::*;
use chare::{Chare, Entry, EntryInfo, EntryPoint};

struct Hello;

#[chare(index = usize)]
impl Hello {
    fn new() -> Self {
        Hello
    }

    /// Says hi.
    #[entry]
    fn r#move(&mut self) {}
}

fn place<E: Entry>(_: EntryPoint<E>) -> &'static EntryInfo {
    E::INFO
}

fn main() {
    let (chare, entry) = (Hello::INFO, place(Hello::MOVE));
    assert_eq!((chare.name, chare.line), ("Hello", 9));
    assert_eq!((entry.chare, entry.name, entry.line), ("Hello", "move", 16));
    assert!(chare.file.ends_with("places.rs") && entry.file.ends_with("places.rs"));
}
