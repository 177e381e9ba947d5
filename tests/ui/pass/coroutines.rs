//! Coroutines of both kinds, with and without context, and constructors that suspend or fail.
#![deny(warnings)]

use chare::prelude::*;

struct Solver {
    sum: u32,
}

#[chare(index = usize, keep_after_panic)]
impl Solver {
    async fn new(_cx: &Cx<Self>, start: u32, step: u32) -> Result<Self> {
        std::future::ready(()).await;
        Ok(Solver { sum: start + step })
    }

    #[entry]
    async fn add(&mut self, _cx: &Cx<Self>, n: u32) -> Result<u32> {
        self.wait().await;
        self.sum += n;
        Ok(self.sum)
    }

    #[entry]
    async fn sum(&self) -> u32 {
        self.wait().await;
        self.sum
    }

    #[entry]
    async fn serve(this: This<Self>, n: u32) -> u32 {
        this.with(|s| s.sum += n);
        std::future::ready(()).await;
        this.with(|s| s.sum)
    }

    async fn wait(&self) {
        std::future::ready(()).await;
    }
}

#[chare::main]
async fn main(rt: Runtime) -> Result<()> {
    let solvers = rt.array::<Solver>(1).create((1, 2)).await?;
    let solver = solvers.at(0);
    assert_eq!(solver.add(4).await?, 7);
    assert_eq!(solver.serve(3).await?, 10);
    assert_eq!(solver.sum().await?, 10);
    Ok(())
}
