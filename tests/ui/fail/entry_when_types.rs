#![allow(unused_variables)]

use chare::prelude::*;

struct Weight(f64);

struct Gate {
    step: u32,
    weight: Weight,
}

#[chare]
impl Gate {
    fn new() -> Self {
        Gate { step: 0, weight: Weight(0.0) }
    }

    #[entry(when = |s: &Self| s.step)]
    fn no_truth(&mut self) {}

    #[entry(when = |s: &Self, a: &u64| s.step == *a)]
    fn other_type(&mut self, a: u32) {}

    #[entry(when = |s: &Self| s.stpe > 0)]
    fn no_such_field(&mut self) {}

    #[entry(when(self.step == a))]
    fn types_differ(&mut self, a: u64) {}

    #[entry(when(self.weight == weight))]
    fn no_tag(&mut self, weight: Weight) {}

    #[entry(when(self.stpe == step))]
    fn tag_misspelt(&mut self, step: u32) {}
}

fn main() {}
