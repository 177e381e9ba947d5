//! Channels to elements of sparse arrays that are destroyed, and inserted again under the same index.

use std::sync::Arc;

use chare::prelude::*;
use chare::{Channel, ChannelError, PeId};

const TAG: u64 = 1;

/// Talks to another of its array.
struct Talker;

#[chare(index = usize)]
impl Talker {
    /// One that fails has sent to `peer` before.
    fn new(cx: &Cx<Self>, fails_after: Option<(Element<Talker>, u64)>) -> Result<Self> {
        let Some((peer, value)) = fails_after else { return Ok(Talker) };
        cx.channel::<u64, _>(&peer, TAG).send(value)?;
        Err("no admittance".into())
    }

    #[entry]
    fn put(&self, cx: &Cx<Self>, peer: Element<Talker>, values: Vec<u64>) -> Result<()> {
        let channel = cx.channel::<u64, _>(&peer, TAG);
        values.into_iter().try_for_each(|value| channel.send(value))?;
        Ok(())
    }

    #[entry]
    fn send_text(&self, cx: &Cx<Self>, peer: Element<Talker>) -> Result<()> {
        Ok(cx.channel::<String, _>(&peer, TAG).send("text".to_owned())?)
    }

    /// Opens the channel and forgets it.
    #[entry]
    fn open(&self, cx: &Cx<Self>, peer: Element<Talker>) {
        let _ = cx.channel::<u64, _>(&peer, TAG);
    }

    #[entry]
    async fn receive(this: This<Self>, peer: Element<Talker>, count: usize) -> Result<Vec<u64>> {
        let channel = this.channel::<u64, _>(&peer, TAG);
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(channel.recv().await?);
        }
        Ok(values)
    }

    /// Receives until it hears that the peer has ended, or has never come to be; goes on when it is told to, and receives as many from the next. Says
    /// how many the first has sent.
    #[entry]
    async fn receive_from_two(
        this: This<Self>,
        peer: Element<Talker>,
        ended: Promise<Promise<()>>,
    ) -> Result<(usize, Vec<u64>)> {
        let channel = this.channel::<u64, _>(&peer, TAG);
        let mut count = 0;
        let error = loop {
            match channel.recv().await {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ChannelError::Peer(_)), "{error}");
        let again = channel.try_recv().expect_err("nobody has come");
        assert!(matches!(again, ChannelError::Peer(CallError::NoElement(_))), "{again}");
        let (to, go_on) = this.promise();
        ended.send(to)?;
        go_on.await?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(channel.recv().await?);
        }
        Ok((count, values))
    }

    /// Sends through all windows there are.
    #[entry]
    async fn send_many(this: This<Self>, peer: Element<Talker>, count: u64) -> Result<()> {
        let channel = this.channel::<u64, _>(&peer, TAG);
        for value in 0..count {
            channel.reserve().await.send(value);
        }
        Ok(())
    }

    #[entry]
    fn panic(&self) {
        panic!("as asked");
    }
}

