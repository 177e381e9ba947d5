use std::rc::Rc;

use chare::prelude::*;

#[chare::main]
async fn main(_rt: Runtime) -> Result<()> {
    let count = Rc::new(3);
    std::future::ready(()).await;
    println!("{count}");
    Ok(())
}
