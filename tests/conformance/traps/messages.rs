//! Calls, broadcasts, channels and errors.

use chare::prelude::*;

/// Does to its arguments what it likes.
struct Owner {
    sum: u64,
    calls: usize,
}

#[chare(index = usize)]
impl Owner {
    fn new() -> Self {
        Owner { sum: 0, calls: 0 }
    }

    #[entry]
    fn overwrite(&mut self, cx: &Cx<Self>, mut values: Vec<usize>, ret: usize) -> Vec<usize> {
        values.iter_mut().for_each(|value| *value += cx.index() + ret);
        values
    }

    #[entry]
    fn count(&mut self) -> usize {
        self.calls += 1;
        self.calls
    }

    #[entry]
    fn call_at_once(&self, cx: &Cx<Self>, times: usize) {
        (0..times).for_each(|_| cx.this().count().send());
    }

    #[entry]
    fn calls(&self) -> usize {
        self.calls
    }

    /// The sum of all indexes, and what came of it.
    #[entry]
    fn add_up(&self, cx: &Cx<Self>) {
        cx.contribute(cx.index() as u64, reduce::Sum, cx.array().callback(Owner::TAKE_SUM));
    }

    #[entry]
    fn take_sum(&mut self, sum: u64) {
        self.sum = sum;
    }

    #[entry]
    fn sum(&self) -> u64 {
        self.sum
    }

    /// Elements reduce before or after they get the broadcast that is awaited.
    #[entry]
    async fn reduce_and_hear(this: This<Self>, before: Promise<usize>, after: Promise<usize>) {
        let index = this.index();
        let heard = this.this().count();
        if index.is_multiple_of(2) {
            this.contribute(index, reduce::Sum, before);
            let _ = heard.await;
        } else {
            let _ = heard.await;
            this.contribute(index, reduce::Sum, before);
        }
        this.contribute(1, reduce::Sum, after);
    }

    #[entry]
    fn fail_if_odd(&self, cx: &Cx<Self>) -> Result<usize, String> {
        let index = cx.index();
        if index.is_multiple_of(2) { Ok(index) } else { Err(format!("element {index} is odd")) }
    }

    #[entry]
    fn disagree(&self, cx: &Cx<Self>, to: Promise<u64>) {
        match cx.index() {
            0 => cx.contribute(1, reduce::Max, to),
            _ => cx.contribute(1, reduce::Sum, to),
        }
    }
}

const COUNT: usize = 24;

/// charm4py: with `local_msg_optim` (documented as on; it broke programs, issues 215, 218, 225), and in broadcasts to this
/// day, the receivers on a PE get the same objects, and the sender keeps them.
#[chare::test(pes = [1, 2, 4, 8])]
async fn every_receiver_owns_its_arguments(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(COUNT).create(()).send();
    let values = vec![10, 20, 30];
    for (index, overwritten) in owners.overwrite(values.clone(), 1).gather().await?.into_iter().enumerate() {
        assert_eq!(overwritten, [11 + index, 21 + index, 31 + index]);
    }
    let calls: Vec<_> = owners.elements().map(|owner| owner.overwrite(values.clone(), 0).future()).collect();
    assert_eq!(values, [10, 20, 30]);
    for (index, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await?, [10 + index, 20 + index, 30 + index]);
    }
    Ok(())
}

/// charm4py: a chare has 50 slots for messages from its own PE; one more raises.
#[chare::test(pes = [1, 2, 4, 8])]
async fn any_number_of_messages_wait_on_their_own_pe(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(COUNT).create(()).await?;
    let times = crate::real_or_simulated(2000, 200);
    owners.call_at_once(times).await?;
    rt.quiescence().await?;
    assert_eq!(owners.calls().gather().await?, [times; COUNT]);
    Ok(())
}

/// charm4py: an awaited broadcast is a reduction of the user's stream. Elements that reduce before they get it, and others
/// that reduce after, mix the two up.
#[chare::test(pes = [1, 2, 4, 8])]
async fn an_awaited_broadcast_is_no_reduction_of_the_programs(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(COUNT).create(()).send();
    for round in 1..=20 {
        let ((before, sum), (after, count)) = (rt.promise(), rt.promise());
        let reduced = owners.reduce_and_hear(before, after).future();
        let gathered = owners.count().gather();
        owners.add_up().send();
        owners.count().await?;
        reduced.await?;
        assert_eq!((sum.await?, count.await?), (COUNT * (COUNT - 1) / 2, COUNT));
        assert_eq!(gathered.await?.len(), COUNT);
        rt.quiescence().await?;
        assert_eq!(owners.calls().gather().await?, [3 * round; COUNT]);
        assert_eq!(owners.sum().gather().await?, [(COUNT * (COUNT - 1) / 2) as u64; COUNT]);
    }
    Ok(())
}