async fn talkers(rt: &Runtime) -> Result<(SparseArray<Talker>, [Element<Talker>; 2])> {
    let talkers = rt.array_sparse::<Talker>().create_empty();
    for index in [0, 7] {
        talkers.insert(index, None).await?;
    }
    Ok((talkers, [talkers.at(0), talkers.at(7)]))
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_element_that_comes_again_has_fresh_channels(rt: Runtime) -> Result<()> {
    let (talkers, [stays, comes]) = talkers(&rt).await?;
    for life in 0..4 {
        let values: Vec<_> = (life * 10..life * 10 + 5).collect();
        comes.put(stays, values.clone()).await?;
        assert_eq!(stays.receive(comes, 5).await?, values);
        stays.put(comes, values.clone()).await?;
        assert_eq!(comes.receive(stays, 5).await?, values);
        comes.destroy().await?;
        talkers.insert(7, None).on_pe(life as usize % rt.num_pes()).await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn who_stays_may_send_first(rt: Runtime) -> Result<()> {
    let (talkers, [stays, comes]) = talkers(&rt).await?;
    for life in 0..4 {
        let values: Vec<_> = (life * 10..life * 10 + 5).collect();
        stays.put(comes, values.clone()).await?;
        assert_eq!(comes.receive(stays, 3).await?, values[..3], "the others are never read");
        rt.quiescence().await?;
        comes.destroy().await?;
        talkers.insert(7, None).await?;
        rt.quiescence().await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_was_not_read_comes_before_what_the_next_one_sends(rt: Runtime) -> Result<()> {
    let (talkers, [stays, comes]) = talkers(&rt).await?;
    for life in 0..3 {
        comes.put(stays, vec![life * 10, life * 10 + 1, life * 10 + 2, life * 10 + 3]).await?;
        rt.quiescence().await?;
        comes.destroy().await?;
        talkers.insert(7, None).await?;
    }
    comes.put(stays, vec![30]).await?;
    let values = stays.receive(comes, 13).await?;
    assert_eq!(values, [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23, 30]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn who_waits_hears_of_the_end_and_then_from_the_next(rt: Runtime) -> Result<()> {
    let (talkers, [stays, comes]) = talkers(&rt).await?;
    let (to, ended) = rt.promise();
    let received = stays.receive_from_two(comes, to).future();
    comes.put(stays, vec![1, 2, 3]).await?;
    rt.quiescence().await?;
    comes.destroy().await?;
    let go_on = ended.await?;
    talkers.insert(7, None).await?;
    comes.put(stays, vec![4, 5, 6]).await?;
    rt.quiescence().await?;
    go_on.send(())?;
    assert_eq!(received.await?, (3, vec![4, 5, 6]));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn credit_is_for_one_life(rt: Runtime) -> Result<()> {
    let (talkers, [stays, comes]) = talkers(&rt).await?;
    for _ in 0..3 {
        let sent = comes.send_many(stays, 3_000).future();
        let values = stays.receive(comes, 2_900).await?;
        assert_eq!(values, (0..2_900).collect::<Vec<_>>());
        sent.await?;
        rt.quiescence().await?;
        comes.destroy().await?;
        assert_eq!(stays.receive(comes, 100).await?, (2_900..3_000).collect::<Vec<_>>());
        talkers.insert(7, None).await?;
        let sent = stays.send_many(comes, 3_000).future();
        assert_eq!(comes.receive(stays, 2_900).await?, (0..2_900).collect::<Vec<_>>());
        sent.await?;
        rt.quiescence().await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_constructor_that_fails_ends_its_channels(rt: Runtime) -> Result<()> {
    let (talkers, [stays, _]) = talkers(&rt).await?;
    for round in 0..3 {
        let comes = talkers.at(9);
        let (to, ended) = rt.promise();
        let received = stays.receive_from_two(comes, to).future();
        talkers.insert(9, Some((stays, round))).await.expect_err("it fails");
        let go_on = ended.await?;
        talkers.insert(9, None).await?;
        comes.put(stays, vec![round + 10]).await?;
        go_on.send(())?;
        assert_eq!(received.await?, (1, vec![round + 10]));
        comes.destroy().await?;
        rt.quiescence().await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_next_one_may_send_other_types(rt: Runtime) -> Result<()> {
    let (talkers, [stays, comes]) = talkers(&rt).await?;
    comes.send_text(stays).await?;
    rt.quiescence().await?;
    comes.destroy().await?;
    talkers.insert(7, None).await?;
    comes.put(stays, vec![1]).await?;
    rt.quiescence().await?;
    assert_eq!(stays.receive(comes, 1).await?, [1], "nobody had opened the channel for texts");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_next_one_of_a_poisoned_one_has_fresh_channels(rt: Runtime) -> Result<()> {
    let (talkers, [stays, comes]) = talkers(&rt).await?;
    comes.put(stays, vec![1]).await?;
    stays.put(comes, vec![1, 2]).await?;
    assert_eq!(stays.receive(comes, 1).await?, [1]);
    assert_eq!(comes.receive(stays, 1).await?, [1]);
    comes.panic().await.expect_err("it panics");
    rt.quiescence().await?;
    let error = stays.receive(comes, 1).await.expect_err("it is poisoned").to_string();
    assert!(error.contains("as asked"), "{error}");
    comes.destroy().await?;
    talkers.insert(7, None).await?;
    rt.quiescence().await?;
    stays.put(comes, vec![3]).await?;
    assert_eq!(comes.receive(stays, 1).await?, [3]);
    comes.put(stays, vec![4]).await?;
    assert_eq!(stays.receive(comes, 1).await?, [4]);
    Ok(())
}

#[test]
fn sending_to_one_that_has_ended_is_an_error_that_nobody_awaits() {
    for pes in super::PES {
        let report = super::run(pes, async |rt: Runtime| {
            let (talkers, [stays, comes]) = talkers(&rt).await?;
            talkers.done_inserting().await?;
            comes.put(stays, vec![1]).await?;
            stays.put(comes, vec![1]).await?;
            rt.quiescence().await?;
            comes.destroy().await?;
            stays.put(comes, vec![2]).await?;
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert!(matches!(report.unawaited(), Some(CallError::NoElement(_))), "{report}");
    }
}

/// Uses the channel that it came by when it is dropped, and may panic then.
struct Greedy {
    channel: Option<Arc<Channel<chare::Local<Greedy>>>>,
    dropped: Promise<()>,
    panics: bool,
}

impl Drop for Greedy {
    fn drop(&mut self) {
        let sent = self.dropped.send(());
        if let Some(channel) = self.channel.take() {
            // An end works in its chare only; else it is not here.
            let _ = channel.try_recv();
        }
        assert!(!self.panics, "as asked");
        assert!(sent.is_ok(), "more were dropped than there are");
    }
}

struct Hoarder;

#[chare(index = usize)]
impl Hoarder {
    fn new() -> Self {
        Hoarder
    }

    #[entry]
    fn put(&self, cx: &Cx<Self>, peer: Element<Hoarder>, dropped: Promise<()>, panics: bool) -> Result<()> {
        let channel = Arc::new(cx.channel::<chare::Local<Greedy>, _>(&peer, TAG));
        for _ in 0..3 {
            let value = Greedy { channel: Some(channel.clone()), dropped: dropped.clone(), panics };
            channel.send(chare::Local(value)).map_err(|_| "there is credit")?;
        }
        Ok(())
    }

    /// Holds its end, for values of another type, until it hears of these.
    #[entry]
    async fn receive_texts(this: This<Self>, peer: Element<Hoarder>, begun: Promise<()>) -> Result<String> {
        let channel = this.channel::<String, _>(&peer, TAG);
        begun.send(())?;
        Ok(channel.recv().await?)
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn destructors_of_values_may_use_the_channel(rt: Runtime) -> Result<()> {
    let hoarders = rt.array_sparse::<Hoarder>().create_empty();
    let (dropped, all) = rt.promises(24);
    // The values stay in their process. They may go by way of the home of an index, so where there are several, both are on one PE.
    let last = PeId::new(rt.num_pes() - 1);
    let first = if super::is_spread(&rt) { last } else { rt.my_pe() };
    let stays = hoarders.insert(0, ()).on_pe(first).await?;
    for _ in 0..4 {
        let comes = hoarders.insert(7, ()).on_pe(last).await?;
        comes.put(stays, dropped.clone(), false).await?;
        stays.put(comes, dropped.clone(), false).await?;
        rt.quiescence().await?;
        comes.destroy().await?;
    }
    stays.destroy().await?;
    rt.quiescence().await?;
    assert!(all.is_ready(), "each was dropped");
    all.await?;
    Ok(())
}

#[test]
fn values_of_a_wrong_type_that_panic_do_not_keep_the_receiver_waiting() {
    for pes in super::PES {
        let report = super::run(pes, async |rt: Runtime| {
            let hoarders = rt.array::<Hoarder>(2).create(()).await?;
            let (to, begun) = rt.promise();
            let received = hoarders.at(0).receive_texts(hoarders.at(1), to).future();
            begun.await?;
            hoarders.at(1).put(hoarders.at(0), rt.promise().0, true).send();
            let error = received.await.expect_err("these are no texts").to_string();
            Result::<()>::Err(error.into())
        });
        let text = report.to_string();
        assert!(text.contains("as asked") || text.contains("Greedy"), "{text}");
        assert!(!text.contains("hang"), "{text}");
    }
}
