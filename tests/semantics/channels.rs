//! Channels: ordered streams between two chares, with a window of credit and a bounded backlog.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::thread;

use chare::ChannelError;
use chare::prelude::*;
use futures::future::join;

use super::{PES, run};

/// More than the window of credit, less than the limit of the backlog.
const MANY: u64 = 5000;

struct Peer;

/// A number that looks random, from a counter.
fn scramble(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
}

#[chare(index = usize)]
impl Peer {
    fn new() -> Self {
        Peer
    }

    #[entry]
    fn nothing(&self) {}

    /// Sends the numbers from 0, with pauses at places that `seed` gives.
    #[entry]
    async fn count_to(this: This<Self>, to: usize, tag: u64, seed: u64) -> Result<()> {
        let peer = this.array().at(to);
        let channel = this.channel::<u64, _>(&peer, tag);
        for number in 0..MANY {
            channel.send(number)?;
            match scramble(number ^ seed) % 200 {
                0 => peer.nothing().await?,
                1 => this.this().nothing().await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Receives them, with pauses of its own.
    #[entry]
    async fn expect_from(this: This<Self>, from: usize, tag: u64, seed: u64) -> Result<u64> {
        let peer = this.array().at(from);
        let channel = this.channel::<u64, _>(&peer, tag);
        for number in 0..MANY {
            assert_eq!(channel.recv().await?, number);
            if scramble(number ^ seed) % 200 == 2 {
                peer.nothing().await?;
            }
        }
        assert!(channel.try_recv()?.is_none());
        Ok(MANY)
    }

    /// Sends on all its channels in turn, then reads them in the reverse order.
    #[entry]
    async fn trade(&mut self, cx: &Cx<Self>, with: usize, tags: u64) -> Result<()> {
        let peer = cx.array().at(with);
        let channels: Vec<_> = (0..tags).map(|tag| cx.channel::<(u64, u64), _>(&peer, tag)).collect();
        for number in 0..50 {
            for channel in &channels {
                channel.send((channel.tag(), number))?;
            }
        }
        for channel in channels.iter().rev() {
            for number in 0..50 {
                assert_eq!(channel.recv().await?, (channel.tag(), number));
            }
        }
        Ok(())
    }

    /// Talks to itself: what it sends comes back in order.
    #[entry]
    async fn monologue(&mut self, cx: &Cx<Self>) -> Result<()> {
        let channel = cx.channel(&cx.this(), 0);
        for number in 0..3 * MANY {
            channel.send(number)?;
        }
        for number in 0..3 * MANY {
            assert_eq!(channel.recv().await?, number);
        }
        Ok(())
    }

    /// Sends until the channel is full, and gives back how many values it took.
    #[entry]
    async fn fill(this: This<Self>, to: usize) -> usize {
        let channel = this.channel(&this.array().at(to), 0);
        let mut taken = 0;
        loop {
            match channel.send(vec![taken]) {
                Ok(()) => taken += 1,
                Err(full) => {
                    assert!(full.queued <= taken);
                    assert_eq!(full.into_value(), [taken], "the value is given back");
                    return taken;
                }
            }
        }
    }

    /// Receives `count` values, each one its number.
    #[entry]
    async fn empty(this: This<Self>, from: usize, count: usize) -> Result<()> {
        let channel = this.channel::<Vec<usize>, _>(&this.array().at(from), 0);
        for number in 0..count {
            assert_eq!(channel.recv().await?, [number]);
        }
        Ok(())
    }

    /// Sends as the peer gives credit, never queueing.
    #[entry]
    async fn send_reserved(&mut self, cx: &Cx<Self>, to: usize, first: usize, count: usize) -> Result<()> {
        let channel = cx.channel(&cx.array().at(to), 0);
        for number in first..first + count {
            drop(channel.reserve().await);
            channel.reserve().await.send(vec![number]);
        }
        Ok(())
    }

    /// Gives up receiving again and again, and still gets all.
    #[entry]
    async fn give_up_and_receive(this: This<Self>, from: usize, count: u64) -> Result<()> {
        let channel = this.channel::<u64, _>(&this.array().at(from), 0);
        let mut next = 0;
        while next < count {
            let mut first = pin!(channel.recv());
            let early = poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
            let number = match early {
                Poll::Ready(number) => number?,
                Poll::Pending => {
                    this.this().nothing().await?;
                    continue;
                }
            };
            assert_eq!(number, next);
            next += 1;
        }
        Ok(())
    }

    /// Receives a value from itself, unless it is told to give up; that goes first.
    #[entry]
    async fn receive_unless(this: This<Self>, key: Promise<Promise<()>>) -> Result<Option<u64>> {
        let (give_up, mut gave_up) = this.promise();
        key.send(give_up)?;
        let channel = this.channel(&this.this(), 0);
        let mut receiving = pin!(channel.recv());
        let received = poll_fn(|context| match Pin::new(&mut gave_up).poll(context) {
            Poll::Ready(_) => Poll::Ready(Ok(None)),
            Poll::Pending => receiving.as_mut().poll(context).map_ok(Some),
        });
        Ok(received.await?)
    }

    #[entry]
    async fn receive_own(this: This<Self>) -> Result<u64> {
        Ok(this.channel(&this.this(), 0).recv().await?)
    }

    /// Wakes the first receiver twice: by a value, and by the news that it shall give up.
    #[entry]
    fn send_own_and_give_up(&self, cx: &Cx<Self>, value: u64, give_up: Promise<()>) -> Result<()> {
        cx.channel(&cx.this(), 0).send(value)?;
        Ok(give_up.send(())?)
    }

    /// Sends numbers, or texts, as a channel of the other type.
    #[entry]
    fn send_numbers(&self, cx: &Cx<Self>, to: usize) -> Result<()> {
        Ok(cx.channel(&cx.array().at(to), 0).send(1_u64)?)
    }

    #[entry]
    async fn receive_text(this: This<Self>, from: usize) -> Result<String> {
        Ok(this.channel::<String, _>(&this.array().at(from), 0).recv().await?)
    }

    #[entry]
    fn reopen_as_text(&self, cx: &Cx<Self>, peer: usize) {
        let peer = cx.array().at(peer);
        let _numbers = cx.channel::<u64, _>(&peer, 0);
        let _texts = cx.channel::<String, _>(&peer, 0);
    }

    /// Opens the channel anew for every value.
    #[entry]
    async fn receive_reopening(this: This<Self>, from: usize, count: u64) -> Result<()> {
        for number in 0..count {
            assert_eq!(this.channel::<u64, _>(&this.array().at(from), 3).recv().await?, number);
        }
        Ok(())
    }

    #[entry]
    fn send_reopening(&self, cx: &Cx<Self>, to: usize, count: u64) -> Result<()> {
        (0..count).try_for_each(|number| Ok(cx.channel(&cx.array().at(to), 3).send(number)?))
    }

    #[entry]
    fn lend_channel(&self, cx: &Cx<Self>, to: Promise<Channel<u64>>) -> Result<()> {
        Ok(to.send(cx.channel(&cx.this(), 0))?)
    }

    #[entry]
    async fn borrow_channel(&self, channel: Channel<u64>) -> Result<u64> {
        Ok(channel.recv().await?)
    }

    /// One chare's part of a net of channels, each given by its two ends and its tag: says something on all of its
    /// own, then hears all, several times.
    #[entry]
    async fn converse(&mut self, cx: &Cx<Self>, net: Shared<Vec<(usize, usize, u64)>>) -> Result<usize> {
        let me = cx.index();
        let own = net.iter().filter(|(a, b, _)| [*a, *b].contains(&me));
        let channels: Vec<_> = own
            .map(|&(a, b, tag)| {
                let peer = if a == me { b } else { a };
                (peer, cx.channel::<(usize, u64, u64), _>(&cx.array().at(peer), tag))
            })
            .collect();
        for round in 0..4 {
            for (_, channel) in &channels {
                channel.send((me, channel.tag(), round))?;
            }
            for (peer, channel) in &channels {
                assert_eq!(channel.recv().await?, (*peer, channel.tag(), round));
            }
        }
        Ok(channels.len())
    }
}

async fn peers(rt: &Runtime, count: usize) -> Result<Array<Peer>> {
    Ok(rt.array::<Peer>(count).create(()).await?)
}

/// Two peers, of 16: next to each other on one PE, or far apart, in both directions.
const ENDS: [(usize, usize); 3] = [(0, 1), (0, 15), (15, 0)];

#[chare::test(pes = [1, 2, 4, 8])]
async fn values_come_in_the_order_of_sending(rt: Runtime) -> Result<()> {
    let peers = peers(&rt, 16).await?;
    for (seed, (from, to)) in (1..).zip(ENDS) {
        let sending = peers.at(from).count_to(to, seed, seed).future();
        assert_eq!(peers.at(to).expect_from(from, seed, seed + 10).await?, MANY);
        sending.await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn both_directions_are_independent(rt: Runtime) -> Result<()> {
    let peers = peers(&rt, 16).await?;
    let there = peers.at(15).expect_from(0, 0, 1).future();
    let back = peers.at(0).expect_from(15, 0, 2).future();
    peers.at(0).count_to(15, 0, 3).send();
    peers.at(15).count_to(0, 0, 4).send();
    assert_eq!((there.await?, back.await?), (MANY, MANY));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_pair_may_have_many_channels(rt: Runtime) -> Result<()> {
    let peers = peers(&rt, 16).await?;
    for (a, b) in ENDS {
        let first = peers.at(a).trade(b, 40).future();
        peers.at(b).trade(a, 40).await?;
        first.await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_chare_may_talk_to_itself(rt: Runtime) -> Result<()> {
    peers(&rt, 16).await?.at(7).monologue().await?;
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_net_of_random_channels(rt: Runtime) -> Result<()> {
    let count = 30;
    let peers = peers(&rt, count).await?;
    let end = |number: u64| scramble(number) as usize % count;
    let net: Vec<_> = (0..3000).map(|tag| (end(2 * tag), end(2 * tag + 1), tag)).collect();
    let to_self = net.iter().filter(|(a, b, _)| a == b).count();
    assert!(to_self > 0);
    let ends: usize = peers.converse(Shared::new(net)).gather().await?.into_iter().sum();
    assert_eq!(ends, 6000 - to_self);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_full_channel_gives_the_value_back_and_loses_none(rt: Runtime) -> Result<()> {
    let peers = peers(&rt, 16).await?;
    for (from, to) in ENDS {
        let taken = peers.at(from).fill(to).await?;
        assert!(taken > MANY as usize, "{taken}");
        peers.at(to).empty(from, taken).await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn reserving_waits_for_credit_and_unused_permits_return(rt: Runtime) -> Result<()> {
    let peers = peers(&rt, 16).await?;
    for (from, to) in ENDS {
        let sending = peers.at(from).send_reserved(to, 0, MANY as usize).future();
        rt.quiescence().await?;
        peers.at(to).empty(from, MANY as usize).await?;
        sending.await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn giving_up_a_receive_loses_nothing(rt: Runtime) -> Result<()> {
    let peers = peers(&rt, 16).await?;
    for (from, to) in ENDS {
        let receiving = peers.at(to).give_up_and_receive(from, MANY).future();
        peers.at(from).count_to(to, 0, 5).await?;
        receiving.await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_receive_that_is_given_up_passes_its_wake_up_on(rt: Runtime) -> Result<()> {
    let peer = peers(&rt, 1).await?.at(0);
    let (key, waiting) = rt.promise();
    let first = peer.receive_unless(key).future();
    let give_up = waiting.await?;
    let second = peer.receive_own().future();
    rt.quiescence().await?;
    peer.send_own_and_give_up(5, give_up).await?;
    assert_eq!((first.await?, second.await?), (None, 5));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn ends_that_disagree_on_the_type_are_told(rt: Runtime) -> Result<()> {
    for (from, to) in ENDS {
        let peers = peers(&rt, 16).await?;
        let (first, second) = if from < to {
            let receiving = peers.at(to).receive_text(from).future();
            rt.quiescence().await?;
            (peers.at(from).send_numbers(to).future(), receiving)
        } else {
            let sending = peers.at(from).send_numbers(to).future();
            rt.quiescence().await?;
            (sending, peers.at(to).receive_text(from).future())
        };
        first.await?;
        let error = second.await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("from Peer[") && text.contains("receives `alloc::string::String`"), "{text}");
        let is_itself = matches!(error.downcast_ref(), Some(ChannelError::WrongType { .. }));
        assert!(is_itself || super::is_spread(&rt), "{text}");
        // What is sent from another process is named where a channel of that type is known.
        let is_unnamed =
            super::is_spread(&rt) && text.contains("a type that no channel of this process carries");
        assert!(text.contains("carries `u64`") || is_unnamed, "{text}");
    }
    let error = peers(&rt, 2).await?.at(0).reopen_as_text(1).await.unwrap_err().to_string();
    assert!(error.contains("open already for values of `u64`"), "{error}");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn either_end_may_be_opened_first_and_again(rt: Runtime) -> Result<()> {
    let peers = peers(&rt, 16).await?;
    for (from, to) in ENDS {
        let receiving = peers.at(to).receive_reopening(from, 100).future();
        rt.quiescence().await?;
        peers.at(from).send_reopening(to, 100).await?;
        receiving.await?;
        peers.at(to).send_reopening(from, 100).await?;
        rt.quiescence().await?;
        peers.at(from).receive_reopening(to, 100).await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "an end of a channel stays in its process")]
async fn a_channel_works_in_its_own_chare_only(rt: Runtime) -> Result<()> {
    let peers = peers(&rt, 2).await?;
    let (key, channel) = rt.promise();
    peers.at(0).lend_channel(key).await?;
    let error = peers.at(1).borrow_channel(channel.await?).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(ChannelError::NotHere)), "{error}");
    Ok(())
}

/// Gives up what it has reserved, in several ways.
struct Giver;

#[chare(index = usize)]
impl Giver {
    fn new() -> Self {
        Giver
    }

    /// Sends behind permits that are then given up; if `away`, on another thread.
    #[entry]
    async fn give_up(this: This<Self>, permits: usize, away: bool) -> Result<()> {
        let channel: &'static Channel<u64> = Box::leak(Box::new(this.channel(&this.array().at(1), 0)));
        let mut held = Vec::new();
        for _ in 0..permits {
            held.push(channel.reserve().await);
        }
        for number in 0..1024 - permits as u64 + 1 {
            channel.send(number)?;
        }
        if away {
            let _handle = this.handle();
            return thread::spawn(move || drop(held)).join().map_err(|_| "nothing panics there".into());
        }
        drop(held);
        Ok(())
    }

    #[entry]
    async fn read(this: This<Self>, count: u64) -> Result<()> {
        let channel = this.channel::<u64, _>(&this.array().at(0), 0);
        for number in 0..count {
            assert_eq!(channel.recv().await?, number);
        }
        Ok(())
    }

    /// Two receivers; the first one's future is polled, then dropped by another thread when a value has come.
    #[entry]
    async fn lose_a_receiver(this: This<Self>) -> Result<u64> {
        let channel: &'static Channel<u64> = Box::leak(Box::new(this.channel(&this.array().at(1), 1)));
        let mut first = Box::pin(channel.recv());
        poll_fn(|context| {
            assert!(first.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        let this_one = this.clone();
        let handle = this.handle();
        let second = async { channel.recv().await };
        let lost = async {
            this_one.array().at(1).send_one().await?;
            let lost = thread::spawn(move || {
                let _entered = handle.enter();
                drop(first);
            });
            Result::<()>::Ok(lost.join().map_err(|_| "nothing panics there")?)
        };
        let (value, lost) = join(second, lost).await;
        lost?;
        Ok(value?)
    }

    #[entry]
    fn send_one(&self, cx: &Cx<Self>) -> Result<()> {
        Ok(cx.channel(&cx.array().at(0), 1).send(17_u64)?)
    }

    /// Two receivers of one end, of which the first takes the first value although only the second was woken for it.
    #[entry]
    async fn take_out_of_turn(this: This<Self>) -> Result<(u64, u64)> {
        let channel = this.channel::<u64, _>(&this.this(), 2);
        let mut first = Box::pin(channel.recv());
        let mut second = Box::pin(channel.recv());
        poll_fn(|context| {
            assert!(second.as_mut().poll(context).is_pending());
            assert!(first.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        channel.send(1)?;
        channel.send(2)?;
        let one = first.await?;
        this.this().nothing().await?;
        let two = second.await?;
        Ok((one, two))
    }

    #[entry]
    fn nothing(&self) {}

    #[entry]
    async fn receive_from(this: This<Self>, index: usize) -> Result<u64, ChannelError> {
        this.channel(&this.array().at(index), 9).recv().await
    }

    #[entry]
    fn send_to(&self, cx: &Cx<Self>, index: usize) -> Result<()> {
        Ok(cx.channel(&cx.array().at(index), 9).send(1_u64)?)
    }
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn values_behind_permits_that_are_given_up_are_sent(rt: Runtime) -> Result<()> {
    for (permits, away) in [(1, false), (1024, false), (1024, true), (600, true)] {
        let givers = rt.array::<Giver>(2).create(()).await?;
        let reading = givers.at(1).read(1024 - permits as u64 + 1).future();
        givers.at(0).give_up(permits, away).await?;
        reading.await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn a_receiver_that_is_dropped_elsewhere_passes_its_value_on(rt: Runtime) -> Result<()> {
    let givers = rt.array::<Giver>(2).create(()).await?;
    assert_eq!(givers.at(0).lose_a_receiver().await?, 17);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn receivers_may_take_values_out_of_turn(rt: Runtime) -> Result<()> {
    let givers = rt.array::<Giver>(2).create(()).await?;
    assert_eq!(givers.at(1).take_out_of_turn().await?, (1, 2));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_peer_outside_of_its_array_is_an_error(rt: Runtime) -> Result<()> {
    let givers = rt.array::<Giver>(4).create(()).await?;
    let error = givers.at(3).receive_from(7).await.expect_err("there is no element 7");
    // What comes from another process is the text of the error.
    let itself = matches!(error.downcast_ref(), Some(ChannelError::Peer(CallError::NoElement(_))));
    assert!(itself || super::is_spread(&rt), "{error}");
    assert!(error.to_string().contains("Giver has no element [7]"), "{error}");
    Ok(())
}

#[test]
fn what_is_sent_to_a_peer_outside_of_its_array_ends_the_run() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let givers = rt.array::<Giver>(4).create(()).await?;
            givers.at(3).send_to(8).await?;
            rt.quiescence().await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("Giver has no element [8]"), "{report}");
    }
}

/// Breaks while others wait for it.
struct Breaker;

#[chare(index = usize)]
impl Breaker {
    fn new() -> Self {
        Breaker
    }

    /// Opens its ends and sends a value on each before it breaks.
    #[entry]
    fn break_down(&self, cx: &Cx<Self>, peers: usize) -> Result<()> {
        for peer in 0..peers {
            cx.channel(&cx.array().at(peer), 1).send(5_u64)?;
        }
        panic!("out of order");
    }

    /// Receives until there is no more to come.
    #[entry]
    async fn drain(this: This<Self>, from: usize) -> (Vec<u64>, String) {
        let channel = this.channel::<u64, _>(&this.array().at(from), 1);
        let mut values = Vec::new();
        loop {
            match channel.recv().await {
                Ok(value) => values.push(value),
                Err(error) => return (values, error.to_string()),
            }
        }
    }

    #[entry]
    async fn reserve_for(this: This<Self>, to: usize) -> Result<()> {
        let channel = this.channel::<u64, _>(&this.array().at(to), 2);
        loop {
            channel.reserve().await.send(1);
        }
    }

    #[entry]
    fn send_to(&self, cx: &Cx<Self>, to: usize) -> Result<()> {
        Ok(cx.channel(&cx.array().at(to), 1).send(6_u64)?)
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_receiver_learns_that_its_peer_is_poisoned(rt: Runtime) -> Result<()> {
    let breakers = rt.array::<Breaker>(16).create(()).await?;
    let drains: Vec<_> = (0..16).map(|index| breakers.at(index).drain(15).future()).collect();
    rt.quiescence().await?;
    assert!(matches!(breakers.at(15).break_down(16).await, Err(CallError::Panicked(_))));
    for (index, drain) in drains.into_iter().enumerate() {
        let (values, error) = drain.await?;
        assert!(error.contains("Breaker[15] was poisoned by a panic in Breaker.break_down"), "{error}");
        // What it has sent to itself goes with it.
        assert_eq!(values, if index == 15 { vec![] } else { vec![5] });
    }
    Ok(())
}

#[test]
fn what_is_sent_to_a_poisoned_peer_ends_the_run() {
    for pes in PES {
        let sends: [fn(Array<Breaker>); 2] =
            [|breakers| breakers.at(0).send_to(15).send(), |breakers| breakers.at(0).reserve_for(15).send()];
        for (early, send) in sends.into_iter().flat_map(|send| [(true, send), (false, send)]) {
            let report = run(pes, async move |rt: Runtime| {
                let breakers = rt.array::<Breaker>(16).create(()).await?;
                if early {
                    send(breakers);
                    rt.quiescence().await?;
                }
                assert!(matches!(breakers.at(15).break_down(1).await, Err(CallError::Panicked(_))));
                send(breakers);
                rt.quiescence().await?;
                Result::<()>::Ok(())
            });
            assert_eq!(report.code(), 1, "{report}");
            assert!(report.to_string().contains("Breaker[15] was poisoned"), "{report}");
        }
    }
}

/// Sends with a permit that it has had for long.
struct Patient;

#[chare(index = usize)]
impl Patient {
    fn new() -> Self {
        Patient
    }

    #[entry]
    async fn send_all(this: This<Self>, count: u32) -> Result<()> {
        let channel = this.channel::<u32, _>(&this.array().at(1), 0);
        let (permit, unused) = (channel.reserve().await, channel.reserve().await);
        for number in 0..count {
            channel.send(number)?;
        }
        permit.send(count);
        channel.send(count + 1)?;
        drop(unused);
        Ok(())
    }

    #[entry]
    async fn receive(this: This<Self>, count: u32) -> Result<()> {
        let channel = this.channel::<u32, _>(&this.array().at(0), 0);
        for number in 0..count + 2 {
            assert_eq!(channel.recv().await?, number);
        }
        Ok(())
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_permit_does_not_overtake_what_waits_for_credit(rt: Runtime) -> Result<()> {
    for count in [0, 1000, 1022, 1023, 1024, 3000] {
        let patients = rt.array::<Patient>(2).create(()).await?;
        let receiving = patients.at(1).receive(count).future();
        patients.at(0).send_all(count).await?;
        receiving.await?;
    }
    Ok(())
}
