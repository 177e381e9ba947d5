//! What a look costs, counted in calls of the user's code: a tag is looked up, a condition on the state alone is looked at
//! once for all that wait, any other once for each.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chare::prelude::*;

#[derive(Default)]
struct Counts {
    hashed: AtomicUsize,
    compared: AtomicUsize,
    looked: AtomicUsize,
}

impl Counts {
    fn look(&self) {
        self.looked.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted since the last time.
    fn take(&self) -> usize {
        [&self.hashed, &self.compared, &self.looked]
            .map(|count| count.swap(0, Ordering::Relaxed))
            .iter()
            .sum()
    }
}

/// Counts how often it is hashed and compared.
#[derive(Clone)]
struct Tag(u64, Arc<Counts>);

impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        self.1.compared.fetch_add(1, Ordering::Relaxed);
        self.0 == other.0
    }
}

impl Eq for Tag {}

impl Hash for Tag {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.1.hashed.fetch_add(1, Ordering::Relaxed);
        self.0.hash(state);
    }
}

struct Counted {
    now: Tag,
    is_open: bool,
    ran: Vec<u64>,
    counts: Arc<Counts>,
}

#[chare]
impl Counted {
    fn new(counts: Arc<Counts>) -> Self {
        Counted { now: Tag(0, counts.clone()), is_open: false, ran: Vec::new(), counts }
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

    #[entry(when = |s: &Self| { s.counts.look(); s.is_open })]
    fn on_state(&mut self, number: u64) {
        self.ran.push(number);
    }

    #[entry(when = |s: &Self, number: &u64| { s.counts.look(); s.is_open && *number > 0 })]
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

async fn counted(rt: &Runtime) -> Result<(Element<Counted>, Arc<Counts>)> {
    let counts = Arc::new(Counts::default());
    let chare = rt.single::<Counted>().on_pe(rt.num_pes() - 1).create(counts.clone()).await?;
    Ok((chare, counts))
}

/// Numbers below a power of two, each once, far from their order.
fn scrambled(count: u64) -> impl Iterator<Item = u64> {
    assert!(count.is_power_of_two());
    (0..count).map(move |number| (number * 0x9E35 + 7) % count)
}

#[chare::test(pes = [1, 2, 4], one_process = "its values do not leave their process")]
async fn tags_are_looked_up(rt: Runtime) -> Result<()> {
    const CALLS: u64 = 16384;
    let (chare, counts) = counted(&rt).await?;
    for tag in scrambled(CALLS).filter(|tag| *tag > 0) {
        chare.tagged(Tag(tag, counts.clone())).send();
    }
    rt.quiescence().await?;
    let kept = counts.take();
    assert!(kept <= 4 * CALLS as usize, "to keep {CALLS} calls took {kept} looks");
    chare.tagged(Tag(0, counts.clone())).send();
    rt.quiescence().await?;
    let run = counts.take();
    assert!(run <= 8 * CALLS as usize, "to run {CALLS} calls took {run} looks");
    assert_eq!(chare.ran().await?, Vec::from_iter(0..CALLS));
    Ok(())
}

#[chare::test(pes = [1, 2, 4], one_process = "its values do not leave their process")]
async fn a_step_costs_one_look_up_however_many_tags_there_are(rt: Runtime) -> Result<()> {
    let (chare, counts) = counted(&rt).await?;
    for tag in 1..1000 {
        chare.tagged(Tag(tag, counts.clone())).send();
    }
    rt.quiescence().await?;
    counts.take();
    chare.poke().await?;
    // What follows a step on another PE may come after its answer.
    rt.quiescence().await?;
    assert_eq!(counts.hashed.load(Ordering::Relaxed), 1);
    assert!(counts.take() <= 2);
    // The other argument, the other way round: as one of two lines.
    for tag in 1..1000 {
        chare.tagged_by_the_third(1, 2, Tag(tag, counts.clone())).send();
    }
    rt.quiescence().await?;
    counts.take();
    chare.poke().await?;
    rt.quiescence().await?;
    assert_eq!(counts.hashed.load(Ordering::Relaxed), 2);
    Ok(())
}

#[chare::test(pes = [1, 2, 4], one_process = "its values do not leave their process")]
async fn a_condition_on_the_state_is_looked_at_once_for_all(rt: Runtime) -> Result<()> {
    let (chare, counts) = counted(&rt).await?;
    for number in 0..1000 {
        chare.on_state(number).send();
    }
    rt.quiescence().await?;
    assert_eq!(counts.take(), 1000, "once for each that arrives");
    for _ in 0..10 {
        chare.poke().await?;
    }
    rt.quiescence().await?;
    assert_eq!(counts.take(), 10);
    chare.open().await?;
    rt.quiescence().await?;
    assert_eq!(chare.ran().await?.len(), 1000);
    rt.quiescence().await?;
    assert_eq!(counts.take(), 1000, "once before each that runs");
    Ok(())
}

#[chare::test(pes = [1, 2, 4], one_process = "its values do not leave their process")]
async fn any_other_condition_is_looked_at_for_each(rt: Runtime) -> Result<()> {
    let (chare, counts) = counted(&rt).await?;
    for _ in 0..100 {
        chare.on_call(0).send();
    }
    rt.quiescence().await?;
    assert_eq!(counts.take(), 100);
    for _ in 0..10 {
        chare.poke().await?;
    }
    rt.quiescence().await?;
    assert_eq!(counts.take(), 1000);
    Ok(())
}

#[chare::test(pes = [1, 2, 4], one_process = "its values do not leave their process")]
async fn steps_that_cannot_change_the_state_cost_no_look(rt: Runtime) -> Result<()> {
    let (chare, counts) = counted(&rt).await?;
    let (other, _) = counted(&rt).await?;
    chare.on_state(1).send();
    chare.on_call(1).send();
    rt.quiescence().await?;
    counts.take();
    chare.touch_nothing(other).await?;
    rt.quiescence().await?;
    assert_eq!(counts.take(), 0);
    Ok(())
}
