//! The three kinds of entries, and waiting for conditions: the receiver says how a method shares its chare.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use chare::prelude::*;

#[derive(Default)]
struct Desk {
    /// `[` and `]` around an exclusive coroutine, `(` and `)` around an interleaving one, other marks by plain methods.
    log: String,
    began: Vec<u32>,
    passed: Vec<u32>,
    tokens: u32,
    values: Vec<u64>,
}

#[chare]
impl Desk {
    fn new() -> Self {
        Desk { values: vec![1, 2, 3], ..Desk::default() }
    }

    #[entry]
    fn log(&self) -> String {
        self.log.clone()
    }

    #[entry]
    fn note(&mut self, mark: char) {
        self.log.push(mark);
    }

    /// Sends to itself and goes on.
    #[entry]
    fn note_twice(&mut self, cx: &Cx<Self>) {
        self.log.push('<');
        cx.this().note('s').send();
        self.log.push('>');
    }

    /// Keeps the chare to itself until the key, sent out through `key`, is used.
    #[entry]
    async fn hold(&mut self, cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<()> {
        self.log.push('[');
        let (open, opened) = cx.promise();
        key.send(open)?;
        opened.await?;
        self.log.push(']');
        Ok(())
    }

    /// Waits for its key without keeping the chare.
    #[entry]
    async fn share(this: This<Self>, key: Promise<Promise<()>>) -> Result<()> {
        this.with(|desk| desk.log.push('('));
        let (open, opened) = this.promise();
        key.send(open)?;
        opened.await?;
        this.with(|desk| desk.log.push(')'));
        Ok(())
    }

    #[entry]
    async fn add_from(&mut self, other: Element<Desk>) -> Result<Vec<u64>> {
        for value in &mut self.values {
            *value += other.one().await?;
        }
        Ok(self.values.clone())
    }

    #[entry]
    async fn sum(&self) -> u64 {
        self.values.iter().sum()
    }

    #[entry]
    fn one(&self) -> u64 {
        1
    }

    #[entry]
    async fn meet(this: This<Self>, number: u32, parties: usize) {
        this.with(|desk| desk.began.push(number));
        this.wait_until(|desk| desk.began.len() == parties).await;
    }

    #[entry]
    async fn pass(this: This<Self>, number: u32) {
        this.with(|desk| desk.began.push(number));
        this.wait_until(|desk| desk.tokens > 0).await;
        this.with(|desk| {
            desk.tokens -= 1;
            desk.passed.push(number);
        });
    }

    #[entry]
    async fn pass_in_turn(this: This<Self>, number: u32) {
        this.wait_until(|desk| desk.passed.len() == number as usize).await;
        this.with(|desk| desk.passed.push(number));
    }

    #[entry]
    fn give(&mut self, tokens: u32) {
        self.tokens += tokens;
    }

    #[entry]
    async fn give_exclusively(&mut self, other: Element<Desk>, tokens: u32) -> Result<()> {
        other.one().await?;
        self.tokens += tokens;
        Ok(())
    }

    #[entry]
    async fn give_interleaving(this: This<Self>, other: Element<Desk>, tokens: u32) -> Result<()> {
        other.one().await?;
        this.with(|desk| desk.tokens += tokens);
        Ok(())
    }

    #[entry]
    fn began_and_passed(&self) -> (Vec<u32>, Vec<u32>) {
        (self.began.clone(), self.passed.clone())
    }

    /// Whether waiting for what holds already is over at once.
    #[entry]
    async fn waits_for_nothing(this: This<Self>) -> bool {
        let mut wait = pin!(this.wait_until(|_| true));
        poll_fn(|context| Poll::Ready(wait.as_mut().poll(context).is_ready())).await
    }

    #[entry]
    async fn nest(this: This<Self>) {
        this.with(|_| this.with(|_| ()));
    }
}

/// A desk on the last PE, so that main is elsewhere when there is an elsewhere.
async fn desk(rt: &Runtime) -> Result<Element<Desk>> {
    Ok(rt.single::<Desk>().on_pe(rt.num_pes() - 1).create(()).await?)
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_plain_method_runs_to_its_end(rt: Runtime) -> Result<()> {
    let desk = desk(&rt).await?;
    desk.note_twice().await?;
    rt.quiescence().await?;
    assert_eq!(desk.log().await?, "<>s");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_exclusive_coroutine_holds_others_in_order_of_arrival(rt: Runtime) -> Result<()> {
    let desk = desk(&rt).await?;
    let (key, locked) = rt.promise();
    let first = desk.hold(key).future();
    let open = locked.await?;
    desk.note('a').send();
    rt.quiescence().await?;
    let (key, locked) = rt.promise();
    let second = desk.hold(key).future();
    rt.quiescence().await?;
    desk.note('b').send();
    rt.quiescence().await?;
    desk.note('c').send();
    rt.quiescence().await?;
    open.send(())?;
    first.await?;
    let open = locked.await?;
    desk.note('d').send();
    rt.quiescence().await?;
    open.send(())?;
    second.await?;
    assert_eq!(desk.log().await?, "[]a[]bcd");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_exclusive_coroutine_borrows_its_state_across_awaits(rt: Runtime) -> Result<()> {
    let (desk, other) = (desk(&rt).await?, rt.single::<Desk>().create(()).await?);
    assert_eq!(desk.add_from(other).await?, [2, 3, 4]);
    assert_eq!(desk.sum().await?, 9);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn others_run_while_an_interleaving_coroutine_waits(rt: Runtime) -> Result<()> {
    let desk = desk(&rt).await?;
    let (key, waiting) = rt.promise();
    let shared = desk.share(key).future();
    let open = waiting.await?;
    desk.note('-').await?;
    open.send(())?;
    shared.await?;
    assert_eq!(desk.log().await?, "(-)");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn one_interleaving_method_runs_many_times_at_once(rt: Runtime) -> Result<()> {
    let desk = desk(&rt).await?;
    let meetings: Vec<_> = (0..100).map(|number| desk.meet(number, 100).future()).collect();
    for meeting in meetings {
        meeting.await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn wake_ups_of_others_are_held_while_a_coroutine_owns_the_chare(rt: Runtime) -> Result<()> {
    let desk = desk(&rt).await?;
    let (key, waiting) = rt.promise();
    let shared = desk.share(key).future();
    let wake = waiting.await?;
    let (key, locked) = rt.promise();
    let held = desk.hold(key).future();
    let open = locked.await?;
    wake.send(())?;
    rt.quiescence().await?;
    open.send(())?;
    held.await?;
    shared.await?;
    assert_eq!(desk.log().await?, "([])");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn conditions_are_served_in_the_order_of_waiting(rt: Runtime) -> Result<()> {
    let desk = desk(&rt).await?;
    let waits: Vec<_> = (0..20).map(|number| desk.pass(number).future()).collect();
    rt.quiescence().await?;
    for tokens in [1, 2, 0, 5, 12] {
        desk.give(tokens).await?;
        rt.quiescence().await?;
        let (began, passed) = desk.began_and_passed().await?;
        assert_eq!(began[..passed.len()], passed);
    }
    assert_eq!(desk.began_and_passed().await?.1.len(), 20);
    for wait in waits {
        wait.await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn conditions_are_looked_at_again_after_every_kind_of_step(rt: Runtime) -> Result<()> {
    let (desk, other) = (desk(&rt).await?, rt.single::<Desk>().create(()).await?);
    let wait = desk.pass(0).future();
    desk.give(1).send();
    wait.await?;
    let wait = desk.pass(1).future();
    desk.give_exclusively(other, 1).send();
    wait.await?;
    let wait = desk.pass(2).future();
    desk.give_interleaving(other, 1).send();
    wait.await?;
    assert_eq!(desk.began_and_passed().await?.1, [0, 1, 2]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn one_condition_may_make_another_hold(rt: Runtime) -> Result<()> {
    let desk = desk(&rt).await?;
    let waits: Vec<_> = (0..100).rev().map(|number| desk.pass_in_turn(number).future()).collect();
    for wait in waits {
        wait.await?;
    }
    assert_eq!(desk.began_and_passed().await?.1, (0..100).collect::<Vec<u32>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_holds_already_is_not_waited_for(rt: Runtime) -> Result<()> {
    assert!(desk(&rt).await?.waits_for_nothing().await?);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn with_inside_with_is_a_clear_panic(rt: Runtime) -> Result<()> {
    let error = desk(&rt).await?.nest().await.unwrap_err().to_string();
    assert!(
        error.contains("Desk.nest panicked") && error.contains("`with` must not be called inside"),
        "{error}"
    );
    Ok(())
}

/// Counts, and notes who saw which count.
#[derive(Default)]
struct Counter {
    count: u64,
    seen: Vec<u64>,
}

#[chare(index = usize)]
impl Counter {
    fn new() -> Self {
        Counter::default()
    }

    #[entry]
    async fn wait_for(this: This<Self>, count: u64, number: u64) {
        // One that is given up in between leaves the others in their order.
        let mut given_up = Box::pin(this.wait_until(|_| false));
        assert!(futures::poll!(&mut given_up).is_pending());
        this.wait_until(move |counter| counter.count >= count).await;
        drop(given_up);
        this.with(|counter| counter.seen.push(number));
    }

    #[entry]
    fn add(&mut self, amount: u64) {
        self.count += amount;
    }

    #[entry]
    fn seen(&self) -> Vec<u64> {
        self.seen.clone()
    }
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn many_that_wait_for_a_condition_look_in_the_order_in_which_they_began(rt: Runtime) -> Result<()> {
    const WAITING: u64 = 400;
    let counter = rt.array::<Counter>(8).create(()).await?.at(7);
    (0..WAITING).for_each(|number| counter.wait_for(1 + number % 2, number).send());
    rt.quiescence().await?;
    for half in 0..2 {
        counter.add(1).await?;
        rt.quiescence().await?;
        let seen = counter.seen().await?;
        assert!(seen[half * WAITING as usize / 2..].iter().copied().eq((half as u64..WAITING).step_by(2)));
    }
    Ok(())
}
