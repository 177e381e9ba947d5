//! Single chares: placed where they are wanted, or where the runtime chooses; usable before they exist.

use chare::prelude::*;

struct Lone {
    log: Vec<u32>,
}

#[chare]
impl Lone {
    fn new() -> Self {
        Lone { log: Vec::new() }
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> usize {
        assert_eq!((cx.index(), cx.this().index(), cx.group()), (0, 0, None));
        cx.my_pe().index()
    }

    #[entry]
    fn note(&mut self, number: u32) {
        self.log.push(number);
    }

    #[entry]
    fn log(&self) -> Vec<u32> {
        self.log.clone()
    }

    /// Creates another, and uses it at once.
    #[entry]
    async fn create_another(&self, cx: &Cx<Self>, on: usize) -> Result<(Element<Lone>, usize)> {
        let another = cx.single::<Lone>().on_pe(on).create(()).send();
        let place = another.place().await?;
        Ok((another, place))
    }

    #[entry]
    fn create_nowhere(&self, cx: &Cx<Self>) {
        cx.single::<Lone>().on_pe(cx.num_pes()).create(()).send();
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_chare_is_placed_where_it_is_wanted(rt: Runtime) -> Result<()> {
    for pe in rt.pes() {
        let lone = rt.single::<Lone>().on_pe(pe).create(()).await?;
        assert_eq!(lone.place().await?, pe.index());
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_runtime_chooses_an_existing_pe(rt: Runtime) -> Result<()> {
    for _ in 0..20 {
        let place = rt.single::<Lone>().create(()).await?.place().await?;
        assert!(place < rt.num_pes(), "{place}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn chares_are_created_from_any_pe_and_are_all_different(rt: Runtime) -> Result<()> {
    let mut all = std::collections::HashSet::new();
    for pe in rt.pes() {
        let lone = rt.single::<Lone>().on_pe(pe).create(()).await?;
        for on in rt.pes() {
            let (another, place) = lone.create_another(on.index()).await?;
            assert_eq!(place, on.index());
            assert!(all.insert(another));
        }
        assert!(all.insert(lone));
    }
    assert_eq!(all.len(), rt.num_pes() * (rt.num_pes() + 1));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn messages_before_the_constructor_are_kept(rt: Runtime) -> Result<()> {
    for pe in rt.pes() {
        let lone = rt.single::<Lone>().on_pe(pe).create(()).send();
        (0..100).for_each(|number| lone.note(number).send());
        rt.quiescence().await?;
        let mut log = lone.log().await?;
        log.sort_unstable();
        assert_eq!(log, (0..100).collect::<Vec<_>>());
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_pe_that_does_not_exist_is_refused(rt: Runtime) -> Result<()> {
    let error = rt.single::<Lone>().create(()).await?.create_nowhere().await.unwrap_err().to_string();
    assert!(error.contains("this run has") && error.contains("PEs"), "{error}");
    Ok(())
}
