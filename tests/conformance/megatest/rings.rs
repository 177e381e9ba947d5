//! Messages that go round and round.

pub(super) mod groupring {
    //! Charm++ tests/charm++/megatest/groupring: a message goes a hundred times over all members of a group.

    use chare::prelude::*;

    const ROUNDS: usize = 100;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Message {
        round: usize,
        hops: usize,
        done: Promise<usize>,
    }

    struct Member;

    #[chare]
    impl Member {
        fn new() -> Self {
            Member
        }

        #[entry]
        fn pass(&self, cx: &Cx<Self>, mut message: Message) -> Result<()> {
            if cx.index() == 0 {
                if message.round == ROUNDS {
                    return Ok(message.done.send(message.hops)?);
                }
                message.round += 1;
            }
            message.hops += 1;
            let group = cx.group().ok_or("a member of a group")?;
            group.on((cx.index() + 1) % cx.num_pes()).pass(message).send();
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, hops) = rt.promise();
        rt.group::<Member>().create(()).send().on(0).pass(Message { round: 0, hops: 0, done }).send();
        assert_eq!(hops.await?, ROUNDS * rt.num_pes());
        Ok(())
    }
}

pub(super) mod nodering {
    //! Charm++ tests/charm++/megatest/nodering: a message goes a hundred times over all members of a node group. The
    //! process's only one sends it to itself.

    use chare::prelude::*;

    const ROUNDS: usize = 100;
    /// The PEs of the group: the first of each process.
    const PES: [usize; 1] = [0];

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Message {
        round: usize,
        hops: usize,
        done: Promise<usize>,
    }

    struct Node;

    #[chare]
    impl Node {
        fn new() -> Self {
            Node
        }

        #[entry]
        fn start(&self, cx: &Cx<Self>, mut message: Message) -> Result<()> {
            let own = PES.iter().position(|&pe| pe == cx.index()).ok_or("a member is on a PE of the group")?;
            if own == 0 && message.round == ROUNDS {
                return Ok(message.done.send(message.hops)?);
            }
            message.round += usize::from(own == 0);
            message.hops += 1;
            let group = cx.group().ok_or("a member of a group")?;
            group.on(PES[(own + 1) % PES.len()]).start(message).send();
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, hops) = rt.promise();
        let group = rt.group::<Node>().on_pes(PES).create(()).send();
        group.on(PES[0]).start(Message { round: 0, hops: 0, done }).send();
        assert_eq!(hops.await?, ROUNDS * PES.len());
        Ok(())
    }
}

pub(super) mod arrayring {
    //! Charm++ tests/charm++/megatest/arrayring: a message that a constructor sends goes ten times over all elements of an
    //! array, which may not be constructed when it comes first, and is not corrupted.

    use chare::prelude::*;

    const COUNT: usize = 50;
    const ROUNDS: u32 = 10;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Message {
        text: String,
        round: u32,
        done: Promise<()>,
    }

    struct Cell;

    #[chare(index = usize)]
    impl Cell {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            if cx.index() == 0 {
                cx.this().pass(Message { text: "Array!".to_owned(), round: 0, done }).send();
            }
            Cell
        }

        #[entry]
        fn pass(&self, cx: &Cx<Self>, mut message: Message) -> Result<()> {
            assert_eq!(message.text, "Array!");
            if cx.index() == 0 {
                message.round += 1;
            }
            if message.round == ROUNDS {
                return Ok(message.done.send(())?);
            }
            cx.array().at((cx.index() + 1) % COUNT).pass(message).send();
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.array::<Cell>(COUNT).create(done).send();
        Ok(is_done.await?)
    }
}

pub(super) mod packtest {
    //! Charm++ tests/charm++/megatest/packtest: a message that owns memory of its own goes over all members of a group and
    //! comes back whole. Inside a process it is not packed: the memory that comes back is the one that was sent.

    use chare::prelude::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Message {
        value: u64,
        list: Vec<usize>,
        done: Promise<(u64, Vec<usize>)>,
    }

    struct Member;

