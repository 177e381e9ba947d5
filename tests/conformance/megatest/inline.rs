//! Entries that run at once where their chare is.

pub(super) mod inlineem {
    //! Charm++ tests/charm++/megatest/inlineem: a call of an inline entry of the group's member on the same PE has run when
    //! it returns; one of a member elsewhere is a message.

    use chare::prelude::*;

    struct Member {
        called: u32,
    }

    #[chare]
    impl Member {
        fn new() -> Self {
            Member { called: 0 }
        }

        #[entry(inline)]
        fn call_inline(&mut self) -> u32 {
            self.called += 1;
            self.called
        }

        #[entry]
        fn called(&self) -> u32 {
            self.called
        }
    }

    struct Tester;

    #[chare]
    impl Tester {
        fn new() -> Self {
            Tester
        }

        #[entry]
        fn test(&self, cx: &Cx<Self>, group: Group<Member>) -> Result<()> {
            let here = group.on(cx.my_pe());
            assert_eq!(here.local(|member| member.called)?, 0);
            here.call_inline().send();
            assert_eq!(here.local(|member| member.called)?, 1);
            assert_eq!(here.call_inline().now()?, 2);
            cx.pes().filter(|pe| *pe != cx.my_pe()).for_each(|pe| group.on(pe).call_inline().send());
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        for pe in rt.pes() {
            let group = rt.group::<Member>().create(()).await?;
            rt.single::<Tester>().on_pe(pe).create(()).send().test(group).await?;
            rt.quiescence().await?;
            let called = rt.pes().map(|other| if other == pe { 2 } else { 1 });
            assert_eq!(group.called().gather().await?, called.collect::<Vec<_>>());
        }
        Ok(())
    }
}
