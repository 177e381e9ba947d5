//! A look at a chare on the same PE: at once, or a clear no.

use chare::NotLocal;
use chare::prelude::*;

struct Counter {
    count: u64,
}

#[chare(index = usize)]
impl Counter {
    fn new() -> Self {
        Counter { count: 0 }
    }

    #[entry]
    fn count(&self) -> u64 {
        self.count
    }

    #[entry]
    fn look_at(&self, other: Element<Counter>) -> Result<u64, String> {
        other.local(|other| other.count).map_err(|error| format!("{error:?}"))
    }

    #[entry]
    async fn own(&mut self, cx: &Cx<Self>, started: Promise<Promise<()>>) -> Result<()> {
        let (to, end) = cx.promise();
        started.send(to)?;
        Ok(end.await?)
    }

    #[entry]
    async fn wait(this: This<Self>, count: u64) {
        this.wait_until(|s| s.count >= count).await;
    }

    #[entry]
    fn panic(&self) {
        panic!("as asked");
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_lives_here_is_touched_at_once(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    let here = counters.at(0);
    assert_eq!(
        here.local(|counter| {
            counter.count += 1;
            counter.count
        }),
        Ok(1)
    );
    assert_eq!(here.count().await?, 1);
    let far = counters.at(7);
    match rt.num_pes() {
        1 => assert_eq!(far.local(|counter| counter.count), Ok(0)),
        _ => assert_eq!(far.local(|counter| counter.count), Err(NotLocal::Elsewhere)),
    }
    far.migrate(0).await?;
    assert_eq!(
        far.local(|counter| {
            counter.count += 5;
            counter.count
        }),
        Ok(5)
    );
    assert_eq!(counters.at(8).local(|_| ()), Err(NotLocal::Elsewhere), "it does not exist");
    Ok(())
}

#[chare::test(pes = [1, 2])]
async fn what_is_busy_or_poisoned_says_so(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    let one = counters.at(0);
    assert_eq!(one.look_at(one).await.expect_err("itself").to_string(), "Counter[0].look_at failed: Busy");
    let (to, started) = rt.promise();
    let owner = one.own(to).future();
    let end = started.await?;
    assert_eq!(one.local(|_| ()), Err(NotLocal::Busy));
    end.send(())?;
    owner.await?;
    assert_eq!(one.local(|_| ()), Ok(()));
    one.panic().await.expect_err("it panics");
    assert_eq!(one.local(|_| ()), Err(NotLocal::Poisoned));
    Ok(())
}

#[chare::test(pes = [1, 2])]
async fn conditions_see_the_change(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(8).create(()).await?;
    let waiting = counters.at(0).wait(3).future();
    rt.quiescence().await?;
    for _ in 0..3 {
        assert_eq!(counters.at(0).local(|counter| counter.count += 1), Ok(()));
    }
    waiting.await?;
    Ok(())
}
