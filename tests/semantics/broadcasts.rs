//! Broadcasts: to every element exactly once, in one order on all, awaited on completion trees of their own.

use chare::prelude::*;

#[derive(Default)]
struct Cell {
    heard: Vec<(usize, u32)>,
    finished: u32,
}

#[chare(index = usize)]
impl Cell {
    fn new() -> Self {
        Cell::default()
    }

    #[entry]
    fn hear(&mut self, from: usize, number: u32) {
        self.heard.push((from, number));
    }

    #[entry]
    fn heard(&self) -> Vec<(usize, u32)> {
        self.heard.clone()
    }

    /// Broadcasts to its own array.
    #[entry]
    fn speak(&self, cx: &Cx<Self>, count: u32) {
        (0..count).for_each(|number| cx.array().hear(cx.index(), number).send());
    }

    #[entry]
    fn one(&self) -> u32 {
        1
    }

    #[entry]
    async fn finish_later(this: This<Self>) -> Result<()> {
        let next = this.array().at((this.index() + 1) % this.array().shape());
        for _ in 0..3 {
            next.one().await?;
        }
        this.with(|cell| cell.finished += 1);
        Ok(())
    }

    /// Fails, if it is to, before the others have finished.
    #[entry]
    async fn finish_unless(this: This<Self>, failing: usize) -> Result<()> {
        let next = this.array().at((this.index() + 1) % this.array().shape());
        for _ in 0..3 {
            if this.index() == failing {
                return Err("told to".into());
            }
            next.one().await?;
        }
        this.with(|cell| cell.finished += 1);
        Ok(())
    }

    #[entry]
    fn finished(&self) -> u32 {
        self.finished
    }

    #[entry]
    fn succeed_unless(&self, cx: &Cx<Self>, failing: Vec<usize>, panicking: usize) -> Result<usize, String> {
        assert_ne!(cx.index(), panicking, "told to");
        if failing.contains(&cx.index()) { Err(format!("no {}", cx.index())) } else { Ok(cx.index()) }
    }

    /// Keeps the element until the key is used.
    #[entry]
    async fn hold(&mut self, cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<()> {
        let (open, opened) = cx.promise();
        key.send(open)?;
        Ok(opened.await?)
    }

    #[entry]
    fn contribute_if(&self, cx: &Cx<Self>, parity: usize, sum: Promise<usize>) {
        if cx.index() % 2 == parity {
            cx.contribute(cx.index(), reduce::Sum, sum);
        }
    }

    #[entry]
    async fn reduce_twice(this: This<Self>) -> Result<usize> {
        let first = this.allreduce(this.index(), reduce::Max).await?;
        Ok(this.allreduce(first, reduce::Min).await?)
    }
}

/// Speaks from its own PE.
struct Speaker;

#[chare]
impl Speaker {
    fn new() -> Self {
        Speaker
    }

    #[entry]
    fn speak(&self, cx: &Cx<Self>, to: Array<Cell>, count: u32) {
        (0..count).for_each(|number| to.hear(1000 + cx.index(), number).send());
    }

    #[entry]
    async fn speak_and_wait(&self, cx: &Cx<Self>, to: Array<Cell>, count: u32) -> Result<()> {
        for number in 0..count {
            to.hear(1000 + cx.index(), number).await?;
        }
        Ok(())
    }

