use chare::prelude::*;

struct Account(i64);

#[chare]
impl Account {
    fn new() -> Self {
        Account(0)
    }
}

#[chare::main]
async fn main(rt: Runtime) -> Result<()> {
    let account = rt.single::<Account>().create(()).await?;
    let amount = 5;
    account.apply(remote!(|a: &mut Account| a.0 += amount)).await?;
    Ok(())
}
