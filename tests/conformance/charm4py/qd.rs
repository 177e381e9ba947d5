//! charm4py tests/qd: quiescence.

#[expect(clippy::module_inception, reason = "the program has the name of its folder")]
mod qd {
    //! charm4py tests/qd/qd.py: quiescence comes when all messages that were under way have been run, and not before, to
    //! every kind of callback: an entry of a single chare, of a group, of an array, of one member, of one element, a future;
    //! and to a coroutine that awaits it.

    use chare::prelude::*;

    const PER_PE: usize = 8;

    fn hops() -> u32 {
        crate::real_or_simulated(20, 3)
    }

    struct Worker {
        received: usize,
    }

    #[chare(index = usize)]
    impl Worker {
        fn new() -> Self {
            Worker { received: 0 }
        }

        /// Sends to four neighbours, each time after some hops so that the messages are under way for a while.
        #[entry]
        fn start(&self, cx: &Cx<Self>) {
            let count = cx.array().shape();
            for offset in [1, 2, count - 1, count - 2] {
                cx.this().hop(hops(), (cx.index() + offset) % count).send();
            }
        }

        #[entry]
        fn hop(&mut self, cx: &Cx<Self>, hops: u32, to: usize) {
            let next = (cx.index() + PER_PE + 1) % cx.array().shape();
            match hops {
                0 => cx.array().at(to).receive().send(),
                _ => cx.array().at(next).hop(hops - 1, to).send(),
            }
        }

        #[entry]
        fn receive(&mut self) {
            self.received += 1;
        }

        /// Since it was asked before.
        #[entry]
        fn take_received(&mut self) -> usize {
            std::mem::take(&mut self.received)
        }
    }

    macro_rules! receivers {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name {
                main: Element<Main>,
                is_first: bool,
            }

            #[$chare]
            impl $name {
                fn new(main: Element<Main>) -> Self {
                    $name { main, is_first: true }
                }

                /// The first time all elements get it, the second time the last one alone.
                #[entry]
                fn quiescent(&mut self, cx: &Cx<Self>) {
                    if std::mem::take(&mut self.is_first) {
                        cx.contribute((), reduce::Nop, self.main.callback(Main::QUIESCENT));
                    } else {
                        assert_eq!(cx.index(), cx.num_pes() - 1);
                        self.main.quiescent().send();
                    }
                }
            }
        )* };
    }

    receivers! {
        GroupReceiver: #[chare];
        ArrayReceiver: #[chare(index = usize)];
    }

    struct Main {
        is_quiescent: bool,
    }

    #[chare]
    impl Main {
        fn new() -> Self {
            Main { is_quiescent: false }
        }

        #[entry]
        fn quiescent(&mut self) {
            self.is_quiescent = true;
        }

        #[entry]
        async fn run(this: This<Self>) -> Result<()> {
            let rt: &Runtime = &this;
            let count = rt.num_pes() * PER_PE;
            let workers = rt.array::<Worker>(count).create(()).await?;
            let group = rt.group::<GroupReceiver>().create(this.this()).await?;
            let array = rt.array::<ArrayReceiver>(this.num_pes()).create(this.this()).await?;
            let last = this.num_pes() - 1;
            for callback in [
                this.callback(Main::QUIESCENT),
                group.callback(GroupReceiver::QUIESCENT),
                array.callback(ArrayReceiver::QUIESCENT),
                group.on(last).callback(GroupReceiver::QUIESCENT),
                array.at(last).callback(ArrayReceiver::QUIESCENT),
            ] {
                workers.start().send();
                this.quiescence().to(callback);
                this.wait_until(|main| main.is_quiescent).await;
                this.with(|main| main.is_quiescent = false);
                assert_eq!(workers.take_received().gather().await?, vec![4; count]);
            }
            let (promise, quiescent) = this.promise();
            workers.start().send();
            this.quiescence().to(promise);
            quiescent.await?;
            assert_eq!(workers.take_received().gather().await?, vec![4; count]);

            workers.start().send();
            this.quiescence().await?;
            assert_eq!(workers.take_received().gather().await?, vec![4; count]);
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn quiescence_comes_after_all_messages(rt: Runtime) -> Result<()> {
        Ok(rt.single::<Main>().create(()).send().run().await?)
    }
}
