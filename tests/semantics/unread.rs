//! What nobody reads: promises that are sent in it are broken, as those in any value that is dropped.

use chare::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::is_spread;

/// Gives promises to others, or to nobody.
#[derive(Serialize, Deserialize)]
struct Giver;

#[chare(index = usize)]
impl Giver {
    fn new() -> Self {
        Giver
    }

    #[entry]
    fn give_back(&self, promise: Promise<u64>) -> Promise<u64> {
        promise
    }

    #[entry]
    fn give_back_many(&self, promises: Vec<Promise<u64>>) -> Result<Vec<Promise<u64>>> {
        Ok(promises)
    }

    /// Gives out a promise and says whether it was broken.
    #[entry]
    async fn is_let_down(this: This<Self>, out: Promise<Promise<u64>>) -> Result<bool> {
        let (promise, value) = this.promise();
        out.send(promise)?;
        Ok(is_broken(value.await))
    }

    /// Gathers promises with all others, and looks at none.
    #[entry]
    async fn share(this: This<Self>, promise: Promise<u64>) -> Result<()> {
        drop(this.allreduce(promise, reduce::Gather).await?);
        Ok(())
    }
}

/// What travels through channels here, and nowhere else.
#[derive(Serialize, Deserialize)]
struct Letter(Promise<u64>, Vec<u64>);

/// Travels through channels inside of a process only.
struct Stubborn {
    panics: bool,
}

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        assert!(!self.panics, "it panics rather than leave");
        Err(serde::ser::Error::custom("it does not want to leave"))
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("it never leaves"))
    }
}

/// Writes letters, and reads them if it is told to.
#[derive(Serialize, Deserialize)]
struct Writer;

#[chare]
impl Writer {
    fn new() -> Self {
        Writer
    }

    #[entry]
    fn send_letter(&self, cx: &Cx<Self>, to: Element<Writer>, letter: Letter) -> Result<()> {
        Ok(cx.channel::<Letter, _>(&to, 0).send(letter)?)
    }

    #[entry]
    fn keep_stubborn(&self, cx: &Cx<Self>, panics: bool) -> Result<()> {
        Ok(cx.channel::<Stubborn, _>(&cx.this(), 1).send(Stubborn { panics })?)
    }

    #[entry]
    async fn drop_stubborn(this: This<Self>) -> Result<()> {
        this.channel::<Stubborn, _>(&this.this(), 1).recv().await.map(|_| ())?;
        Ok(())
    }

    #[entry]
    async fn read_letter(this: This<Self>, from: Element<Writer>) -> Result<()> {
        let Letter(promise, words) = this.channel::<Letter, _>(&from, 0).recv().await?;
        Ok(promise.send(words.len() as u64)?)
    }

    #[entry]
    fn keep_letter(&self, cx: &Cx<Self>, letter: Letter) -> Result<()> {
        Ok(cx.channel::<Letter, _>(&cx.this(), 0).send(letter)?)
    }

    #[entry]
    fn panic(&mut self) {
        panic!("on purpose");
    }
}

