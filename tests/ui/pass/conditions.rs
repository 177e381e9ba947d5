//! Conditions of entries, in all forms, wherever they come from.

#![deny(warnings, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;

use chare::prelude::*;

/// A chare.
pub struct Table {
    now: Now,
    r#type: Option<String>,
    pair: (u32, Box<u32>),
    counts: BTreeMap<u32, u32>,
}

struct Now {
    step: u32,
}

/// What travels.
#[derive(Clone)]
pub struct Face {
    step: (u32, u32),
}

const FIRST: u32 = 1;

impl Table {
    const LAST: u32 = 9;

    fn is_ready(&self) -> bool {
        self.now.step > 0
    }
}

#[chare]
impl Table {
    fn new() -> Self {
        Table { now: Now { step: 0 }, r#type: None, pair: (0, Box::new(0)), counts: BTreeMap::new() }
    }

    #[entry(when = |s: &Self| s.is_ready())]
    fn on_state(&mut self, _a: u32) {}

    #[entry(when = |s: &Table, a: &u32, _b: &String| s.counts.contains_key(a))]
    async fn on_call(&mut self, _a: u32, _b: String) {}

    #[entry(when = move |s, a, face| matches!((s.now.step, a), (FIRST..=Self::LAST, _)) && face.step.0 == *a)]
    async fn inferred(this: This<Self>, a: u32, face: Face) {
        let _ = (this, a, face);
    }

    #[entry(when = |&Self { now: Now { step }, .. }: &Self, &(a, _): &(u32, u32)| step == a)]
    fn patterns(&self, (_a, _b): (u32, u32)) {}

    #[entry(when(self.now.step == step))]
    fn tag(&mut self, cx: &Cx<Self>, step: u32) {
        let _ = (cx, step);
    }

    #[entry(when((face.step.1) == (self.pair.0)))]
    fn part_of_argument(&mut self, _other: String, face: Face) {
        let _ = face;
    }

    #[entry(when(r#type == self.r#type))]
    fn raw(&self, r#type: Option<String>) {
        let _ = r#type;
    }

    #[entry(when(self.pair.1 == boxed))]
    async fn ignored(&mut self, _boxed: Box<u32>) {}
}

macro_rules! gates {
    ($($gate:ident: $condition:expr, $field:ident, $argument:ident;)*) => {$(
        /// A chare from a macro.
        pub struct $gate {
            $field: u32,
        }

        #[chare]
        impl $gate {
            fn new() -> Self {
                $gate { $field: 0 }
            }

            #[entry(when = |gate: &Self| gate.$field > $condition)]
            fn on_state(&mut self) {}

            #[entry(when(self.$field == $argument))]
            fn tag(&mut self, $argument: u32) {
                self.$field = $argument;
            }
        }
    )*};
}

gates! {
    First: 3, step, at;
    Second: FIRST + 1, time, time;
}

fn main() {}
