//! What becomes of those who use a channel when its chare breaks, and of others beside a chare that talks to itself.

use chare::prelude::*;

use super::PES;

/// Uses a channel to its neighbour while other methods of it run.
struct Sender {
    is_over: bool,
}

#[chare(index = usize)]
impl Sender {
    fn new() -> Self {
        Sender { is_over: false }
    }

    #[entry]
    fn panic(&self) {
        panic!("as asked");
    }

    /// Sends for as long as there is credit, which is not given back.
    #[entry]
    async fn reserve_for_ever(this: This<Self>) -> Result<()> {
        let channel = this.channel::<u64, _>(&this.array().at(this.index() + 1), 1);
        loop {
            channel.reserve().await.send(1);
        }
    }

    /// Sends once it is told to.
    #[entry]
    async fn send_later(this: This<Self>, begun: Promise<Promise<()>>) -> Result<()> {
        let channel = this.channel::<u64, _>(&this.array().at(this.index() + 1), 2);
        let (to, go_on) = this.promise();
        begun.send(to)?;
        go_on.await?;
        channel.send(1)?;
        Ok(())
    }

    /// As `send_later`, by a right that it has had before.
    #[entry]
    async fn send_permitted(this: This<Self>, begun: Promise<Promise<()>>) -> Result<()> {
        let channel = this.channel::<u64, _>(&this.array().at(this.index() + 1), 3);
        let permit = channel.reserve().await;
        let (to, go_on) = this.promise();
        begun.send(to)?;
        go_on.await?;
        permit.send(1);
        Ok(())
    }

    /// Talks to itself until it is told to stop.
    #[entry]
    async fn talk_to_itself(this: This<Self>) -> Result<u64> {
        let channel = this.channel::<u64, _>(&this.this(), 0);
        channel.send(0)?;
        loop {
            let value = channel.recv().await?;
            if this.with(|s| s.is_over) {
                return Ok(value);
            }
            channel.send(value + 1)?;
        }
    }

    #[entry]
    fn stop(&mut self) {
        self.is_over = true;
    }

    /// Sends to itself and ends badly.
    #[entry]
    fn send_to_itself_and_panic(&self, cx: &Cx<Self>) -> Result<()> {
        cx.channel(&cx.this(), 4).send(1_u64)?;
        panic!("as asked");
    }

    #[entry]
    fn send_to_itself(&self, cx: &Cx<Self>) -> Result<()> {
        Ok(cx.channel(&cx.this(), 4).send(1_u64)?)
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn who_sends_for_a_poisoned_chare_panics_and_the_run_goes_on(rt: Runtime) -> Result<()> {
    let senders = rt.array::<Sender>(2).create(()).await?;
    let sender = senders.at(0);
    let reserving = sender.reserve_for_ever().future();
    let (to, begun) = rt.promise();
    let sending = sender.send_later(to).future();
    let send = begun.await?;
    let (to, begun) = rt.promise();
    let permitted = sender.send_permitted(to).future();
    let send_permitted = begun.await?;
    rt.quiescence().await?;
    assert!(matches!(sender.panic().await, Err(CallError::Panicked(_))));
    send.send(())?;
    send_permitted.send(())?;
    for sending in [reserving, sending, permitted] {
        let Err(CallError::Panicked(panic)) = sending.await else { panic!("it cannot send") };
        assert!(panic.location.contains("semantics/channel_ends.rs"), "{panic}");
        let text = "Sender was poisoned by an earlier panic, so this coroutine of it cannot go on either";
        assert_eq!(panic.message, text);
    }
    rt.quiescence().await?;
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_chare_that_talks_to_itself_lets_others_run(rt: Runtime) -> Result<()> {
    let senders = rt.array::<Sender>(8).create(()).await?;
    let talking: Vec<_> = (0..8).map(|index| senders.at(index).talk_to_itself().future()).collect();
    // Each of them beside others of its PE, which talk all the time.
    for index in 0..8 {
        senders.at(index).stop().await?;
    }
    for talk in talking {
        talk.await?;
    }
    Ok(())
}

#[test]
fn what_a_chare_has_sent_to_itself_goes_with_it() {
    for pes in PES {
        let report = super::run(pes, async |rt: Runtime| {
            let senders = rt.array::<Sender>(8).create(()).await?;
            let broken = senders.at(0).send_to_itself_and_panic().await;
            assert!(matches!(broken, Err(CallError::Panicked(_))));
            let singles = rt.array_sparse::<Sender>().create_empty();
            let sent = singles.insert(7, ()).await?.send_to_itself().future();
            singles.at(7).destroy().send();
            sent.await?;
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
    }
}
