//! Programs that unfold: each chare creates others, wherever the runtime places them, and is gone when it has done its part.

use std::sync::atomic::{AtomicUsize, Ordering};

use chare::prelude::*;

/// Counts the chares that hold one.
struct Alive(Shared<AtomicUsize>);

impl Alive {
    fn new(alive: Shared<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Alive(alive)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) mod fib {
    //! Charm++ tests/charm++/megatest/fib: a chare for each Fibonacci number above the grain, which adds what its two
    //! children bring.

    use super::*;

    const GRAIN: u64 = 10;

    fn sequential(n: u64) -> u64 {
        if n < 2 { n } else { sequential(n - 1) + sequential(n - 2) }
    }

    struct Fib {
        sum: u64,
        missing: u32,
        parent: Callback<u64>,
        _alive: Alive,
    }

    #[chare]
    impl Fib {
        fn new(cx: &Cx<Self>, n: u64, parent: Callback<u64>, alive: Shared<AtomicUsize>) -> Result<Self> {
            if n <= GRAIN {
                parent.deliver(sequential(n))?;
                cx.this().destroy().send();
            } else {
                for child in [n - 1, n - 2] {
                    cx.single::<Fib>().create((child, cx.callback(Fib::ADD), alive.clone())).send();
                }
            }
            Ok(Fib { sum: 0, missing: 2, parent, _alive: Alive::new(alive) })
        }

        #[entry]
        fn add(&mut self, cx: &Cx<Self>, part: u64) -> Result<()> {
            self.sum += part;
            self.missing -= 1;
            if self.missing == 0 {
                self.parent.deliver(self.sum)?;
                cx.this().destroy().send();
            }
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (to, result) = rt.promise();
        let alive = Shared::new(AtomicUsize::new(0));
        rt.single::<Fib>().create((20, to.into(), alive.clone())).send();
        assert_eq!(result.await?, 6765);
        rt.quiescence().await?;
        assert_eq!(alive.load(Ordering::Relaxed), 0);
        Ok(())
    }
}

pub(super) mod queens {
    //! Charm++ tests/charm++/megatest/queens: a chare for each partial board; solutions are counted by a group, on the PE
    //! where they are found, and nobody knows how many chares there will be: quiescence tells that all have been.

    use super::*;

    const MOST_QUEENS: usize = 9;

    /// How many there are, and how many solutions.
    fn queens() -> (usize, u64) {
        crate::real_or_simulated((MOST_QUEENS, 352), (7, 40))
    }

    /// Rows that one chare searches by itself.
    fn grain() -> usize {
        crate::real_or_simulated(6, 5)
    }

    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Board {
        columns: [usize; MOST_QUEENS],
        rows: usize,
    }

    impl Board {
        fn is_safe(&self, column: usize) -> bool {
            let rows = self.columns[..self.rows].iter().enumerate();
            rows.clone().all(|(row, &other)| other != column && other.abs_diff(column) != self.rows - row)
        }

        fn next_rows(&self) -> impl Iterator<Item = Board> {
            (0..queens().0).filter(|&column| self.is_safe(column)).map(|column| {
                let mut next = self.clone();
                next.columns[next.rows] = column;
                next.rows += 1;
                next
            })
        }

        fn count(&self) -> u64 {
            if self.rows == queens().0 { 1 } else { self.next_rows().map(|next| next.count()).sum() }
        }
    }

    struct Queens {
        _alive: Alive,
    }

    #[chare]
    impl Queens {
        fn new(cx: &Cx<Self>, board: Board, counters: Group<Counter>, alive: Shared<AtomicUsize>) -> Result<Self> {
            if queens().0 - board.rows < grain() {
                let solutions = board.count();
                counters.on(cx.my_pe()).local(|counter| counter.solutions += solutions)?;
            } else {
                for next in board.next_rows() {
                    cx.single::<Queens>().create((next, counters, alive.clone())).send();
                }
            }
            // Already from its constructor.
            cx.this().destroy().send();
            Ok(Queens { _alive: Alive::new(alive) })
        }
    }

    struct Counter {
        solutions: u64,
    }

    #[chare]
    impl Counter {
        fn new() -> Self {
            Counter { solutions: 0 }
        }

        #[entry]
        fn solutions(&self) -> u64 {
            self.solutions
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let counters = rt.group::<Counter>().create(()).await?;
        let board = Board { columns: [0; MOST_QUEENS], rows: 0 };
        let alive = Shared::new(AtomicUsize::new(0));
        rt.single::<Queens>().create((board, counters, alive.clone())).send();
        rt.quiescence().await?;
        assert_eq!(alive.load(Ordering::Relaxed), 0);
        assert_eq!(counters.solutions().gather().await?.into_iter().sum::<u64>(), queens().1);
        Ok(())
    }
}
