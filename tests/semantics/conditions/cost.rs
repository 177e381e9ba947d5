//! What a look costs, counted in calls of the user's code: a tag is looked up, a condition on the state alone is looked at
//! once for all that wait, any other once for each.

use std::cell::Cell;
use std::hash::{Hash, Hasher};

use chare::prelude::*;
use serde::{Deserialize, Serialize};

/// How often tags were hashed, how often compared, and how often a condition was looked at.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Counts {
    hashed: usize,
    compared: usize,
    looked: usize,
}

impl Counts {
    fn all(self) -> usize {
        self.hashed + self.compared + self.looked
    }
}

thread_local! {
    /// Those of this PE.
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { hashed: 0, compared: 0, looked: 0 }) };
}

fn count(change: impl FnOnce(&mut Counts)) {
    let mut counts = COUNTS.get();
    change(&mut counts);
    COUNTS.set(counts);
}

/// Tells what was counted on its PE.
struct Clerk;

#[chare]
impl Clerk {
    fn new() -> Self {
        Clerk
    }

    /// What was counted since the last time.
    #[entry]
    fn take(&self) -> Counts {
        COUNTS.take()
    }
}

/// It is counted how often it is hashed and compared.
#[derive(Clone, Serialize, Deserialize)]
struct Tag(u64);

impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        count(|counts| counts.compared += 1);
        self.0 == other.0
    }
}

impl Eq for Tag {}

impl Hash for Tag {
    fn hash<H: Hasher>(&self, state: &mut H) {
        count(|counts| counts.hashed += 1);
        self.0.hash(state);
    }
}

struct Counted {
    now: Tag,
    is_open: bool,
    ran: Vec<u64>,
}

fn look() {
    count(|counts| counts.looked += 1);
}

#[chare]
impl Counted {
    fn new() -> Self {
        Counted { now: Tag(0), is_open: false, ran: Vec::new() }
    }

    #[entry(when(self.now == tag))]
    fn tagged(&mut self, tag: Tag) {
        self.ran.push(tag.0);
        self.now.0 += 1;
    }

    #[entry(when(third == self.now))]
    fn tagged_by_the_third(&mut self, first: u32, second: u32, third: Tag) {
        self.ran.push(third.0 + u64::from(first + second));
    }

    #[entry(when = |s: &Self| { look(); s.is_open })]
    fn on_state(&mut self, number: u64) {
        self.ran.push(number);
    }

    #[entry(when = |s: &Self, number: &u64| { look(); s.is_open && *number > 0 })]
    fn on_call(&mut self, number: u64) {
        self.ran.push(number);
    }

    /// A step that changes nothing.
    #[entry]
    fn poke(&mut self) {}

    #[entry]
    fn open(&mut self) {
        self.is_open = true;
    }

    #[entry]
    fn ran(&self) -> Vec<u64> {
        self.ran.clone()
    }

    /// Its steps do not touch the state.
    #[entry]
    async fn touch_nothing(this: This<Self>, other: Element<Counted>) -> Result<()> {
        for _ in 0..10 {
            other.poke().await?;
        }
        let _ = this;
        Ok(())
    }
}

/// A chare, and who tells what is counted where it is: nothing so far.
async fn counted(rt: &Runtime) -> Result<(Element<Counted>, Element<Clerk>)> {
    let chare = rt.single::<Counted>().on_pe(rt.num_pes() - 1).create(()).await?;
    let clerk = rt.single::<Clerk>().on_pe(rt.num_pes() - 1).create(()).await?;
    clerk.take().await?;
    Ok((chare, clerk))
}

/// Numbers below a power of two, each once, far from their order.
fn scrambled(count: u64) -> impl Iterator<Item = u64> {
    assert!(count.is_power_of_two());
    (0..count).map(move |number| (number * 0x9E35 + 7) % count)
}

#[chare::test(pes = [1, 2, 4])]
async fn tags_are_looked_up(rt: Runtime) -> Result<()> {
    const CALLS: u64 = 16384;
    let (chare, clerk) = counted(&rt).await?;
    for tag in scrambled(CALLS).filter(|tag| *tag > 0) {
        chare.tagged(Tag(tag)).send();
    }
    rt.quiescence().await?;
    let kept = clerk.take().await?.all();
    assert!(kept <= 4 * CALLS as usize, "to keep {CALLS} calls took {kept} looks");
    chare.tagged(Tag(0)).send();
    rt.quiescence().await?;
    let run = clerk.take().await?.all();
    assert!(run <= 8 * CALLS as usize, "to run {CALLS} calls took {run} looks");
    assert_eq!(chare.ran().await?, Vec::from_iter(0..CALLS));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_step_costs_one_look_up_however_many_tags_there_are(rt: Runtime) -> Result<()> {
    let (chare, clerk) = counted(&rt).await?;
    for tag in 1..1000 {
        chare.tagged(Tag(tag)).send();
    }
    rt.quiescence().await?;
    clerk.take().await?;
    chare.poke().await?;
    // What follows a step on another PE may come after its answer.
    rt.quiescence().await?;
    let step = clerk.take().await?;
    assert!(step.hashed == 1 && step.all() <= 2, "{} were hashed, {} compared", step.hashed, step.compared);
    // The other argument, the other way round: as one of two lines.
    for tag in 1..1000 {
        chare.tagged_by_the_third(1, 2, Tag(tag)).send();
    }
    rt.quiescence().await?;
    clerk.take().await?;
    chare.poke().await?;
    rt.quiescence().await?;
    assert_eq!(clerk.take().await?.hashed, 2);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_condition_on_the_state_is_looked_at_once_for_all(rt: Runtime) -> Result<()> {
    let (chare, clerk) = counted(&rt).await?;
    for number in 0..1000 {
        chare.on_state(number).send();
    }
    rt.quiescence().await?;
    assert_eq!(clerk.take().await?.all(), 1000, "once for each that arrives");
    for _ in 0..10 {
        chare.poke().await?;
    }
    rt.quiescence().await?;
    assert_eq!(clerk.take().await?.all(), 10);
    chare.open().await?;
    rt.quiescence().await?;
    assert_eq!(chare.ran().await?.len(), 1000);
    rt.quiescence().await?;
    assert_eq!(clerk.take().await?.all(), 1000, "once before each that runs");
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn any_other_condition_is_looked_at_for_each(rt: Runtime) -> Result<()> {
    let (chare, clerk) = counted(&rt).await?;
    for _ in 0..100 {
        chare.on_call(0).send();
    }
    rt.quiescence().await?;
    assert_eq!(clerk.take().await?.all(), 100);
    for _ in 0..10 {
        chare.poke().await?;
    }
    rt.quiescence().await?;
    assert_eq!(clerk.take().await?.all(), 1000);
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn steps_that_cannot_change_the_state_cost_no_look(rt: Runtime) -> Result<()> {
    let (chare, clerk) = counted(&rt).await?;
    let (other, _) = counted(&rt).await?;
    chare.on_state(1).send();
    chare.on_call(1).send();
    rt.quiescence().await?;
    clerk.take().await?;
    chare.touch_nothing(other).await?;
    rt.quiescence().await?;
    assert_eq!(clerk.take().await?.all(), 0);
    Ok(())
}