fn is_broken(value: Result<u64, CallError>) -> bool {
    matches!(value, Err(CallError::BrokenPromise))
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_in_an_outcome_that_nobody_awaits_is_broken(rt: Runtime) -> Result<()> {
    let givers = rt.array::<Giver>(2 * rt.num_pes()).create(()).await?;
    for index in 0..2 * rt.num_pes() {
        let (promise, value) = rt.promise();
        drop(givers.at(index).give_back(promise).future());
        assert!(is_broken(value.await), "{index}");
        let (promise, value) = rt.promise();
        let (another, value_of_another) = rt.promise();
        drop(givers.at(index).give_back_many(vec![promise.clone(), another, promise]).future());
        assert!(is_broken(value.await) && is_broken(value_of_another.await), "{index}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn so_is_one_that_was_made_elsewhere(rt: Runtime) -> Result<()> {
    let givers = rt.array::<Giver>(rt.num_pes()).create(()).await?;
    for maker in 0..rt.num_pes() {
        let (out, promise) = rt.promise();
        let is_let_down = givers.at(maker).is_let_down(out).future();
        let third = givers.at((maker + rt.num_pes() / 2) % rt.num_pes());
        drop(third.give_back(promise.await?).future());
        assert!(is_let_down.await?, "{maker}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_that_is_kept_lives_on_when_another_end_of_it_is_not_read(rt: Runtime) -> Result<()> {
    let givers = rt.array::<Giver>(rt.num_pes()).create(()).await?;
    let (promise, value) = rt.promise();
    let last = givers.at(rt.num_pes() - 1);
    let kept = last.give_back(promise.clone()).await?;
    drop(last.give_back(promise).future());
    rt.quiescence().await?;
    kept.send(5)?;
    assert_eq!(value.await?, 5);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn promises_in_a_gathering_that_nobody_awaits_are_broken(rt: Runtime) -> Result<()> {
    let givers = rt.array::<Giver>(2 * rt.num_pes()).create(()).await?;
    for _ in 0..3 {
        let (promise, value) = rt.promise();
        drop(givers.give_back(promise).gather());
        assert!(is_broken(value.await));
        let (promise, value) = rt.promise();
        drop(givers.give_back_many(vec![promise.clone(), promise]).gather_results());
        assert!(is_broken(value.await));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_in_a_result_for_all_is_broken_where_nobody_waits_for_it(rt: Runtime) -> Result<()> {
    let givers = rt.array::<Giver>(1).create(()).await?;
    let (promise, value) = rt.promise();
    givers.at(0).share(promise).await?;
    assert!(is_broken(value.await));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_promise_in_a_value_of_a_channel_is_broken_with_the_chare_that_has_not_opened_it(
    rt: Runtime,
) -> Result<()> {
    let first = rt.single::<Writer>().create(()).await?;
    let last = rt.single::<Writer>().on_pe(rt.num_pes() - 1).create(()).await?;
    let (promise, value) = rt.promise();
    first.send_letter(last, Letter(promise, vec![1; 100])).await?;
    rt.quiescence().await?;
    last.destroy().await?;
    assert!(is_broken(value.await));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn so_is_one_for_a_chare_that_is_poisoned(rt: Runtime) -> Result<()> {
    let first = rt.single::<Writer>().create(()).await?;
    let last = rt.single::<Writer>().on_pe(rt.num_pes() - 1).create(()).await?;
    let (promise, value) = rt.promise();
    first.send_letter(last, Letter(promise, Vec::new())).await?;
    rt.quiescence().await?;
    let error = last.panic().await.expect_err("it panics");
    assert!(matches!(error, CallError::Panicked(_)), "{error}");
    assert!(is_broken(value.await));
    Ok(())
}

/// The receiver goes round all PEs with what it has not opened.
#[chare::test(pes = [1, 2, 4, 8])]
async fn an_unread_value_of_a_channel_takes_its_promise_along(rt: Runtime) -> Result<()> {
    let first = rt.single::<Writer>().create(()).await?;
    for is_read in [false, true] {
        let traveller = rt.single::<Writer>().create(()).await?;
        let (promise, value) = rt.promise();
        first.send_letter(traveller, Letter(promise, vec![2; 100])).await?;
        for pe in 1..rt.num_pes() {
            rt.quiescence().await?;
            traveller.migrate(pe).await?;
        }
        rt.quiescence().await?;
        if is_read {
            traveller.read_letter(first).await?;
            assert_eq!(value.await?, 100);
        } else {
            traveller.destroy().await?;
            assert!(is_broken(value.await));
        }
    }
    Ok(())
}

/// It is held where it has come, and follows the receiver to a neighbour in the same process.
#[chare::test(pes = [2, 4, 8])]
async fn a_promise_in_a_value_that_is_held_is_broken_where_its_chare_has_gone(rt: Runtime) -> Result<()> {
    let first = rt.single::<Writer>().create(()).await?;
    for is_read in [false, true] {
        let traveller = rt.single::<Writer>().on_pe(rt.num_pes() - 2).create(()).await?;
        let (promise, value) = rt.promise();
        first.send_letter(traveller, Letter(promise, vec![3; 100])).await?;
        rt.quiescence().await?;
        traveller.migrate(rt.num_pes() - 1).await?;
        rt.quiescence().await?;
        if is_read {
            traveller.read_letter(first).await?;
            assert_eq!(value.await?, 100);
        } else {
            traveller.destroy().await?;
            assert!(is_broken(value.await));
        }
    }
    Ok(())
}

/// The letter comes to where the writer lives after that has left again, or ended, and nobody there knows what it is.
#[chare::test(pes = [1, 2, 4, 8])]
async fn what_a_chare_has_sent_to_itself_ends_with_it_and_nobody_is_told(rt: Runtime) -> Result<()> {
    let writer = rt.single::<Writer>().on_pe(rt.num_pes() - 1).create(()).await?;
    writer.migrate(0).await?;
    let (promise, value) = rt.promise();
    let kept = writer.keep_letter(Letter(promise, Vec::new())).future();
    writer.migrate(rt.num_pes() - 1).send();
    writer.destroy().await?;
    kept.await?;
    assert!(is_broken(value.await));
    Ok(())
}

/// The letter is encoded, and then another value does not let itself be.
#[chare::test(pes = [1, 2, 4, 8])]
async fn an_unread_value_keeps_its_promise_when_its_chare_cannot_leave(rt: Runtime) -> Result<()> {
    let first = rt.single::<Writer>().on_pe(0).create(()).await?;
    // Once it is read, its type is known there.
    for (panics, is_read) in [(false, false), (true, false), (true, true)] {
        let traveller = rt.single::<Writer>().on_pe(0).create(()).await?;
        let (promise, value) = rt.promise();
        first.send_letter(traveller, Letter(promise, vec![4; 100])).await?;
        rt.quiescence().await?;
        traveller.migrate(rt.num_pes() - 1).await?;
        traveller.keep_stubborn(panics).await?;
        for _ in 0..2 {
            let outcome = traveller.migrate(0).await;
            assert_eq!(outcome.is_err(), is_spread(&rt), "{outcome:?}");
        }
        if is_read {
            traveller.read_letter(first).await?;
            assert_eq!(value.await?, 100);
            continue;
        }
        traveller.drop_stubborn().await?;
        traveller.migrate(0).await?;
        rt.quiescence().await?;
        traveller.destroy().await?;
        assert!(is_broken(value.await));
    }
    Ok(())
}