    #[entry]
    fn pe(&self, cx: &Cx<Self>) -> (usize, usize) {
        (cx.index(), cx.my_pe().index())
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn every_element_hears_exactly_once(rt: Runtime) -> Result<()> {
    for count in [1, 3, 64, 3000] {
        let cells = rt.array::<Cell>(count).create(()).await?;
        cells.hear(7, 1).await?;
        cells.hear(7, 2).send();
        rt.quiescence().await?;
        assert_eq!(cells.heard().gather().await?, vec![vec![(7, 1), (7, 2)]; count]);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_group_hears_on_every_pe(rt: Runtime) -> Result<()> {
    let group = rt.group::<Speaker>().create(()).await?;
    let pes = rt.num_pes();
    assert_eq!(group.pe().gather().await?, (0..pes).map(|pe| (pe, pe)).collect::<Vec<_>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn all_elements_hear_many_senders_in_one_order(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(600).create(()).await?;
    let speakers = rt.group::<Speaker>().create(()).await?;
    let waiting = speakers.speak_and_wait(cells, 10).future();
    speakers.speak(cells, 20).send();
    cells.at(0).speak(20).send();
    cells.at(599).speak(20).send();
    (0..20).for_each(|number| cells.hear(9999, number).send());
    waiting.await?;
    rt.quiescence().await?;
    let mut all = cells.heard().gather().await?;
    let first = all.pop().expect("not empty");
    assert_eq!(first.len(), rt.num_pes() * 30 + 60);
    assert!(all.iter().all(|heard| *heard == first), "the elements heard in different orders");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn awaiting_waits_for_coroutines_too(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(100).create(()).await?;
    for round in 1..5 {
        cells.finish_later().await?;
        assert_eq!(cells.finished().gather().await?, vec![round; 100]);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn values_are_gathered_by_index(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(1000).create(()).await?;
    let values = cells.succeed_unless(vec![], usize::MAX).gather().await?;
    assert_eq!(values, (0..1000).collect::<Vec<usize>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn errors_are_told_first_or_in_their_places(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(20).create(()).await?;
    let one_of = cells.succeed_unless(vec![3, 12], usize::MAX).await.unwrap_err().to_string();
    assert!(["Cell[3]", "Cell[12]"].iter().any(|cell| one_of.contains(cell)), "{one_of}");
    let first = cells.succeed_unless(vec![3, 12], usize::MAX).gather().await.unwrap_err();
    assert_eq!(first.to_string(), "Cell[3].succeed_unless failed: no 3");
    let all = cells.succeed_unless(vec![3, 12], 7).gather_results().await?;
    for (index, outcome) in all.into_iter().enumerate() {
        match (index, outcome) {
            (3 | 12, Err(CallError::Failed(failed))) => assert_eq!(failed.element, format!("[{index}]")),
            (7, Err(CallError::Panicked(panicked))) => assert!(panicked.message.contains("told to")),
            (_, Ok(value)) => assert_eq!(value, index),
            (_, outcome) => panic!("element {index}: {outcome:?}"),
        }
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_error_is_told_when_all_have_finished(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(20).create(()).await?;
    for failing in [0, 11, 19] {
        let before: u32 = cells.finished().gather().await?.iter().sum();
        let error = cells.finish_unless(failing).await.expect_err("one fails");
        assert_eq!(error.to_string(), format!("Cell[{failing}].finish_unless failed: told to"));
        let after: u32 = cells.finished().gather().await?.iter().sum();
        assert_eq!(after - before, 19);
        let outcomes = cells.finish_unless(failing).gather_results().await?;
        let failed: Vec<_> = (0..20).filter(|&index| outcomes[index].is_err()).collect();
        assert_eq!(failed, [failing]);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn awaited_broadcasts_and_reductions_do_not_mix(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(50).create(()).await?;
    let (sum, total) = rt.promise();
    cells.contribute_if(0, sum.clone()).await?;
    cells.hear(0, 0).await?;
    assert_eq!(cells.one().gather().await?, [1; 50]);
    cells.contribute_if(1, sum).await?;
    assert_eq!(total.await?, 49 * 50 / 2);
    let (first, second) = (cells.reduce_twice().gather(), cells.finish_later().future());
    second.await?;
    assert_eq!(first.await?, [49; 50]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_owned_element_hears_when_it_is_free_and_the_others_at_once(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(10).create(()).await?;
    let (key, locked) = rt.promise();
    let holding = cells.at(4).hold(key).future();
    let open = locked.await?;
    let (first, second) = (cells.hear(0, 1).future(), cells.hear(0, 2).future());
    rt.quiescence().await?;
    for index in (0..10).filter(|&index| index != 4) {
        assert_eq!(cells.at(index).heard().await?, [(0, 1), (0, 2)]);
    }
    open.send(())?;
    holding.await?;
    second.await?;
    first.await?;
    assert_eq!(cells.at(4).heard().await?, [(0, 1), (0, 2)]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn broadcasts_before_the_constructors_have_run_are_kept(rt: Runtime) -> Result<()> {
    let cells = rt.array::<Cell>(5000).create(()).send();
    cells.hear(1, 1).send();
    assert_eq!(cells.heard().gather().await?, vec![vec![(1, 1)]; 5000]);
    Ok(())
}

/// Elements with even indexes are constructed only when they are told to go on.
struct Late {
    heard: Vec<u32>,
}

#[chare(index = usize)]
impl Late {
    async fn new(cx: &Cx<Self>, key: Promise<Promise<()>>) -> Result<Self> {
        if cx.index().is_multiple_of(2) {
            let (open, opened) = cx.promise();
            key.send(open)?;
            opened.await?;
        }
        Ok(Late { heard: Vec::new() })
    }

    #[entry]
    fn hear(&mut self, number: u32) {
        self.heard.push(number);
    }

    #[entry]
    fn heard(&self) -> Vec<u32> {
        self.heard.clone()
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_order_holds_for_elements_that_are_still_constructed(rt: Runtime) -> Result<()> {
    let (key, constructing) = rt.promises(5);
    let lates = rt.array::<Late>(10).create(key).send();
    let gates: Vec<Promise<()>> = constructing.await?;
    (0..20).for_each(|number| lates.hear(number).send());
    gates.iter().try_for_each(|gate| gate.send(()))?;
    (20..40).for_each(|number| lates.hear(number).send());
    let mut all = lates.heard().gather().await?;
    let first = all.pop().expect("not empty");
    assert_eq!(first.len(), 40);
    assert!(all.iter().all(|heard| *heard == first), "the elements heard in different orders");
    Ok(())
}

/// Each step of it causes the next, by a broadcast or a reduction.
struct Chain {
    steps: u64,
}

#[chare(index = usize)]
impl Chain {
    fn new() -> Self {
        Chain { steps: 0 }
    }

    #[entry]
    fn step_on(&mut self, cx: &Cx<Self>, left: u64) {
        self.steps += 1;
        if cx.index() == 0 && left > 0 {
            cx.array().step_on(left - 1).send();
        }
    }

    #[entry]
    fn reduce(&mut self, cx: &Cx<Self>, _sum: u64) {
        self.steps += 1;
        if self.steps < 20_000 {
            cx.contribute(1, reduce::Sum, cx.array().callback(Chain::REDUCE));
        }
    }

    #[entry]
    fn steps(&self) -> u64 {
        self.steps
    }
}

/// On one PE the order of service is known: what arrives while a chain runs waits for a few of its steps, no more the
/// longer the chain has run.
#[chare::test(pes = [1])]
async fn a_chain_of_broadcasts_starves_nobody(rt: Runtime) -> Result<()> {
    let starts: [fn(Array<Chain>); 2] =
        [|chain| chain.step_on(20_000).send(), |chain| chain.reduce(0).send()];
    for start in starts {
        let chain = rt.array::<Chain>(2).create(()).await?;
        start(chain);
        let mut before = 0;
        loop {
            let steps = chain.at(1).steps().await?;
            assert!(steps <= before + 10, "{} steps while one call waited", steps - before);
            if steps == before && steps >= 20_000 {
                break;
            }
            before = steps;
        }
    }
    Ok(())
}
