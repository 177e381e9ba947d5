//! Messages with priorities.

pub(super) mod priotest {
    //! Charm++ tests/charm++/megatest/priotest: a constructor sends its chare a hundred messages, the last one first; they
    //! come by their priorities.

    use chare::prelude::*;

    const COUNT: i32 = 100;

    struct Test {
        last: i32,
        done: Promise<()>,
    }

    #[chare]
    impl Test {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            (0..COUNT).rev().for_each(|rank| cx.this().receive(rank).priority(rank).send());
            Test { last: -1, done }
        }

        #[entry]
        fn receive(&mut self, rank: i32) -> Result<()> {
            assert_eq!(rank, self.last + 1);
            self.last = rank;
            if rank == COUNT - 1 {
                self.done.send(())?;
            }
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.single::<Test>().create(done).send();
        Ok(is_done.await?)
    }
}

pub(super) mod priolongtest {
    //! Charm++ tests/charm++/megatest/priolongtest: as `priotest`, with priorities from the whole range of 64 bits.

    use chare::prelude::*;

    const LEAST: i64 = -922_337_203_685_477_550;

    struct Test {
        received: Vec<i64>,
        ranks: Vec<i64>,
        done: Promise<()>,
    }

    #[chare]
    impl Test {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            let extremes = [i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1];
            let mut ranks: Vec<i64> = (LEAST..LEAST + 100).chain((0..100).rev()).chain(extremes).collect();
            ranks.iter().for_each(|&rank| cx.this().receive(rank).priority(rank).send());
            ranks.sort_unstable();
            Test { received: Vec::new(), ranks, done }
        }

        #[entry]
        fn receive(&mut self, rank: i64) -> Result<()> {
            self.received.push(rank);
            if self.received.len() == self.ranks.len() {
                assert_eq!(self.received, self.ranks);
                self.done.send(())?;
            }
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.single::<Test>().create(done).send();
        Ok(is_done.await?)
    }
}

pub(super) mod priomsg {
    //! Charm++ tests/charm++/megatest/priomsg: a message with a priority, sent before its chare exists, comes whole.

    use chare::prelude::*;

    struct Test;

    #[chare]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        fn receive(&self, squares: Vec<usize>) -> usize {
            assert!(squares.iter().enumerate().all(|(i, square)| *square == i * i));
            squares.len()
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        for pe in rt.pes() {
            let test = rt.single::<Test>().on_pe(pe).create(()).send();
            let squares = (0..10).map(|i| i * i).collect();
            assert_eq!(test.receive(squares).priority(100).await?, 10);
        }
        Ok(())
    }
}

pub(super) mod bitvector {
    //! Charm++ tests/charm++/megatest/bitvector: strings of bits, made bit by bit and by extending others, within a word and
    //! across words, are equal where their bits are; and messages come in the order of such strings.

    use crate::Random;
    use chare::Priority;
    use chare::prelude::*;

    fn bits_of(value: u32) -> impl Iterator<Item = bool> {
        (0..32).rev().map(move |place| value >> place & 1 == 1)
    }

    fn strings() {
        let empty = Priority::bits([]);
        assert_eq!(empty.extended(0xffff_0000, 32), Priority::bits(bits_of(0xffff_0000)));
        assert_eq!(empty.extended(0xffff, 16).extended(0, 16), Priority::bits(bits_of(0xffff_0000)));
        assert!(empty.extended(0xffff, 16) < Priority::bits(bits_of(0xffff_0000)));
        let (one, other) = (empty.extended(0xff00, 16), empty.extended(0x00ff, 16));
        assert!(empty < other && other < one);
        assert_eq!(one.extended(0x00ff, 16), Priority::bits(bits_of(0xff00_00ff)));
        // Across words of 32 and of 64 bits.
        let longer = one.extended(0x00ff, 16).extended(0x00ff, 16).extended(0xff00, 16).extended(1, 40);
        let same = bits_of(0xff00_00ff).chain(bits_of(0x00ff_ff00)).chain([false; 39]).chain([true]);
        assert_eq!(longer, Priority::bits(same));
        assert_eq!(empty.extended(5, 3), Priority::bits([true, false, true]));
    }

    struct Test {
        last: Option<Priority>,
        missing: usize,
        done: Promise<()>,
    }

    #[chare]
    impl Test {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            // The nodes of a tree in which a node's string extends its parent's, in any order.
            let mut nodes = vec![Priority::bits([])];
            for parent in 0..100 {
                let children: Vec<_> = (0..3).map(|child| nodes[parent].extended(child, 5)).collect();
                nodes.extend(children);
            }
            Random(5).shuffle(&mut nodes);
            let missing = nodes.len();
            nodes.into_iter().for_each(|node| cx.this().receive(node.clone()).priority(node).send());
            Test { last: None, missing, done }
        }

        #[entry]
        fn receive(&mut self, node: Priority) -> Result<()> {
            let last = self.last.replace(node.clone());
            assert!(last.as_ref().is_none_or(|last| *last < node), "{node:?} after {last:?}");
            self.missing -= 1;
            if self.missing == 0 {
                self.done.send(())?;
            }
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        strings();
        let (done, is_done) = rt.promise();
        rt.single::<Test>().create(done).send();
        Ok(is_done.await?)
    }
}
