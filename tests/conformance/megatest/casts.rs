//! One to many and back: broadcasts, lists of receivers, and calls with replies.

pub(super) mod groupcast {
    //! Charm++ tests/charm++/megatest/groupcast: all members answer a broadcast by a reduction, upon which the next one is
    //! sent; the first comes from their constructors.

    use chare::prelude::*;

    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Message {
        number: f64,
        text: String,
    }

    struct Main {
        ready: u32,
        group: Group<Member>,
        done: Promise<()>,
    }

    #[chare]
    impl Main {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            let rt: &Runtime = cx;
            Main { ready: 0, group: rt.group::<Member>().create(cx.this()).send(), done }
        }

        #[entry]
        fn group_ready(&mut self) -> Result<()> {
            self.ready += 1;
            if self.ready == 3 {
                return Ok(self.done.send(())?);
            }
            self.group.hear(Message { number: 3.145, text: "Broadcast!".to_owned() }).send();
            Ok(())
        }
    }

    struct Member {
        main: Element<Main>,
    }

    #[chare]
    impl Member {
        fn new(cx: &Cx<Self>, main: Element<Main>) -> Self {
            cx.contribute((), reduce::Nop, main.callback(Main::GROUP_READY));
            Member { main }
        }

        #[entry]
        fn hear(&self, cx: &Cx<Self>, message: Message) {
            assert_eq!((message.number, &*message.text), (3.145, "Broadcast!"));
            cx.contribute((), reduce::Nop, self.main.callback(Main::GROUP_READY));
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.single::<Main>().on_pe(0).create(done).send();
        Ok(is_done.await?)
    }
}

pub(super) mod nodecast {
    //! Charm++ tests/charm++/megatest/nodecast: each member of a node group replies from its constructor, and again to a
    //! broadcast that follows, which arrives whole.

    use chare::prelude::*;

    /// The PEs of the group: the first of each process.
    const PES: [usize; 1] = [0];

    struct Main {
        count: usize,
        done: Promise<()>,
    }

    #[chare]
    impl Main {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            let rt: &Runtime = cx;
            rt.group::<Node>().on_pes(PES).create(cx.this()).send();
            Main { count: 0, done }
        }

        #[entry]
        fn reply(&mut self, group: Group<Node>) -> Result<()> {
            self.count += 1;
            if self.count == PES.len() {
                group.hear("Broadcast!".to_owned()).send();
            }
            if self.count == 2 * PES.len() {
                self.done.send(())?;
            }
            Ok(())
        }
    }

    struct Node {
        main: Element<Main>,
    }

    #[chare]
    impl Node {
        fn new(cx: &Cx<Self>, main: Element<Main>) -> Self {
            main.reply(cx.group().expect("a member of a group")).send();
            Node { main }
        }

        #[entry]
        fn hear(&self, cx: &Cx<Self>, text: String) -> Result<()> {
            assert_eq!(text, "Broadcast!");
            self.main.reply(cx.group().ok_or("a member of a group")?).send();
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.single::<Main>().on_pe(0).create(done).send();
        Ok(is_done.await?)
    }
}

pub(super) mod groupmulti {
    //! Charm++ tests/charm++/megatest/groupmulti: a message to a list of PEs reaches each of them whole, and each replies.

    use chare::prelude::*;

    struct Member;

    #[chare]
    impl Member {
        fn new() -> Self {
            Member
        }

        #[entry]
        fn hear(&self, cx: &Cx<Self>, number: f64, text: String) -> PeId {
            assert_eq!((number, &*text), (3.145, "Multicast!"));
            cx.my_pe()
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let group = rt.group::<Member>().create(()).send();
        for _ in 0..3 {
            // Every second PE, and one of them twice.
            let listed: Vec<_> = rt.pes().step_by(2).chain([PeId::new(0)]).collect();
            let calls = listed.iter().map(|&pe| group.on(pe).hear(3.145, "Multicast!".to_owned()));
            assert_eq!(futures::future::try_join_all(calls).await?, listed);
        }
        Ok(())
    }
}

pub(super) mod listsend {
    //! Charm++ tests/charm++/megatest/listsend: of a list of all PEs each one checks in exactly once.

    use chare::prelude::*;

    const VALUE: u32 = 0x01AB_CDEF;

    struct Main {
        group: Group<Member>,
        checked_in: Vec<bool>,
        done: Promise<()>,
    }

    #[chare]
    impl Main {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            let rt: &Runtime = cx;
            let group = rt.group::<Member>().create(cx.this()).send();
            Main { group, checked_in: vec![false; cx.num_pes()], done }
        }

        #[entry]
        fn init_done(&self, cx: &Cx<Self>) {
            cx.pes().for_each(|pe| self.group.on(pe).multicast(VALUE).send());
        }

        #[entry]
        fn check(&mut self, sender: usize, value: u32) -> Result<()> {
            assert_eq!(value, VALUE);
            assert!(!std::mem::replace(&mut self.checked_in[sender], true), "PE {sender} checked in twice");
            if self.checked_in.iter().all(|&is_in| is_in) {
                self.done.send(())?;
            }
            Ok(())
        }
    }

    struct Member {
        main: Element<Main>,
    }

    #[chare]
    impl Member {
        fn new(cx: &Cx<Self>, main: Element<Main>) -> Self {
            cx.contribute((), reduce::Nop, main.callback(Main::INIT_DONE));
            Member { main }
        }

        #[entry]
        fn multicast(&self, cx: &Cx<Self>, value: u32) {
            self.main.check(cx.index(), value).send();
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.single::<Main>().on_pe(0).create(done).send();
        Ok(is_done.await?)
    }
}

pub(super) mod synctest {
    //! Charm++ tests/charm++/megatest/synctest: a hundred single chares report that they are constructed; calls of them and
    //! of an array's elements, one after the other, bring each one's own value.

    use chare::prelude::*;

    const CHILDREN: usize = 100;

    macro_rules! children {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name {
                value: usize,
            }

            #[$chare]
            impl $name {
                fn new(cx: &Cx<Self>, value: usize, to: Promise<Element<$name>>) -> Result<Self> {
                    to.send(cx.this())?;
                    Ok($name { value })
                }

                #[entry]
                fn value(&self, text: String) -> usize {
                    assert_eq!(text, "Sync!");
                    self.value
                }
            }
        )* };
    }

    children! {
        Child: #[chare];
        Cell: #[chare(index = usize)];
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (to, children) = rt.promises(CHILDREN);
        for i in 0..CHILDREN {
            rt.single::<Child>().create((i + 1, to.clone())).send();
        }
        let (to, cells) = rt.promises(CHILDREN);
        rt.array::<Cell>(CHILDREN).create((23, to)).send();

        let mut sum = 0;
        for child in children.await? {
            sum += child.value("Sync!".to_owned()).await?;
        }
        assert_eq!(sum, CHILDREN * (CHILDREN + 1) / 2);
        for cell in cells.await? {
            assert_eq!(cell.value("Sync!".to_owned()).await?, 23);
        }
        Ok(())
    }
}
