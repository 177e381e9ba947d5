//! charm4py tests/channels: order, many channels between any two chares, waiting for several, arrays.

mod inorder {
    //! charm4py tests/channels/inorder.py: 5000 values come in the order in which they were sent.

    use chare::prelude::*;

    /// More than a channel takes before some are read.
    fn steps() -> usize {
        crate::real_or_simulated(5000, 2000)
    }

    struct Test;

    #[chare]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        async fn send_all(this: This<Self>, to: Element<Test>) -> Result<()> {
            let channel = this.channel(&to, 0);
            for i in 0..steps() {
                channel.send(i)?;
            }
            Ok(())
        }

        #[entry]
        async fn receive(this: This<Self>, from: Element<Test>) -> Result<()> {
            let channel = this.channel::<usize, _>(&from, 0);
            for i in 0..steps() {
                assert_eq!(channel.recv().await?, i);
            }
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn values_come_in_order(rt: Runtime) -> Result<()> {
        let group = rt.group::<Test>().create(()).send();
        let main = rt.single::<Test>().on_pe(0).create(()).send();
        let receiver = group.on(1 % rt.num_pes());
        let received = receiver.receive(main).future();
        main.send_all(receiver).await?;
        Ok(received.await?)
    }
}

mod iwait {
    //! charm4py tests/channels/iwait.py: who waits for several channels gets each when it is ready, whatever their order in
    //! the list. There they become ready by the clock; here each value is sent when the one before has come.

    use chare::prelude::*;
    use futures::stream::{FuturesUnordered, StreamExt};

    struct Test;

