//! Looking without waiting: exact where the future was made; elsewhere what has been asked for comes by message. Looking
//! takes nothing from who waits.

use chare::PromiseFuture;

use super::*;

/// Looks at futures that were made elsewhere, or by itself.
struct Looker;

#[chare(index = usize)]
impl Looker {
    fn new() -> Self {
        Looker
    }

    /// Looks at a value before and after it is sent.
    #[entry]
    async fn look_at(this: This<Self>, mut value: PromiseFuture<u64>, open: Promise<()>) -> Result<u64> {
        assert!(!value.is_ready());
        assert!(value.try_take().is_none());
        open.send(())?;
        this.quiescence().await?;
        assert!(value.is_ready(), "it was asked for, and has come");
        let taken = value.try_take().ok_or("it is ready")??;
        assert!(!value.is_ready(), "it is taken");
        assert!(value.try_take().is_none());
        Ok(taken)
    }

    /// Asks for a value without waiting, then gives it back.
    #[entry]
    fn ask_for(&self, mut value: PromiseFuture<u64>) -> PromiseFuture<u64> {
        assert!(value.try_take().is_none());
        value
    }

    /// Waits for a value that was looked at before.
    #[entry]
    async fn look_then_wait(
        this: This<Self>,
        mut value: PromiseFuture<u64>,
        open: Promise<()>,
    ) -> Result<u64> {
        assert!(value.try_take().is_none());
        if this.timeout(Duration::ZERO, &mut value).await.is_ok() {
            return Err("nothing was sent".into());
        }
        assert!(value.try_take().is_none());
        open.send(())?;
        Ok(value.await?)
    }

    /// Looks at its own reduction, in which the last element takes part when the gate opens.
    #[entry]
    async fn reduce(this: This<Self>, key: Option<Key>) -> Result<u64> {
        if let Some(key) = key {
            wait_for_key(&this, key).await?;
        }
        let mut sum = this.allreduce(1_u64, reduce::Sum);
        loop {
            if sum.is_ready() {
                return Ok(sum.try_take().ok_or("it is ready")??);
            }
            this.sleep(Duration::ZERO).await;
        }
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_is_looked_at_where_it_was_made(rt: Runtime) -> Result<()> {
    let (promise, mut value) = rt.promise();
    assert!(!value.is_ready() && value.try_take().is_none());
    promise.send(5)?;
    assert!(value.is_ready());
    assert_eq!(value.try_take().ok_or("it is ready")??, 5);
    assert!(!value.is_ready() && value.try_take().is_none());

    let (promise, values) = rt.promises(2);
    promise.send(1)?;
    assert!(!values.is_ready(), "one is missing");
    promise.send(2)?;
    assert!(values.is_ready());
    assert_eq!(values.await?, [1, 2]);

    let (promise, mut value) = rt.promise::<u64>();
    drop(promise);
    rt.quiescence().await?;
    assert!(value.is_ready());
    assert!(matches!(value.try_take(), Some(Err(CallError::BrokenPromise))));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn calls_and_creations_are_looked_at(rt: Runtime) -> Result<()> {
    let (servers, created) = rt.array::<Server>(NODES).create(()).start();
    rt.quiescence().await?;
    assert!(created.is_ready());
    created.await?;
    for server in [servers.at(0), servers.at(NODES - 1)] {
        let (key, open) = rt.promise();
        let (mut waiting, failed) = (server.echo_after(key, 3).future(), server.fail().future());
        let (all, gathered) = (servers.echo(1).future(), servers.echo(1).gather());
        assert!(!waiting.is_ready() && !failed.is_ready() && !all.is_ready() && !gathered.is_ready());
        rt.quiescence().await?;
        assert!(!waiting.is_ready() && waiting.try_take().is_none());
        assert!(failed.is_ready() && all.is_ready() && gathered.is_ready());
        assert!(matches!(failed.await, Err(CallError::Failed(_))));
        all.await?;
        assert_eq!(gathered.await?, [1; NODES]);
        open.await?.send(())?;
        rt.quiescence().await?;
        assert_eq!(waiting.try_take().ok_or("it is ready")??, 3);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn reductions_are_looked_at(rt: Runtime) -> Result<()> {
    let lookers = rt.array::<Looker>(NODES).create(()).await?;
    let (key, open) = rt.promise();
    let mut key = Some(key);
    let sums: Vec<_> = (0..NODES).rev().map(|index| lookers.at(index).reduce(key.take()).future()).collect();
    open.await?.send(())?;
    for sum in sums {
        assert_eq!(sum.await?, NODES as u64);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "a reading end stays in its process")]
async fn a_value_is_looked_at_elsewhere(rt: Runtime) -> Result<()> {
    let lookers = rt.array::<Looker>(NODES).create(()).await?;
    for looker in [lookers.at(0), lookers.at(NODES - 1)] {
        for waits in [false, true] {
            let (promise, value) = rt.promise();
            let (open, opened) = rt.promise();
            let looking = match waits {
                false => looker.look_at(value, open).future(),
                true => looker.look_then_wait(value, open).future(),
            };
            opened.await?;
            promise.send(9)?;
            assert_eq!(looking.await?, 9);
        }
    }
    Ok(())
}

/// A future that comes back from where it was looked at is at home again.
#[chare::test(pes = [1, 2, 4, 8], one_process = "a reading end stays in its process")]
async fn a_value_is_looked_at_elsewhere_and_then_here(rt: Runtime) -> Result<()> {
    let lookers = rt.array::<Looker>(NODES).create(()).await?;
    for looker in [lookers.at(0), lookers.at(NODES - 1)] {
        for takes in [false, true] {
            let (promise, value) = rt.promise();
            let mut value = looker.ask_for(value).await?;
            assert!(!value.is_ready() && value.try_take().is_none());
            promise.send(4)?;
            assert!(value.is_ready(), "here it is exact");
            let outcome = if takes { value.try_take().ok_or("it is ready")? } else { value.await };
            assert_eq!(outcome?, 4);
        }
    }
    Ok(())
}

/// The futures of a set are looked at while the set waits for them.
#[chare::test(pes = [1, 2, 4, 8])]
async fn looking_takes_nothing_from_who_waits(rt: Runtime) -> Result<()> {
    let servers = rt.array::<Server>(NODES).create(()).await?;
    let (promises, values): (Vec<_>, Vec<_>) = (0..40).map(|_| rt.promise::<u64>()).unzip();
    let mut set: FuturesUnordered<_> = values.into_iter().collect();
    assert!(rt.timeout(Duration::ZERO, set.next()).await.is_err());
    assert!(set.iter_mut().all(|value| !value.is_ready() && value.try_take().is_none()));
    for (number, promise) in (0..).zip(promises) {
        servers.at(number as usize % NODES).fulfil(promise, number).send();
    }
    let mut sum = 0;
    while let Some(value) = set.next().await {
        sum += value?;
    }
    assert_eq!(sum, 40 * 39 / 2);
    Ok(())
}
