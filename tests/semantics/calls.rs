//! Calls: sent, awaited, gathered, and their errors.

use chare::prelude::*;

struct Counter {
    value: u64,
}

#[chare(index = usize)]
impl Counter {
    fn new(start: u64) -> Self {
        Counter { value: start }
    }

    #[entry]
    fn add(&mut self, amount: u64) -> u64 {
        self.value += amount;
        self.value
    }

    #[entry]
    fn whoami(&self, cx: &Cx<Self>) -> (usize, usize) {
        (cx.index(), cx.my_pe().index())
    }

    #[entry]
    async fn ask(&mut self, cx: &Cx<Self>, other: usize) -> Result<u64> {
        let array = cx.array();
        let there = array.at(other).add(1).await?;
        self.value += there;
        Ok(self.value)
    }

    #[entry]
    fn fail(&mut self) -> Result<u64> {
        Err("no luck".into())
    }

    #[entry]
    fn crash(&mut self) {
        panic!("on purpose");
    }

    #[entry]
    async fn reduce(this: This<Self>) -> Result<u64> {
        let value = this.with(|counter| counter.value);
        Ok(this.allreduce(value, reduce::Sum).await?)
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_call_brings_its_value(rt: Runtime) -> Result<()> {
    let counters = rt.array::<Counter>(10).create(100).await?;
    for i in 0..10 {
        assert_eq!(counters.at(i).add(i as u64).await?, 100 + i as u64);
        assert_eq!(counters.at(i).whoami().await?.0, i);
    }
    counters.add(1).await?;
    let values = counters.add(0).gather().await?;
    assert_eq!(values, (0..10).map(|i| 101 + i).collect::<Vec<u64>>());
    assert_eq!(counters.at(3).ask(4).await?, 104 + 106);
    let sums = counters.reduce().gather().await?;
    assert_eq!(sums, vec![1055 + 1 + 106; 10]);
    rt.quiescence().await?;
    let error = counters.at(2).fail().await.unwrap_err();
    assert!(error.to_string().contains("Counter[2].fail failed: no luck"), "{error}");
    let error = counters.at(2).crash().await.unwrap_err();
    assert!(error.to_string().contains("on purpose"), "{error}");
    assert!(matches!(counters.at(2).add(1).await, Err(CallError::Poisoned(_))));
    let error = counters.at(10).add(1).await.unwrap_err();
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    rt.sleep(std::time::Duration::from_millis(1)).await;
    Ok(())
}
