use chare::prelude::*;

#[chare::main]
async fn main(_rt: Runtime) -> u32 {
    3
}
