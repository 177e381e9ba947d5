use chare::prelude::*;

struct Element;

#[chare(index = usize)]
impl Element {
    fn new() -> Self {
        Element
    }
}

struct Member;

#[chare]
impl Member {
    fn new(_size: usize) -> Self {
        Member
    }
}

async fn create(rt: Runtime) -> Result<()> {
    rt.group::<Element>().create(()).await?;
    rt.array::<Member>(3).create(7).await?;
    rt.group::<Member>().create("seven").await?;
    Ok(())
}

fn main() {}
