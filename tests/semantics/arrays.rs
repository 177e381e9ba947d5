//! Dense arrays: one to six dimensions, created from any PE, awaited or used at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use chare::prelude::*;

macro_rules! array_of {
    ($test:ident, $chare:ident, $index:ty, $shape:expr, $outside:expr) => {
        struct $chare {
            index: $index,
        }

        #[chare(index = $index)]
        impl $chare {
            fn new(cx: &Cx<Self>) -> Self {
                $chare { index: cx.index() }
            }

            #[entry]
            fn place(&self, cx: &Cx<Self>) -> ($index, usize) {
                assert_eq!(self.index, cx.index());
                assert_eq!(cx.this(), cx.array().at(cx.index()));
                (cx.index(), cx.my_pe().index())
            }

            /// Asks all others through the proxies in its own context.
            #[entry]
            async fn ask_around(&self, cx: &Cx<Self>) -> Result<usize> {
                let (mut asked, own) = (0, cx.this());
                for element in cx.array().elements().filter(|element| *element != own) {
                    assert_eq!(element.place().await?.0, element.index());
                    asked += 1;
                }
                Ok(asked)
            }
        }

        #[chare::test(pes = [1, 2, 4, 8])]
        async fn $test(rt: Runtime) -> Result<()> {
            let array = rt.array::<$chare>($shape).create(()).await?;
            assert_eq!(array.shape(), $shape);
            let indexes: Vec<$index> = array.elements().map(|element| element.index()).collect();
            assert_eq!(indexes.len() as u64, array.element_count());
            assert!(indexes.is_sorted(), "not in row-major order: {indexes:?}");
            assert_eq!(indexes.iter().collect::<BTreeSet<_>>().len(), indexes.len());
            let places = array.place().gather().await?;
            assert_eq!(places.iter().map(|place| place.0).collect::<Vec<_>>(), indexes);
            assert_eq!(places.iter().map(|place| place.1).collect::<BTreeSet<_>>().len(), rt.num_pes());
            for &index in &indexes {
                assert_eq!(array.at(index).place().await?.0, index);
                assert_eq!(array.try_at(index), Some(array.at(index)));
            }
            let last = array.elements().last().expect("not empty");
            assert_eq!(last.ask_around().await?, indexes.len() - 1);
            assert_eq!(array.try_at($outside), None);
            let error = array.at($outside).place().await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, CallError::NoElement(_)), "{text}");
            assert!(text.contains(stringify!($chare)) && text.contains(&format!("{:?}", $outside)), "{text}");
            Ok(())
        }
    };
}

array_of!(one_dimension, Line, usize, 11, 11);
array_of!(two_dimensions, Plane, (usize, usize), (3, 5), (1, 5));
array_of!(three_dimensions, Space, (usize, usize, usize), (3, 2, 4), (3, 0, 0));
array_of!(four_dimensions, Four, (usize, usize, usize, usize), (2, 3, 1, 4), (0, 0, 1, 0));
array_of!(five_dimensions, Five, (usize, usize, usize, usize, usize), (2, 1, 3, 1, 2), (0, 1, 0, 0, 0));
array_of!(
    six_dimensions,
    Six,
    (usize, usize, usize, usize, usize, usize),
    (2, 2, 1, 2, 1, 2),
    (9, 9, 9, 9, 9, 9)
);

/// Counts constructors, and creates arrays like its own.
struct Cell {
    start: u64,
}

#[chare(index = usize)]
impl Cell {
    fn new(cx: &Cx<Self>, constructed: Shared<AtomicUsize>, start: u64) -> Self {
        constructed.fetch_add(1, Ordering::SeqCst);
        Cell { start: start + cx.index() as u64 }
    }

    #[entry]
    fn add(&mut self, amount: u64) -> u64 {
        self.start += amount;
        self.start
    }

    #[entry]
    async fn create_more(&self, cx: &Cx<Self>, count: usize) -> Result<Array<Cell>> {
        let constructed = Shared::new(AtomicUsize::new(0));
        let array = create(cx, count, &constructed, cx.index() as u64).await?;
        if !super::is_spread(cx) {
            assert_eq!(constructed.load(Ordering::SeqCst), count, "awaiting waits for all constructors");
        }
        Ok(array)
    }
}

fn create(
    rt: &Runtime,
    count: usize,
    constructed: &Shared<AtomicUsize>,
    start: u64,
) -> chare::Creation<Array<Cell>> {
    rt.array::<Cell>(count).create((constructed.clone(), start))
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "it counts in memory that all share")]
async fn awaiting_a_creation_waits_for_all_constructors(rt: Runtime) -> Result<()> {
    for count in [1, 3, 1000, 20_000] {
        let constructed = Shared::new(AtomicUsize::new(0));
        create(&rt, count, &constructed, 0).await?;
        assert_eq!(constructed.load(Ordering::SeqCst), count);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn arrays_are_created_from_any_pe(rt: Runtime) -> Result<()> {
    let cells = create(&rt, 16, &Shared::new(AtomicUsize::new(0)), 0).await?;
    let created = cells.create_more(20).gather().await?;
    assert_eq!(created.iter().collect::<std::collections::HashSet<_>>().len(), 16, "each is another array");
    for (start, array) in (0..).zip(created) {
        assert_eq!(array.add(0).gather().await?, (0..20).map(|i| start + i).collect::<Vec<u64>>());
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn messages_before_the_constructor_are_kept(rt: Runtime) -> Result<()> {
    let array = create(&rt, 5000, &Shared::new(AtomicUsize::new(0)), 100).send();
    let early: Vec<_> = (0..5000).step_by(7).map(|index| (index, array.at(index).add(1).future())).collect();
    for (index, sum) in early {
        assert_eq!(sum.await?, 101 + index as u64);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn one_element_is_an_array_too(rt: Runtime) -> Result<()> {
    let array = create(&rt, 1, &Shared::new(AtomicUsize::new(0)), 5).await?;
    array.add(1).await?;
    assert_eq!(array.add(1).gather().await?, [7]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_array_without_elements_is_refused(rt: Runtime) -> Result<()> {
    let (key, value) = rt.promise();
    rt.single::<Maker>().create(()).await?.make_empty().to(key);
    let error = value.await.unwrap_err().to_string();
    assert!(error.contains("(3, 0)") && error.contains("cannot be created"), "{error}");
    Ok(())
}

struct Maker;

#[chare]
impl Maker {
    fn new() -> Self {
        Maker
    }

    #[entry]
    fn make_empty(&self, cx: &Cx<Self>) {
        let rt: &Runtime = cx;
        rt.array::<Plane>((3, 0)).create(()).send();
    }
}
