//! Everything a signature may contain, without a warning.
#![deny(warnings, missing_docs, unreachable_pub, clippy::all)]

use chare::prelude::*;

/// A point.
#[derive(Clone, Copy)]
pub struct Point {
    x: f64,
}

/// A chare with many methods.
#[derive(Clone)]
pub struct Many {
    x: f64,
}

#[chare]
impl Many {
    const N: usize = 3;

    fn new() -> std::result::Result<Many, String> {
        Ok(Many { x: 0.0 })
    }

    #[entry]
    fn patterns(&mut self, Point { x }: Point, (a, _): (u8, u8), mut y: f64, _: bool) -> f64 {
        y += x + f64::from(a);
        self.x = y;
        y
    }

    #[entry]
    fn arg0(&mut self, arg0: u32, (a, b): (u32, u32)) -> u32 {
        arg0 + a + b
    }

    #[entry]
    fn names_of_ours(&mut self, cx: &Cx<Self>, state: u32, delivery: u32, init: u32) -> u32 {
        let _ = cx;
        state + delivery + init
    }

    #[entry]
    fn lifted(&self, mut others: Vec<Self>, _weights: [f64; Self::N]) -> Option<Self> {
        others.pop()
    }

    #[entry]
    fn r#move(&mut self, r#type: u32) -> u32 {
        r#type
    }

    #[entry]
    fn callback_of(&mut self, _f: fn(&str) -> usize) {}

    #[entry]
    fn explicit(self: &mut Self) {}

    #[entry]
    fn failing(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    #[cfg(any())]
    #[entry]
    fn not_here(&mut self, _x: NoSuchType) {}

    #[deprecated = "it is old"]
    #[entry]
    fn old(&mut self) {}

    #[chare::entry]
    fn by_path(&mut self) {}
}

fn main() {}
