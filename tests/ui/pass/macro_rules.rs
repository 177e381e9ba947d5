//! A chare whose block comes out of another macro, with types and names that were passed to it.
#![deny(warnings)]

use chare::prelude::*;

macro_rules! counter {
    ($name:ident, $number:ty, $entry:ident) => {
        struct $name($number);

        #[chare]
        impl $name {
            fn new(_cx: &Cx<Self>, n: $number) -> Self {
                $name(n)
            }

            #[entry]
            fn $entry(&mut self, n: $number) -> $number {
                self.0 += n;
                self.0
            }

            #[entry]
            async fn slowly(&mut self, n: $number) -> Result<$number> {
                self.0 += n;
                Ok(self.0)
            }
        }
    };
}

counter!(Whole, u64, add);
counter!(Real, f64, plus);

fn _calls(whole: &impl Target<Chare = Whole>, real: &impl Target<Chare = Real>) {
    let _ = whole.add(3);
    let _ = real.plus(3.0);
    let _ = (whole.slowly(3), real.slowly(3.0));
}

fn main() {}
