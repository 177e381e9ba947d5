//! Creation and places.

use chare::prelude::*;

struct Leaf {
    value: usize,
}

#[chare(index = (usize, usize))]
impl Leaf {
    fn new(value: usize) -> Self {
        Leaf { value }
    }

    #[entry]
    fn value(&self, cx: &Cx<Self>) -> usize {
        let (row, column) = cx.index();
        self.value + 10 * row + column
    }
}

struct Creator {
    value: usize,
}

#[chare]
impl Creator {
    fn new(value: usize) -> Self {
        Creator { value }
    }

    #[entry]
    fn value(&self) -> usize {
        self.value
    }

    /// Creates one of each kind here, and uses it at once.
    #[entry]
    async fn create(this: This<Self>) -> Result<usize> {
        let (rt, own): (&Runtime, _) = (&this, this.with(|creator| creator.value));
        let array = rt.array::<Leaf>((2, 3)).create(own).send();
        let sum: usize = array.value().gather().await?.into_iter().sum();
        assert_eq!(sum, 6 * own + 3 * 10 + 2 * 3);
        let group = rt.group::<Creator>().create(own + 1).send();
        assert_eq!(group.value().gather().await?, vec![own + 1; rt.num_pes()]);
        let single = rt.single::<Creator>().create(own + 2).send();
        Ok(single.value().await?)
    }

    #[entry]
    async fn call_outside(this: This<Self>, group: Group<Creator>) -> Result<String> {
        let pes = this.num_pes();
        let error = group.on(pes).value().await.expect_err("there is no such PE");
        assert!(matches!(error, CallError::NoElement(_)), "{error}");
        Ok(error.to_string())
    }
}

/// charm4py: arrays and single chares can be created on PE 0 only, which its manual does not say.
#[chare::test(pes = [1, 2, 4, 8])]
async fn every_pe_creates_all_kinds_of_chares(rt: Runtime) -> Result<()> {
    let creators = rt.group::<Creator>().create(5).send();
    assert_eq!(creators.create().gather().await?, vec![7; rt.num_pes()]);
    Ok(())
}

/// charm4py: a message to a PE where the group has no member is kept there for ever, and nobody is told.
#[chare::test(pes = [1, 2, 4, 8])]
async fn a_message_to_nobody_is_an_error(rt: Runtime) -> Result<()> {
    let creators = rt.group::<Creator>().create(5).send();
    for error in creators.call_outside(creators).gather().await? {
        assert!(error.contains(&format!("Creator has no element [{}]", rt.num_pes())), "{error}");
    }
    // On a PE that exists but has no member, too.
    let few = rt.group::<Creator>().on_pes([rt.num_pes() - 1]).create(5).send();
    for pe in rt.pes().rev().skip(1) {
        let error = few.on(pe).value().await.expect_err("there is no member");
        assert!(matches!(error, CallError::NoElement(_)), "{error}");
    }
    assert_eq!(few.value().gather().await?, [5]);
    let leaves = rt.array::<Leaf>((2, 3)).create(0).send();
    let error = leaves.at((2, 0)).value().await.expect_err("it is outside");
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    let sparse = rt.array_sparse::<Leaf>().create_empty();
    let early = [(7, 7), (0, 0)].map(|index| sparse.at(index).value().future());
    sparse.insert((7, 7), 3).send();
    sparse.done_inserting().await?;
    let [inserted, absent] = early;
    assert_eq!(inserted.await?, 80);
    let error = absent.await.expect_err("it was never inserted");
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    Ok(())
}