    #[chare]
    impl Member {
        fn new() -> Self {
            Member
        }

        #[entry]
        fn pass(&self, cx: &Cx<Self>, message: Message) -> Result<()> {
            if cx.index() == 0 {
                return Ok(message.done.send((message.value, message.list))?);
            }
            let group = cx.group().ok_or("a member of a group")?;
            group.on((cx.index() + 1) % cx.num_pes()).pass(message).send();
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let list: Vec<_> = (0..10).collect();
        let (place, contents) = (list.as_ptr() as usize, list.clone());
        let (done, message) = rt.promise();
        let group = rt.group::<Member>().create(()).send();
        group.on(1 % rt.num_pes()).pass(Message { value: 237, list, done }).send();
        let (value, list) = message.await?;
        assert_eq!(value, 237);
        assert!(list.as_ptr() as usize == place || rt.num_processes() > 1);
        assert_eq!(list, contents);
        Ok(())
    }
}

pub(super) mod immediatering {
    //! Charm++ tests/charm++/megatest/immediatering: expedited messages go fifty times over all members of a group, past the
    //! ordinary ones that wait on each PE.

    use chare::prelude::*;

    const ROUNDS: u32 = 50;

    struct Member {
        ordinary: u32,
    }

    #[chare]
    impl Member {
        fn new() -> Self {
            Member { ordinary: 0 }
        }

        #[entry]
        fn pass(&self, cx: &Cx<Self>, mut round: u32, done: Promise<u32>) -> Result<()> {
            let group = cx.group().ok_or("a member of a group")?;
            // Alone on its PE, it is always before the ordinary ones.
            assert!(self.ordinary == 0 || cx.num_pes() > 1);
            if cx.index() == 0 {
                round += 1;
                if round == ROUNDS {
                    return Ok(done.send(round)?);
                }
            }
            cx.this().count().send();
            group.on((cx.index() + 1) % cx.num_pes()).pass(round, done).expedited().send();
            Ok(())
        }

        #[entry]
        fn count(&mut self) {
            self.ordinary += 1;
        }

        #[entry]
        fn counted(&self) -> u32 {
            self.ordinary
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let group = rt.group::<Member>().create(()).await?;
        let (done, rounds) = rt.promise();
        group.on(0).pass(0, done).expedited().send();
        assert_eq!(rounds.await?, ROUNDS);
        rt.quiescence().await?;
        assert_eq!(group.counted().gather().await?.into_iter().sum::<u32>(), (ROUNDS - 1) * rt.num_pes() as u32);
        Ok(())
    }
}

pub(super) mod migration {
    //! Charm++ tests/charm++/megatest/migration: every element goes over all PEs and comes back to the one where it was
    //! constructed, having been on each once, with its own data.

    use chare::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Cell {
        index: usize,
        original: Option<usize>,
        sum: usize,
        arrived: usize,
        done: Promise<()>,
    }

    #[chare(index = usize)]
    impl Cell {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            cx.this().arrive().send();
            Cell { index: cx.index(), original: None, sum: 0, arrived: 0, done }
        }

        fn migrated(&mut self, cx: &Cx<Self>) {
            cx.this().arrive().send();
        }

        #[entry]
        fn arrive(&mut self, cx: &Cx<Self>) {
            let (pe, pes) = (cx.my_pe().index(), cx.num_pes());
            assert_eq!(cx.index(), self.index);
            if self.original == Some(pe) {
                assert_eq!(self.sum, (pes + 1) * pes / 2);
                cx.array().at(0).count().send();
                return;
            }
            self.original.get_or_insert(pe);
            self.sum += pe + 1;
            if pes == 1 {
                // It is back already.
                cx.this().arrive().send();
            }
            cx.this().migrate((pe + 1) % pes).send();
        }

        #[entry]
        fn count(&mut self, cx: &Cx<Self>) -> Result<()> {
            self.arrived += 1;
            if self.arrived == cx.array().shape() {
                self.done.send(())?;
            }
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.array::<Cell>(10 + rt.num_pes() * 2).create(done).send();
        Ok(is_done.await?)
    }
}
