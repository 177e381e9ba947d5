//! A chare is as visible as its author made it, and its calls work wherever it can be named.
#![deny(warnings, missing_docs, unreachable_pub)]

use chare::prelude::*;

mod inner {
    use chare::prelude::*;

    pub(crate) struct Shared;

    #[chare]
    impl Shared {
        fn new() -> Self {
            Shared
        }

        #[entry]
        fn hi(&mut self) {}
    }

    struct Private;
    struct Message;

    #[chare]
    impl Private {
        fn new() -> Self {
            Private
        }

        #[entry]
        fn hi(&mut self, _message: Message) {}
    }

    fn _use_private(private: &impl Target<Chare = Private>) {
        let _ = private.hi(Message);
    }
}

use inner::{Shared, SharedEntries as _};

fn _calls(shared: &impl Target<Chare = Shared>) {
    let _ = shared.hi();
    let _ = Shared::HI;
}

fn main() {}
