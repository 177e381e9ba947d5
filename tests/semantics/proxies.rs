//! Proxies: small values that are compared, hashed, sent and used anywhere.

use std::collections::{HashMap, HashSet};

use chare::prelude::*;

struct Node {
    met: HashMap<Element<Node>, u32>,
}

#[chare(index = (usize, usize))]
impl Node {
    fn new() -> Self {
        Node { met: HashMap::new() }
    }

    #[entry]
    fn this(&self, cx: &Cx<Self>) -> (Element<Node>, Array<Node>) {
        (cx.this(), cx.array())
    }

    #[entry]
    fn meet(&mut self, other: Element<Node>) -> u32 {
        let times = self.met.entry(other).or_default();
        *times += 1;
        *times
    }

    /// Uses proxies that came as arguments, on its own PE.
    #[entry]
    async fn introduce(this: This<Self>, to: Vec<Element<Node>>, all: Option<Array<Node>>) -> Result<u32> {
        let mut met = 0;
        for other in to {
            met += other.meet(this.this()).await?;
        }
        if let Some(all) = all {
            met += all.meet(this.this()).gather().await?.into_iter().sum::<u32>();
        }
        Ok(met)
    }
}

struct Lone;

#[chare]
impl Lone {
    fn new() -> Self {
        Lone
    }

    #[entry]
    fn this(&self, cx: &Cx<Self>) -> (Element<Lone>, Option<Group<Lone>>) {
        (cx.this(), cx.group())
    }
}

/// The same name in another module is another type.
mod other {
    use chare::prelude::*;

    pub(super) struct Lone;

    #[chare]
    impl Lone {
        fn new() -> Self {
            Lone
        }

        #[entry]
        pub(super) fn name(&self) -> String {
            "other".into()
        }
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn proxies_of_one_target_are_equal_wherever_they_were_made(rt: Runtime) -> Result<()> {
    let nodes = rt.array::<Node>((3, 3)).create(()).await?;
    let same_shape = rt.array::<Node>((3, 3)).create(()).await?;
    assert_ne!(nodes, same_shape);
    assert_ne!(nodes.at((0, 0)), same_shape.at((0, 0)));
    assert_ne!(nodes.at((0, 1)), nodes.at((1, 0)));
    for (element, (this, array)) in nodes.elements().zip(nodes.this().gather().await?) {
        assert_eq!((element, nodes), (this, array));
        assert_eq!(nodes.at(element.index()), element);
    }
    let made_in_two_ways: HashSet<_> =
        nodes.elements().chain(nodes.elements().map(|element| nodes.at(element.index()))).collect();
    assert_eq!(made_in_two_ways.len(), 9);

    let (a, b) = (rt.single::<Lone>().create(()).await?, rt.single::<Lone>().create(()).await?);
    assert_ne!(a, b);
    assert_eq!((a.this().await?, b.this().await?), ((a, None), (b, None)));
    let group = rt.group::<Lone>().create(()).await?;
    for (pe, (this, of)) in rt.pes().zip(group.this().gather().await?) {
        assert_eq!((this, of), (group.on(pe), Some(group)));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn proxies_are_sent_and_used_on_other_pes(rt: Runtime) -> Result<()> {
    let nodes = rt.array::<Node>((4, 4)).create(()).await?;
    let everybody: Vec<_> = nodes.elements().collect();
    for index in [(0, 0), (3, 3)] {
        assert_eq!(nodes.at(index).introduce(everybody.clone(), Some(nodes)).await?, 16 + 32);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn proxies_work_before_the_creation_has_finished(rt: Runtime) -> Result<()> {
    let first = rt.array::<Node>((4, 4)).create(()).await?;
    for _ in 0..20 {
        let young = rt.array::<Node>((2, 3)).create(()).send();
        let everybody: Vec<_> = young.elements().collect();
        let met = first.introduce(everybody, Some(young)).gather().await?;
        assert_eq!(met, [6 + 12; 16]);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn chares_of_one_name_in_two_modules_are_two_types(rt: Runtime) -> Result<()> {
    use other::LoneEntries as _;
    let lone = rt.single::<other::Lone>().create(()).await?;
    assert_eq!(lone.name().await?, "other");
    assert_eq!(rt.group::<other::Lone>().create(()).await?.name().gather().await?.len(), rt.num_pes());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn proxies_are_small_and_say_what_they_are(rt: Runtime) -> Result<()> {
    let nodes = rt.array::<Node>((3, 3)).create(()).await?;
    assert!(size_of_val(&nodes.at((0, 0))) <= 40 && size_of_val(&nodes) <= 32);
    assert!(format!("{:?}", nodes.at((1, 2))).contains("Node[(1, 2)]"));
    assert!(format!("{nodes:?}").contains("Node"));
    Ok(())
}
