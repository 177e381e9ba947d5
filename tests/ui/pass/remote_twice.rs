//! Code at one place that is the same twice cannot be told apart, so no run starts.

use chare::prelude::*;
use chare::{CodeTable, Options};

struct Account(i64);

#[chare]
impl Account {
    fn new() -> Self {
        Account(0)
    }
}

macro_rules! twice {
    ($account:ident) => {
        $account.apply(remote!(|a: &mut Account| a.0 += 1)).send();
        $account.apply(remote!(|a: &mut Account| a.0 += 1)).send();
    };
}

async fn program(rt: Runtime) -> Result<()> {
    let account = rt.single::<Account>().create(()).await?;
    twice!(account);
    Ok(())
}

fn main() {
    let error = CodeTable::of_program().expect_err("two have one id").to_string();
    assert_eq!(error.matches("remote_twice.rs:24:5").count(), 2, "{error}");
    let refused = Runtime::run(Options::default().with_pes(1), program).expect_err("it does not start");
    assert_eq!(refused.to_string(), error);
}
