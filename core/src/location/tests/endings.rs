//! Elements and singletons that come, move, are called from everywhere, fail or go, without end: what PEs keep of them does
//! not grow.

use super::*;
use crate::current;

/// Chares that are there at a time, and how many times that many come and go.
const CHARES: usize = 6;
const ROUNDS: usize = 12;

/// One on each PE; calls others from there, and counts what its PE keeps.
struct Census;

#[chare]
impl Census {
    fn new() -> Self {
        Census
    }

    /// What the tables of this PE keep of chares by their ids.
    #[entry]
    fn count(&self) -> usize {
        current::on_pe("a count", |pe| {
            let collections = pe.directory.iter().flat_map(|collection| collection.kept_counts());
            let singles = pe.singles_made.kept_count() + pe.stillborn.kept_count();
            collections.sum::<usize>() + singles + pe.locations.kept_count()
        })
    }

    /// Calls from here, so that this PE hears where they are.
    #[entry]
    async fn visit(_this: This<Self>, guest: Element<Guest>, lone: Element<Lone>) {
        for _ in 0..2 {
            // They may be gone.
            let _ = (guest.take().await, lone.take().await);
        }
    }
}

struct Guest;

#[chare(index = usize)]
impl Guest {
    async fn new(cx: &Cx<Self>, world: World<()>) -> Result<Self> {
        if world.once_in(3) {
            cx.sleep(std::time::Duration::from_millis(1)).await;
        }
        if world.once_in(5) { Err("doomed".into()) } else { Ok(Guest) }
    }

    #[entry]
    fn take(&self) {}
}

struct Lone;

#[chare]
impl Lone {
    async fn new(cx: &Cx<Self>, world: World<()>) -> Result<Self> {
        if world.once_in(3) {
            cx.sleep(std::time::Duration::from_millis(1)).await;
        }
        if world.once_in(5) { Err("doomed".into()) } else { Ok(Lone) }
    }

    #[entry]
    fn take(&self) {}
}

async fn main(rt: Runtime, world: World<()>) -> Result<()> {
    let census = rt.group::<Census>().create(()).await?;
    let guests = rt.array_sparse::<Guest>().create_empty();
    guests.done_inserting().await?;
    for round in 0..ROUNDS {
        let mut laters = Vec::new();
        for number in 0..CHARES {
            let (rt, world) = (rt.clone(), world.clone());
            laters.push(Box::pin(async move {
                let pe = || world.below(rt.num_pes());
                // Indexes are new, and so is each singleton.
                let insertion = guests.insert(round * CHARES + number, world.clone()).on_pe(pe());
                let lone = rt.single::<Lone>().on_pe(pe()).create(world.clone());
                let (guest, lone) = match (insertion.await, lone.await) {
                    (Ok(guest), Ok(lone)) => (guest, lone),
                    (guest, lone) => {
                        if let Ok(guest) = guest {
                            guest.destroy().await?;
                        }
                        if let Ok(lone) = lone {
                            lone.destroy().await?;
                        }
                        return Ok(());
                    }
                };
                let calls = census.on(pe()).visit(guest, lone).future();
                for _ in 0..world.below(3) {
                    guest.migrate(pe()).await?;
                    lone.migrate(pe()).await?;
                }
                guest.destroy().await?;
                lone.destroy().await?;
                calls.await?;
                assert!(matches!(guest.take().await, Err(CallError::NoElement(_))));
                assert!(matches!(lone.take().await, Err(CallError::NoElement(_))));
                Ok(())
            }) as Later);
        }
        while !laters.is_empty() {
            await_any(&world, &mut laters).await?;
        }
        rt.quiescence().await?;
        let kept: usize = census.count().gather().await?.into_iter().sum();
        // Ends that are not told yet, with records on all PEs; failures that are remembered.
        let bound = rt.num_pes() * (rt.num_pes() + 8);
        assert!(kept <= bound, "round {round}: {kept} of {bound}");
    }
    Ok(())
}

#[test]
fn what_has_ended_is_forgotten() {
    for order in [Order::Inbox, Order::Pair] {
        check(order, 60, 0, main);
    }
}

#[test]
fn shuttle_finds_no_order_in_which_something_is_kept() {
    check_shuttled(30, 0, main);
}
