//! Bound arrays: elements of equal index live on one PE and move together, whatever else is under way.

use chare::prelude::*;
use chare::{BoxError, CallError, NotLocal, Placement};
use reduce::{Gather, Sum};
use serde::{Deserialize, Serialize};

use super::{PES, is_spread, run};

/// A number that looks random, from a counter.
fn scramble(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
}

/// An element that looks at its companions whenever it runs.
#[derive(Serialize, Deserialize)]
pub(super) struct Part {
    companions: Vec<Array<Part>>,
    seed: u64,
    touched: u64,
    arrivals: u64,
    heard: Vec<u64>,
    received: u64,
}

#[chare(index = usize)]
impl Part {
    fn new(cx: &Cx<Self>, companions: Vec<Array<Part>>) -> Self {
        let part = Part {
            companions,
            seed: cx.index() as u64,
            touched: 0,
            arrivals: 0,
            heard: Vec::new(),
            received: 0,
        };
        part.look(cx);
        part
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.arrivals += 1;
        self.look(cx);
    }

    fn look(&self, cx: &Cx<Self>) {
        for companions in &self.companions {
            match companions.at(cx.index()).local(|companion| companion.touched += 1) {
                Ok(()) | Err(NotLocal::Busy) => {}
                Err(error) => panic!("element {} is not beside its companion: {error}", cx.index()),
            }
        }
    }

    fn drift(&mut self, cx: &Cx<Self>) {
        self.look(cx);
        self.seed = scramble(self.seed);
        if self.seed.is_multiple_of(2) {
            cx.this().migrate((self.seed / 2) as usize % cx.num_pes()).send();
        }
    }

