//! Tests of every form; without `--test` nothing of them is left, not even a warning.
#![deny(warnings)]

#[cfg(test)]
use chare::prelude::*;

#[chare::test]
async fn without_runtime() {}

#[chare::test(pes = 4, device = "host:2")]
async fn with_options(_rt: Runtime) -> Result<()> {
    Ok(())
}

#[chare::test(pes = [1, 2])]
#[should_panic(expected = "because")]
async fn panics(_rt: Runtime) {
    panic!("because");
}

#[chare::test]
#[ignore = "slow"]
async fn ignored() {}

fn main() {}
