#![allow(unused_variables)]

use chare::prelude::*;

struct Gate {
    step: u32,
    is_open: bool,
}

#[chare]
impl Gate {
    #[entry(when = |s: &Self| s.is_open)]
    fn new() -> Self {
        Gate { step: 0, is_open: false }
    }

    #[entry(when = |s: &Self, a: &u32| s.step == *a)]
    fn too_few(&mut self, a: u32, b: String) {}

    #[entry(when = |s: &Self, a: &u32| s.step == *a)]
    fn too_many(&mut self) {}

    #[entry(when = || true)]
    fn none(&mut self, a: u32) {}

    #[entry(when = |s: &Self, b: &u32, a: &u32| s.step == *a)]
    fn swapped(&mut self, a: u32, b: u32) {}

    #[entry(when = |s: &Self, a: u32| s.step == a)]
    fn by_value(&mut self, a: u32) {}

    #[entry(when = |s: &mut Self| s.is_open)]
    fn changes(&mut self) {}

    #[entry(when = |a: &u32| *a > 0)]
    fn without_the_chare(&mut self, a: u32) {}

    #[entry(when = |cx: &Cx<Self>| true)]
    fn with_context(&mut self, cx: &Cx<Self>) {}

    #[entry(when = async |s: &Self| s.is_open)]
    fn waits(&mut self) {}

    #[entry(when)]
    fn bare(&mut self) {}

    #[entry(when())]
    fn empty(&mut self) {}

    #[entry(when = "self.is_open")]
    fn text(&mut self) {}

    #[entry(when = self.is_open)]
    fn no_closure(&mut self) {}

    #[entry(when(self.is_open))]
    fn no_equation(&mut self) {}

    #[entry(when(self.step <= step))]
    fn no_equality(&mut self, step: u32) {}

    #[entry(when(self.step == stpe))]
    fn misspelt(&mut self, step: u32) {}

    #[entry(when(self.step == step))]
    fn argument_missing(&mut self) {}

    #[entry(when(self.step == other))]
    fn other_arguments(&mut self, a: u32, b: u32) {}

    #[entry(when(self.step == self.step))]
    fn no_argument(&mut self, step: u32) {}

    #[entry(when(a == b))]
    fn no_state(&mut self, a: u32, b: u32) {}

    #[entry(when(self == a))]
    fn no_field(&mut self, a: u32) {}

    #[entry(when(self.step == a + 1))]
    fn computed(&mut self, a: u32) {}

    #[entry(when(self.step == a), when = |s: &Self| s.is_open)]
    fn twice(&mut self, a: u32) {}
}

fn main() {}