    #[entry]
    fn know(&mut self, cx: &Cx<Self>, companions: Vec<Array<Part>>) {
        self.companions = companions;
        self.look(cx);
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> usize {
        self.look(cx);
        cx.my_pe().index()
    }

    #[entry]
    fn hear(&mut self, cx: &Cx<Self>, number: u64) {
        self.heard.push(number);
        self.drift(cx);
    }

    /// As `hear`, with a wait in the middle.
    #[entry]
    async fn hear_slowly(this: This<Self>, number: u64) -> Result<()> {
        this.with(|s| {
            s.heard.push(number);
            s.drift(&this);
        });
        this.element((this.index() + 1) % this.array().shape()).expect("inside").receive().await?;
        this.with(|s| s.drift(&this));
        Ok(())
    }

    /// As `hear`, and owns the element for a while.
    #[entry]
    async fn hear_alone(&mut self, cx: &Cx<Self>, number: u64) {
        self.heard.push(number);
        self.drift(cx);
        cx.sleep(std::time::Duration::from_micros(50)).await;
        self.drift(cx);
    }

    #[entry]
    fn receive(&mut self) {
        self.received += 1;
    }

    #[entry]
    fn spread(&mut self, cx: &Cx<Self>, hops: u64) {
        self.received += 1;
        self.drift(cx);
        if hops > 0 {
            for turn in 0..2 {
                let to = scramble(self.seed + turn) as usize % cx.array().shape();
                cx.array().at(to).spread(hops - 1).send();
            }
        }
    }

    #[entry]
    fn add_up(&mut self, cx: &Cx<Self>, sum: Callback<(u64, Vec<usize>)>) {
        cx.contribute((1, cx.index()), (Sum, Gather), sum);
        self.drift(cx);
    }

    #[entry]
    fn heard(&self) -> (Vec<u64>, u64, u64) {
        (self.heard.clone(), self.received, self.arrivals)
    }

    #[entry]
    fn touched(&self) -> u64 {
        self.touched
    }

    #[entry]
    fn pin(&self, cx: &Cx<Self>, is_pinned: bool) {
        cx.set_migratable(!is_pinned);
    }

    #[entry]
    fn panic(&self) {
        panic!("as asked");
    }

    /// Lets its companion move, and awaits that.
    #[entry]
    async fn lead(this: This<Self>, to: usize) -> Result<()> {
        let companions = this.with(|part| part.companions[0]);
        Ok(companions.at(this.index()).migrate(to).await?)
    }

    /// Creates a follower of this element's array.
    #[entry]
    async fn bind(this: This<Self>) -> Result<Array<Part>> {
        let array = this.array();
        Ok(Runtime::array::<Part>(&this, array.shape()).bound_to(&array).create(vec![array]).await?)
    }
}

pub(super) const PARTS: usize = 40;

/// Two arrays of which the second is bound to the first, and each knows the other.
async fn pair(rt: &Runtime) -> Result<(Array<Part>, Array<Part>)> {
    let leader = rt.array::<Part>(PARTS).create(Vec::new()).await?;
    let follower = rt.array::<Part>(PARTS).bound_to(&leader).create(vec![leader]).await?;
    leader.know(vec![follower]).await?;
    Ok((leader, follower))
}

pub(super) async fn places(array: Array<Part>) -> Result<Vec<usize>> {
    Ok(array.place().gather().await?)
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn companions_move_together(rt: Runtime) -> Result<()> {
    let (leader, follower) = pair(&rt).await?;
    assert_eq!(places(leader).await?, places(follower).await?);
    for i in 0..PARTS {
        let moved = if i % 2 == 0 { leader } else { follower };
        let to = (i * 3) % rt.num_pes();
        moved.at(i).migrate(to).await?;
        assert_eq!((leader.at(i).place().await?, follower.at(i).place().await?), (to, to));
    }
    let arrivals = |heard: Vec<(Vec<u64>, u64, u64)>| heard.iter().map(|heard| heard.2).sum::<u64>();
    let (a, b) = (leader.heard().gather().await?, follower.heard().gather().await?);
    assert_eq!(arrivals(a.clone()), arrivals(b), "`migrated` runs in both");
    assert_eq!(arrivals(a) > 0, rt.num_pes() > 1);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_follower_begins_where_its_leader_is(rt: Runtime) -> Result<()> {
    let leader = rt.array::<Part>(PARTS).create(Vec::new()).await?;
    for i in 0..PARTS {
        leader.at(i).migrate((7 * i + 3) % rt.num_pes()).await?;
    }
    // The constructors look, too.
    let follower = rt.array::<Part>(PARTS).bound_to(&leader).create(vec![leader]).await?;
    let expected: Vec<_> = (0..PARTS).map(|i| (7 * i + 3) % rt.num_pes()).collect();
    assert_eq!(places(follower).await?, expected);
    for (i, at) in expected.into_iter().enumerate() {
        assert_eq!(follower.at(i).place().await?, at, "a plain call finds it");
    }
    let (to, sum) = rt.promise();
    follower.add_up(to.into()).send();
    assert_eq!(sum.await?, (PARTS as u64, (0..PARTS).collect()));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn all_of_a_chain_and_a_star_move_together(rt: Runtime) -> Result<()> {
    let first = rt.array::<Part>(PARTS).create(Vec::new()).await?;
    first.hear(0).await?;
    let second = rt.array::<Part>(PARTS).bound_to(&first).create(vec![first]).await?;
    second.hear(0).await?;
    let third = rt.array::<Part>(PARTS).bound_to(&second).create(vec![first, second]).await?;
    let fourth = rt.array::<Part>(PARTS).bound_to(&first).create(vec![first, second, third]).await?;
    let all = [first, second, third, fourth];
    for array in all {
        array.know(all.iter().copied().filter(|other| *other != array).collect()).await?;
    }
    for round in 0..20 {
        all[round % 4].at(round).migrate(round % rt.num_pes()).await?;
        for array in all {
            assert_eq!(array.at(round).place().await?, round % rt.num_pes());
        }
    }
    for round in 0..20 {
        all[round % 4].hear(1).send();
        all[(round + 1) % 4].hear_slowly(2).await?;
    }
    rt.quiescence().await?;
    let at_first = places(first).await?;
    for array in all {
        assert_eq!(places(array).await?, at_first);
    }
    Ok(())
}

/// The follower and what is sent to it are on their way while the leader's elements move on and on.
#[chare::test(pes = [1, 2, 4, 8])]
async fn followers_are_created_while_leaders_move(rt: Runtime) -> Result<()> {
    for round in 0..30_u64 {
        let leader = rt.array::<Part>(PARTS).create(Vec::new()).await?;
        for i in 0..PARTS / 2 {
            leader.at(i * 2).spread(4).send();
        }
        if round % 2 == 0 {
            leader.hear(0).await?;
        }
        let second = rt.array::<Part>(PARTS).bound_to(&leader).create(vec![leader]).send();
        second.hear(0).send();
        let (to, sum) = rt.promise();
        second.add_up(to.into()).send();
        second.at(round as usize).spread(5).send();
        let third = rt.array::<Part>(PARTS).bound_to(&second).create(vec![leader, second]).send();
        third.hear(0).send();
        third.hear_alone(1).send();
        second.hear_slowly(1).await?;
        leader.know(vec![second, third]).await?;
        second.know(vec![leader, third]).await?;
        third.hear(2).await?;
        assert_eq!(sum.await?, (PARTS as u64, (0..PARTS).collect()));
        rt.quiescence().await?;
        let heard = second.heard().gather().await?;
        assert!(heard.iter().all(|heard| heard.0 == [0, 1]), "round {round}: {heard:?}");
        let received: u64 = heard.iter().map(|heard| heard.1).sum();
        assert_eq!(received, 63 + PARTS as u64);
        let heard = third.heard().gather().await?;
        assert!(heard.iter().all(|heard| heard.0 == [0, 1, 2]), "round {round}: {heard:?}");
        let at = places(leader).await?;
        assert_eq!((&places(second).await?, &places(third).await?), (&at, &at));
    }
    Ok(())
}

/// An element creates the follower, on a PE that is not that of the leader's creator.
#[chare::test(pes = [1, 2, 4, 8])]
async fn an_element_binds_to_its_own_array(rt: Runtime) -> Result<()> {
    let leader = rt.array::<Part>(PARTS).create(Vec::new()).await?;
    for i in 0..10 {
        let binding = leader.at(i * 4 + 3).bind().future();
        leader.hear(i as u64).send();
        let follower = binding.await?;
        leader.hear(i as u64).send();
        follower.hear(0).await?;
        rt.quiescence().await?;
        assert_eq!(places(leader).await?, places(follower).await?);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn everything_at_once(rt: Runtime) -> Result<()> {
    let (leader, follower) = pair(&rt).await?;
    let third = rt.array::<Part>(PARTS).bound_to(&follower).create(vec![leader, follower]).await?;
    leader.know(vec![follower, third]).await?;
    let all = [leader, follower, third];
    let mut sums = Vec::new();
    for round in 0..40_u64 {
        for array in all {
            match round % 4 {
                0..2 => array.hear(round).send(),
                2 => array.hear_alone(round).send(),
                _ => array.hear_slowly(round).await?,
            }
            let (to, sum) = rt.promise();
            array.add_up(to.into()).send();
            sums.push(sum);
            array.at(scramble(round) as usize % PARTS).spread(5).send();
        }
    }
    for sum in sums {
        assert_eq!(sum.await?, (PARTS as u64, (0..PARTS).collect()));
    }
    rt.quiescence().await?;
    for array in all {
        let heard = array.heard().gather().await?;
        for (mut heard, ..) in heard.iter().cloned() {
            // An exclusive coroutine holds back what comes meanwhile, in order.
            heard.sort_unstable();
            assert_eq!(heard, (0..40).collect::<Vec<_>>());
        }
        assert_eq!(heard.iter().map(|heard| heard.1).sum::<u64>(), 40 * 63 + 10 * PARTS as u64);
    }
    assert_eq!(places(leader).await?, places(third).await?);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn local_changes_the_companion(rt: Runtime) -> Result<()> {
    let (leader, follower) = pair(&rt).await?;
    let before = follower.at(3).touched().await?;
    leader.at(3).place().await?;
    assert_eq!(follower.at(3).touched().await?, before + 1);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn one_that_stays_keeps_its_companions(rt: Runtime) -> Result<()> {
    let (leader, follower) = pair(&rt).await?;
    let to = rt.num_pes() - 1;
    follower.at(3).pin(true).await?;
    let error = leader.at(3).migrate(to).await.expect_err("its companion stays").to_string();
    let told = "Part[3] cannot move: it is bound to Part[3], which has called `set_migratable(false)`";
    assert_eq!(error, told);
    let error = follower.at(3).migrate(to).await.expect_err("it stays").to_string();
    assert_eq!(error, "Part[3] cannot move: it has called `set_migratable(false)`");
    follower.at(3).pin(false).await?;
    leader.at(3).migrate(to).await?;
    assert_eq!(follower.at(3).place().await?, to);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_companion_that_awaits_a_move_comes_along_or_is_told(rt: Runtime) -> Result<()> {
    let (leader, follower) = pair(&rt).await?;
    for array in [leader, follower] {
        let from = array.at(3).place().await?;
        let to = (from + rt.num_pes() / 2) % rt.num_pes();
        let moved = array.at(3).lead(to).await;
        let place = if is_spread(&rt) {
            let error = moved.expect_err("its coroutine does not go to another process").to_string();
            assert!(error.contains("let the coroutine end"), "{error}");
            from
        } else {
            moved?;
            to
        };
        assert_eq!((leader.at(3).place().await?, follower.at(3).place().await?), (place, place));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn what_is_left_of_a_class_goes_on_together(rt: Runtime) -> Result<()> {
    let first = rt.array::<Part>(PARTS).create(Vec::new()).await?;
    let second = rt.array::<Part>(PARTS).bound_to(&first).create(Vec::new()).await?;
    let third = rt.array::<Part>(PARTS).bound_to(&first).create(vec![second]).await?;
    first.at(3).destroy().await?;
    assert!(matches!(first.at(3).place().await, Err(CallError::NoElement(_))));
    for to in rt.pes().chain(rt.pes()) {
        second.at(3).migrate(to).await?;
        assert_eq!(third.at(3).place().await?, to.index());
    }
    let error = rt.array::<Part>(PARTS).bound_to(&first).create(Vec::new()).await.expect_err("it is gone");
    let told = "Part is not created, since it has nothing to be bound to: ";
    assert!(error.to_string().starts_with(told), "{error}");
    let fourth = rt.array::<Part>(PARTS).bound_to(&second).create(vec![second, third]).await?;
    second.hear(1).await?;
    rt.quiescence().await?;
    assert_eq!(places(fourth).await?, places(third).await?);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn calls_of_an_element_that_was_not_created_are_refused(rt: Runtime) -> Result<()> {
    let leader = rt.array::<Part>(PARTS).create(Vec::new()).await?;
    leader.at(5).destroy().await?;
    let (follower, created) = rt.array::<Part>(PARTS).bound_to(&leader).create(Vec::new()).start();
    let early = follower.at(5).place().future();
    created.await.expect_err("one is not created");
    for error in [early.await, follower.at(5).place().await] {
        let error = error.expect_err("not created").to_string();
        assert!(error.contains("nothing to be bound to"), "{error}");
    }
    assert_eq!(follower.at(6).place().await?, leader.at(6).place().await?);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_poisoned_companion_comes_along(rt: Runtime) -> Result<()> {
    let leader = rt.array::<Part>(PARTS).create(Vec::new()).await?;
    let follower = rt.array::<Part>(PARTS).bound_to(&leader).create(Vec::new()).await?;
    follower.at(0).panic().await.expect_err("it panics");
    let mut to = rt.num_pes() - 1;
    if is_spread(&rt) {
        let error = leader.at(0).migrate(to).await.expect_err("it cannot be encoded").to_string();
        assert!(error.ends_with("which is bound to it, was poisoned by a panic"), "{error}");
        assert_eq!(leader.at(0).place().await?, 0);
        // Inside of its process it goes.
        to = rt.num_pes() / rt.num_processes() - 1;
    }
    leader.at(0).migrate(to).await?;
    assert_eq!(leader.at(0).place().await?, to);
    assert!(matches!(follower.at(0).place().await, Err(CallError::Poisoned(_))));
    Ok(())
}

/// An element whose constructor waits.
#[derive(Serialize, Deserialize)]
struct Late {
    leader: Array<Part>,
}

#[chare(index = usize)]
impl Late {
    async fn new(cx: &Cx<Self>, leader: Array<Part>, started: Promise<Promise<()>>) -> Result<Self> {
        if cx.index() == 1 {
            let (to, go_on) = cx.promise();
            started.send(to)?;
            go_on.await?;
        }
        leader.at(cx.index()).local(|_| ())?;
        Ok(Late { leader })
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> Result<usize> {
        self.leader.at(cx.index()).local(|_| ())?;
        Ok(cx.my_pe().index())
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn a_move_waits_for_the_constructor_of_a_companion(rt: Runtime) -> Result<()> {
    let leader = rt.array::<Part>(8).create(Vec::new()).await?;
    for at in rt.pes() {
        leader.at(1).migrate(at).await?;
        let (to, started) = rt.promise();
        let (follower, created) = rt.array::<Late>(8).bound_to(&leader).create((leader, to)).start();
        let go_on = started.await?;
        let next = (at.index() + 1) % rt.num_pes();
        let moved = leader.at(1).migrate(next).future();
        let early = follower.at(1).place().future();
        rt.quiescence().await?;
        assert_eq!(leader.at(1).place().await?, at.index(), "it waits");
        go_on.send(())?;
        created.await?;
        moved.await?;
        early.await?;
        assert_eq!((leader.at(1).place().await?, follower.at(1).place().await?), (next, next));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_companion_whose_constructor_fails_is_not_waited_for(rt: Runtime) -> Result<()> {
    let leader = rt.array::<Part>(8).create(Vec::new()).await?;
    for at in rt.pes() {
        leader.at(1).migrate(at).await?;
        let (to, started) = rt.promise();
        let (follower, created) = rt.array::<Late>(8).bound_to(&leader).create((leader, to)).start();
        let go_on = started.await?;
        let next = (at.index() + 1) % rt.num_pes();
        let moved = leader.at(1).migrate(next).future();
        rt.quiescence().await?;
        drop(go_on);
        assert!(matches!(created.await, Err(CallError::Failed(_))));
        moved.await?;
        assert_eq!(leader.at(1).place().await?, next);
        assert!(matches!(follower.at(1).place().await, Err(CallError::Failed(_))));
        follower.at(2).place().await?;
    }
    Ok(())
}

/// A leader whose elements are not constructed when the follower is created.
#[derive(Serialize, Deserialize)]
struct Slow;

#[chare(index = (usize, usize))]
impl Slow {
    async fn new(cx: &Cx<Self>) -> Self {
        cx.sleep(std::time::Duration::from_micros(200)).await;
        Slow
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> usize {
        cx.my_pe().index()
    }
}

#[derive(Serialize, Deserialize)]
struct Beside {
    leader: Array<Slow>,
}

#[chare(index = (usize, usize))]
impl Beside {
    fn new(leader: Array<Slow>) -> Self {
        Beside { leader }
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> Result<usize> {
        self.leader.at(cx.index()).local(|_| ())?;
        Ok(cx.my_pe().index())
    }
}

/// Deals rows out like cards.
struct ByRow;

impl Placement<(usize, usize)> for ByRow {
    fn pe(&self, &(i, _): &(usize, usize), pe_count: usize) -> usize {
        i % pe_count
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_leader_may_be_mapped_and_not_constructed_yet(rt: Runtime) -> Result<()> {
    let (leader, created) = rt.array::<Slow>((5, 4)).map(ByRow).create(()).start();
    let follower = rt.array::<Beside>((5, 4)).bound_to(&leader).create(leader).await?;
    for j in 0..4 {
        leader.at((3, j)).migrate(0).send();
    }
    created.await?;
    rt.quiescence().await?;
    let expected: Vec<_> = (0..20).map(|n| if n / 4 == 3 { 0 } else { n / 4 % rt.num_pes() }).collect();
    assert_eq!(leader.place().gather().await?, expected);
    assert_eq!(follower.place().gather().await?, expected);
    Ok(())
}

#[test]
fn nonsense_is_told() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let leader = rt.array::<Part>(4).create(Vec::new()).await?;
            rt.array::<Part>(5).bound_to(&leader).create(Vec::new()).send();
            Ok::<(), BoxError>(())
        });
        assert!(
            report.to_string().contains("an array of shape 5 cannot be bound to one of shape 4"),
            "{report}"
        );
        let report = run(pes, async |rt: Runtime| {
            let leader = rt.array::<Slow>((4, 4)).create(()).await?;
            rt.array::<Slow>((4, 4)).map(ByRow).bound_to(&leader).create(()).send();
            Ok::<(), BoxError>(())
        });
        assert!(report.to_string().contains("a bound array has no map"), "{report}");
    }
}

#[test]
fn an_array_of_another_run_is_told() {
    let (to, from) = std::sync::mpsc::channel();
    let report = run(2, async move |rt: Runtime| {
        to.send(rt.array::<Part>(4).create(Vec::new()).await?)?;
        Ok::<(), BoxError>(())
    });
    assert!(report.is_success(), "{report}");
    let leader = from.recv().expect("it was sent");
    let report = run(2, async move |rt: Runtime| {
        rt.array::<Part>(4).bound_to(&leader).create(Vec::new()).send();
        Ok::<(), BoxError>(())
    });
    assert!(report.to_string().contains("an array cannot be bound to one of another run"), "{report}");
}
