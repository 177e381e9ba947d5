//! Chares that depend on chares which were created before them, or will have been.

pub(super) mod groupdependence {
    //! Charm++ tests/charm++/megatest/groupdependence: constructors and entries of groups, single chares and arrays use a
    //! group that was created just before, or after their own creation, and find it constructed. There each message names
    //! the groups that it depends on; here messages to chares that do not exist yet are kept.

    use chare::prelude::*;

    /// Takes its time to be constructed: until all members have begun.
    struct GroupA {
        constructed: bool,
    }

    #[chare]
    impl GroupA {
        async fn new(cx: &Cx<Self>) -> Result<Self> {
            cx.barrier().await?;
            Ok(GroupA { constructed: true })
        }

        #[entry]
        fn is_constructed(&self) -> bool {
            self.constructed
        }
    }

    macro_rules! dependants {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name;

            #[$chare]
            impl $name {
                async fn new(cx: &Cx<Self>, depends_on: Option<Group<GroupA>>) -> Result<Self> {
                    if let Some(group) = depends_on {
                        assert!(group.on(cx.my_pe()).is_constructed().await?);
                    }
                    Ok($name)
                }

                #[entry]
                async fn depend(&mut self, cx: &Cx<Self>, group: Group<GroupA>) -> Result<()> {
                    assert!(group.on(cx.my_pe()).is_constructed().await?);
                    Ok(())
                }
            }
        )* };
    }

    dependants! {
        GroupB: #[chare];
        ArrayA: #[chare(index = usize)];
    }

    /// A message with proxies of two groups, and one of variable size.
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Message {
        a: Group<GroupA>,
        b: Group<GroupB>,
        whole: Vec<usize>,
        real: Vec<f64>,
    }

    struct Tester;

    #[chare]
    impl Tester {
        fn new() -> Self {
            Tester
        }

        #[entry]
        async fn receive(&self, cx: &Cx<Self>, message: Message) -> Result<()> {
            assert!(message.a.on(cx.my_pe()).is_constructed().await?);
            message.b.on(cx.my_pe()).depend(message.a).await?;
            assert!(message.whole.iter().copied().eq(0..20));
            assert!(message.real.iter().enumerate().all(|(i, real)| *real == i as f64 * 1.3));
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let elements = rt.num_pes() * 8;
        // Constructors depend on a group that was created before them.
        let group_a = || rt.group::<GroupA>().create(()).send();
        rt.group::<GroupB>().create(Some(group_a())).await?;
        rt.single::<GroupB>().create(Some(group_a())).await?;
        rt.array::<ArrayA>(elements).create(Some(group_a())).await?;

        // Entries depend on a group that was created after their chares.
        let (group, single) = (rt.group::<GroupB>().create(None).send(), rt.single::<GroupB>().create(None).send());
        let array = rt.array::<ArrayA>(elements).create(None).send();
        group.depend(group_a()).await?;
        single.depend(group_a()).await?;
        array.depend(group_a()).await?;

        // What is in a message may not be constructed when the message is.
        let (b, a) = (rt.group::<GroupB>().create(None).send(), group_a());
        let message = Message { a, b, whole: (0..20).collect(), real: (0..10).map(|i| f64::from(i) * 1.3).collect() };
        Ok(rt.single::<Tester>().create(()).send().receive(message).await?)
    }
}