/// charm4py: of the exceptions that a broadcast raises the first to come is kept, others are dropped, and with `ret=True`
/// none is raised.
#[chare::test(pes = [1, 2, 4, 8])]
async fn no_error_of_a_broadcast_is_lost(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(COUNT).create(()).send();
    for _ in 0..10 {
        let outcomes = owners.fail_if_odd().gather_results().await?;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(value) => assert_eq!((value, value % 2), (index, 0)),
                Err(error) => {
                    assert!(error.to_string().contains(&format!("element {index} is odd")), "{error}")
                }
            }
        }
        // By index, whichever came first.
        let error = owners.fail_if_odd().gather().await.expect_err("half of them fail");
        assert!(error.to_string().contains("element 1 is odd"), "{error}");
        owners.fail_if_odd().await.expect_err("half of them fail");
    }
    Ok(())
}

/// charm4py: in a section the reducer of the last member wins; Charm++: that of some member.
#[chare::test(pes = [1, 2, 4, 8])]
async fn reducers_that_differ_are_an_error(rt: Runtime) -> Result<()> {
    let owners = rt.array::<Owner>(COUNT).create(()).send();
    let (to, sum) = rt.promise();
    owners.disagree(to).send();
    let error = sum.await.expect_err("one gave another reducer");
    assert!(matches!(error, CallError::Reduction(_)), "{error}");
    // The next reduction is in order.
    owners.add_up().send();
    rt.quiescence().await?;
    assert_eq!(owners.sum().gather().await?, [(COUNT * (COUNT - 1) / 2) as u64; COUNT]);
    Ok(())
}

/// Channels that are filled before the other end is there, in methods that do not wait.
struct Sender {
    sent: usize,
}

#[chare]
impl Sender {
    fn new() -> Self {
        Sender { sent: 0 }
    }

    /// Until the channel is full, or `most` values are sent.
    #[entry]
    fn fill(&mut self, cx: &Cx<Self>, to: Element<Sender>, most: usize) -> Result<usize> {
        let channel = cx.channel(&to, 9);
        while self.sent < most {
            match channel.send(self.sent) {
                Ok(()) => self.sent += 1,
                Err(full) => {
                    assert_eq!(full.into_value(), self.sent);
                    break;
                }
            }
        }
        Ok(self.sent)
    }

    #[entry]
    async fn drain(this: This<Self>, from: Element<Sender>, count: usize) -> Result<()> {
        let channel = this.channel::<usize, _>(&from, 9);
        for expected in 0..count {
            assert_eq!(channel.recv().await?, expected);
        }
        Ok(())
    }

    /// Two receives of one channel at once, besides the waiting for either.
    #[entry]
    async fn receive_two(this: This<Self>, from: Element<Sender>) -> Result<()> {
        let channel = this.channel::<usize, _>(&from, 9);
        let (one, other) = futures::try_join!(channel.recv(), channel.recv())?;
        assert_eq!([one, other], [0, 1]);
        Ok(())
    }
}

/// charm4py: `send` suspends until the other end is constructed, so only coroutines may send.
#[chare::test(pes = [1, 2, 4, 8])]
async fn a_plain_method_sends_before_the_other_end_is_there(rt: Runtime) -> Result<()> {
    let senders = rt.group::<Sender>().create(()).send();
    let peer = rt.single::<Sender>().on_pe(0).create(()).send();
    let last = senders.on(rt.num_pes() - 1);
    assert_eq!(last.fill(peer, 100).await?, 100);
    rt.quiescence().await?;
    Ok(peer.drain(last, 100).await?)
}

/// charm4py: more than 40 000 values that are not read yet are an assertion.
#[chare::test(pes = [1, 2, 4, 8])]
async fn what_a_full_channel_does_not_take_comes_back(rt: Runtime) -> Result<()> {
    let senders = rt.group::<Sender>().create(()).send();
    let (one, other) = (senders.on(0), rt.single::<Sender>().on_pe(rt.num_pes() - 1).create(()).send());
    let sent = one.fill(other, 100_000).await?;
    assert!((40_001..100_000).contains(&sent), "{sent} values fit");
    // Simulated, not all, but more than the 1024 that were sent before the rest had to wait at the sender.
    other.drain(one, crate::real_or_simulated(sent, 3000)).await?;
    Ok(())
}

/// charm4py: a channel has one place for a receiver; the second one replaces the first.
#[chare::test(pes = [1, 2, 4, 8])]
async fn several_receive_from_one_channel(rt: Runtime) -> Result<()> {
    let senders = rt.group::<Sender>().create(()).send();
    let (one, other) = (senders.on(0), rt.single::<Sender>().on_pe(rt.num_pes() - 1).create(()).send());
    let received = other.receive_two(one).future();
    rt.quiescence().await?;
    one.fill(other, 2).await?;
    Ok(received.await?)
}