    #[chare]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        fn work(&self, cx: &Cx<Self>, main: Element<Main>) -> Result<()> {
            Ok(cx.channel(&main, 0).send(cx.index())?)
        }
    }

    struct Main;

    #[chare]
    impl Main {
        fn new() -> Self {
            Main
        }

        #[entry]
        async fn run(this: This<Self>, group: Group<Test>) -> Result<()> {
            let count = this.num_pes().min(4);
            let channels: Vec<_> = (0..count).map(|i| this.channel::<usize, _>(&group.on(i), 0)).collect();
            let mut ready: FuturesUnordered<_> =
                channels.iter().rev().map(|channel| channel.recv()).collect();
            for i in 0..count {
                group.on(i).work(this.this()).send();
                assert_eq!(ready.next().await.ok_or("too few")??, i);
            }
            assert!(ready.next().await.is_none());
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn each_comes_when_it_is_ready(rt: Runtime) -> Result<()> {
        let group = rt.group::<Test>().create(()).send();
        Ok(rt.single::<Main>().create(()).send().run(group).await?)
    }
}

mod test1 {
    //! charm4py tests/channels/test1.py: channels to a main chare, to oneself and to a peer, side by side, with proxies among
    //! the values.

    use chare::prelude::*;

    struct Test {
        id: usize,
    }

    #[chare]
    impl Test {
        fn new(id: usize) -> Self {
            Test { id }
        }

        #[entry]
        async fn work(&mut self, cx: &Cx<Self>, main: Element<Main>, other: Element<Test>) -> Result<()> {
            let (id, me) = (self.id, cx.this());
            cx.channel(&main, 0).send(format!("hello from {id}"))?;

            let to_myself = cx.channel(&me, 0);
            to_myself.send(("self ping", me))?;
            assert_eq!(to_myself.recv().await?, ("self ping", me));

            let peer = cx.channel(&other, 0);
            peer.send((format!("hi from {id}"), me))?;
            assert_eq!(peer.recv().await?, (format!("hi from {}", 1 - id), other));
            Ok(())
        }
    }

    struct Main;

    #[chare]
    impl Main {
        fn new() -> Self {
            Main
        }

        #[entry]
        async fn run(this: This<Self>, tests: [Element<Test>; 2]) -> Result<()> {
            let work = [0, 1].map(|i| tests[i].work(this.this(), tests[1 - i]).future());
            for (i, test) in tests.iter().enumerate() {
                let hello: String = this.channel(test, 0).recv().await?;
                assert_eq!(hello, format!("hello from {i}"));
            }
            for work in work {
                work.await?;
            }
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn channels_to_main_to_oneself_and_to_a_peer(rt: Runtime) -> Result<()> {
        let test = |id| rt.single::<Test>().on_pe((1 + id) % rt.num_pes()).create(id).send();
        Ok(rt.single::<Main>().on_pe(0).create(()).send().run([test(0), test(1)]).await?)
    }
}

mod test2 {
    //! charm4py tests/channels/test2.py: 3000 channels between random chares of four groups and four arrays, to oneself
    //! among them, worked on by three coroutines of each chare at once; each value comes where it belongs, and all are
    //! counted.

    use crate::Random;
    use chare::prelude::*;
    use futures::stream::{FuturesUnordered, StreamExt};

    fn channels() -> usize {
        crate::real_or_simulated(1000, 100)
    }

    /// What the values of a level start with, and how many rounds it has.
    fn levels() -> [(u64, u64); 3] {
        crate::real_or_simulated([(37, 30), (533, 50), (17_000, 10)], [(37, 3), (533, 5), (17_000, 1)])
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
    enum Peer {
        Member(Element<Member>),
        Cell(Element<Cell>),
    }

    /// Whom a chare has a channel to, and the channel's tag.
    type Peers = [Vec<(Peer, u64)>; 3];
    type Value = (Peer, u64);

    macro_rules! tests {
        ($($name:ident: #[$chare:meta], $peer:ident;)*) => { $(
            struct $name {
                channels: [Vec<(Peer, Channel<Value>)>; 3],
            }

            #[$chare]
            impl $name {
                fn new() -> Self {
                    $name { channels: Default::default() }
                }

                #[entry]
                fn set_up(&mut self, cx: &Cx<Self>, peers: Peers) {
                    self.channels = peers.map(|peers| {
                        let open = |(peer, tag)| match peer {
                            Peer::Member(member) => cx.channel(&member, tag),
                            Peer::Cell(cell) => cx.channel(&cell, tag),
                        };
                        peers.into_iter().map(|(peer, tag)| (peer, open((peer, tag)))).collect()
                    });
                }

                /// Returns how many values have come.
                #[entry]
                async fn work(this: This<Self>, level: usize) -> Result<u64> {
                    let mut channels = this.with(|test| std::mem::take(&mut test.channels[level]));
                    let (start, rounds) = levels()[level];
                    let mut random = Random(this.index() as u64);
                    let mut received = 0;
                    for value in start..start + rounds {
                        random.shuffle(&mut channels);
                        for (_, channel) in &channels {
                            channel.send((Peer::$peer(this.this()), value))?;
                        }
                        let receive = |(peer, channel)| async move { (peer, Channel::recv(channel).await) };
                        let mut ready: FuturesUnordered<_> =
                            channels.iter().map(|(peer, channel)| receive((peer, channel))).collect();
                        while let Some((peer, outcome)) = ready.next().await {
                            assert_eq!(outcome?, (*peer, value));
                            received += 1;
                        }
                    }
                    Ok(received)
                }
            }
        )* };
    }

    tests! {
        Member: #[chare], Member;
        Cell: #[chare(index = usize)], Cell;
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn every_value_comes_through_its_channel(rt: Runtime) -> Result<()> {
        let pes = rt.num_pes();
        let groups: Vec<_> = (0..4).map(|_| rt.group::<Member>().create(()).send()).collect();
        let arrays: Vec<_> =
            [8, 10, 4, 1].iter().map(|each| rt.array::<Cell>(pes * each).create(()).send()).collect();
        let members = groups.iter().flat_map(|group| (0..pes).map(|pe| Peer::Member(group.on(pe))));
        let cells = arrays.iter().flat_map(|array| array.elements().map(Peer::Cell));
        let chares: Vec<Peer> = members.chain(cells).collect();

        let mut peers = vec![Peers::default(); chares.len()];
        let mut random = Random(45_782);
        let mut expected = 0;
        for (level, (_, rounds)) in levels().into_iter().enumerate() {
            for channel in 0..channels() {
                let tag = (level * channels() + channel) as u64;
                let (a, b) = (random.below(chares.len()), random.below(chares.len()));
                peers[a][level].push((chares[b], tag));
                // A channel to oneself has one end.
                if a != b {
                    peers[b][level].push((chares[a], tag));
                }
                expected += if a == b { rounds } else { 2 * rounds };
            }
        }
        for (chare, peers) in chares.iter().zip(peers) {
            match chare {
                Peer::Member(member) => member.set_up(peers).await?,
                Peer::Cell(cell) => cell.set_up(peers).await?,
            }
        }
        let work: Vec<_> = (0..levels().len())
            .flat_map(|level| {
                let of_groups = groups.iter().map(move |group| group.work(level).gather());
                of_groups.chain(arrays.iter().map(move |array| array.work(level).gather()))
            })
            .collect();
        let mut received = 0;
        for work in work {
            received += work.await?.into_iter().sum::<u64>();
        }
        assert_eq!(received, expected);
        Ok(())
    }
}

mod test_numpy {
    //! charm4py tests/channels/test_numpy.py: three arrays a value, ten times; each comes with its contents.

    use chare::prelude::*;
    use ndarray::Array1;

    const ROUNDS: i64 = 10;

    fn arrays(round: i64) -> [Array1<i64>; 3] {
        [100, 50, 70].map(|length| (0..length).map(|i| i + round).collect())
    }

    struct Test;

    #[chare]
    impl Test {
        fn new() -> Self {
            Test
        }

        #[entry]
        async fn receive(&mut self, cx: &Cx<Self>, from: Element<Test>) -> Result<()> {
            let channel = cx.channel::<[Array1<i64>; 3], _>(&from, 3);
            for round in 0..ROUNDS {
                assert_eq!(channel.recv().await?, arrays(round));
            }
            Ok(())
        }

        #[entry]
        fn send_all(&self, cx: &Cx<Self>, to: Element<Test>) -> Result<()> {
            let channel = cx.channel(&to, 3);
            for round in 0..ROUNDS {
                channel.send(arrays(round))?;
            }
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn arrays_come_with_their_contents(rt: Runtime) -> Result<()> {
        let receiver = rt.single::<Test>().on_pe(1 % rt.num_pes()).create(()).send();
        let main = rt.single::<Test>().on_pe(0).create(()).send();
        let received = receiver.receive(main).future();
        main.send_all(receiver).await?;
        Ok(received.await?)
    }
}
