//! Arrays that are bound to one that the PE which binds them has not heard of, only got the proxy of.

use chare::prelude::*;
use chare::{CallError, Placement};
use serde::{Deserialize, Serialize};

use super::bound::{PARTS, Part, PartEntries as _, places};
use super::is_spread;

/// Every second PE has elements.
struct Scattered;

impl Placement<usize> for Scattered {
    fn pe(&self, i: &usize, pe_count: usize) -> usize {
        (2 * i + 1) % pe_count
    }
}

/// An array whose arguments stay in their process, or panic when they are cloned.
#[derive(Serialize, Deserialize)]
struct Fussy;

#[chare(index = usize)]
impl Fussy {
    fn new(_: Rooted) -> Self {
        Fussy
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> usize {
        cx.my_pe().index()
    }
}

/// No other process can have it.
struct Rooted {
    is_cloned: bool,
}

impl Clone for Rooted {
    fn clone(&self) -> Self {
        assert!(self.is_cloned, "it is not cloned");
        Rooted { is_cloned: true }
    }
}

/// Binds to arrays that its PE may not have heard of.
struct Binder;

#[chare]
impl Binder {
    fn new() -> Self {
        Binder
    }

    /// A follower, and one of that. Both are used at once.
    #[entry]
    async fn bind(this: This<Self>, leader: Array<Part>) -> Result<(Array<Part>, Array<Part>)> {
        let second = Runtime::array::<Part>(&this, PARTS).bound_to(&leader).create(vec![leader]).send();
        let third = Runtime::array::<Part>(&this, PARTS).bound_to(&second).create(vec![leader, second]);
        let (third, created) = third.start();
        second.hear(0).send();
        third.hear(0).send();
        third.at(7).receive().send();
        this.group()
            .expect("it is a member")
            .on((this.my_pe().index() + 1) % this.num_pes())
            .pass_on(second)
            .send();
        let placed = second.at(PARTS - 1).place().future();
        let (to, sum) = this.promise();
        second.add_up(to.into()).send();
        created.await?;
        placed.await?;
        third.hear(1).await?;
        assert_eq!(sum.await?, (PARTS as u64, (0..PARTS).collect()));
        Ok((second, third))
    }

    /// Its creator may wait until it can create it.
    #[entry]
    fn pass_on(&self, follower: Array<Part>) {
        follower.hear(1).send();
    }

    /// What is said of a follower of an array that was not created: of its creation, of a call, and of a broadcast.
    #[entry]
    async fn bind_to_none(this: This<Self>, leader: Array<Fussy>) -> [String; 3] {
        let follower = Runtime::array::<Part>(&this, leader.shape()).bound_to(&leader);
        let (follower, created) = follower.create(Vec::new()).start();
        let (call, broadcast) = (follower.at(1).place().future(), follower.hear(0).future());
        let told = |error: Option<CallError>| error.map_or_else(String::new, |error| error.to_string());
        [told(created.await.err()), told(call.await.err()), told(broadcast.await.err())]
    }

    /// What is said of a follower whose arguments cannot be cloned.
    #[entry]
    async fn bind_uncloned(this: This<Self>, leader: Array<Part>) -> Result<String> {
        let follower = Runtime::array::<Fussy>(&this, PARTS).bound_to(&leader);
        let created = follower.create(Rooted { is_cloned: false }).await;
        Ok(created.map(drop).expect_err("it is not created").to_string())
    }
}

async fn bind_on_all_pes(rt: Runtime) -> Result<()> {
    let binders = rt.group::<Binder>().create(()).await?;
    for round in 0..2 {
        let leader = rt.array::<Part>(PARTS);
        let leader = if round == 0 { leader } else { leader.map(Scattered) };
        let leader = leader.create(Vec::new()).send();
        let binding: Vec<_> = rt.pes().map(|pe| binders.on(pe).bind(leader).future()).collect();
        let mut bound = Vec::new();
        for binding in binding {
            bound.push(binding.await?);
        }
        rt.quiescence().await?;
        let at = places(leader).await?;
        for (second, third) in bound {
            assert_eq!((places(second).await?, places(third).await?), (at.clone(), at.clone()));
            let mut heard = second.heard().gather().await?;
            heard.iter_mut().for_each(|heard| heard.0.sort_unstable());
            assert!(heard.iter().all(|heard| heard.0 == [0, 1]), "{heard:?}");
            let heard = third.heard().gather().await?;
            assert!(heard.iter().all(|heard| heard.0 == [0, 1]) && heard[7].1 == 1, "{heard:?}");
        }
    }
    Ok(())
}

async fn bind_to_what_does_not_come(rt: Runtime) -> Result<()> {
    let binders = rt.group::<Binder>().create(()).await?;
    let (leader, created) = rt.array::<Fussy>(4).create(Rooted { is_cloned: true }).start();
    let told: Vec<_> = rt.pes().map(|pe| binders.on(pe).bind_to_none(leader).future()).collect();
    for told in told {
        for told in told.await? {
            let expected = "Part is not created, since it has nothing to be bound to: Fussy was not created in another process";
            assert!(if is_spread(&rt) { told.starts_with(expected) } else { told.is_empty() }, "{told}");
        }
    }
    assert_eq!(created.await.is_err(), is_spread(&rt));
    let leader = rt.array::<Part>(PARTS).create(Vec::new()).send();
    let told: Vec<_> = rt.pes().map(|pe| binders.on(pe).bind_uncloned(leader).future()).collect();
    for told in told {
        let told = told.await.unwrap_or_else(|error| error.to_string());
        assert!(told.contains("it is not cloned"), "{told}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn who_has_not_heard_of_an_array_binds_to_it(rt: Runtime) -> Result<()> {
    bind_on_all_pes(rt).await
}

#[chare::test(pes = [8], seeds = "20:processes=8")]
async fn who_has_not_heard_of_an_array_in_other_processes_binds_to_it(rt: Runtime) -> Result<()> {
    bind_on_all_pes(rt).await
}

#[chare::test(pes = [8], seeds = "20:processes=8")]
async fn who_binds_to_an_array_that_does_not_come_is_told(rt: Runtime) -> Result<()> {
    bind_to_what_does_not_come(rt).await
}
