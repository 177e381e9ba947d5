//! charm4py tests/entry_methods: proxies of single elements, proxies that all know, arguments, and what calls bring back.

mod array_element_proxy {
    //! charm4py tests/entry_methods/array_element_proxy.py: calls by the proxy of one element reach that element and no
    //! other, and any element may end the program.

    use crate::until_exit;
    use chare::prelude::*;

    struct Test {
        count: u32,
    }

    #[chare(index = usize)]
    impl Test {
        fn new() -> Self {
            Test { count: 0 }
        }

        #[entry]
        fn start(&self, cx: &Cx<Self>) {
            let third = cx.array().at(3);
            third.say("bye".to_owned()).send();
            third.say("bye".to_owned()).send();
        }

        #[entry]
        fn say(&mut self, cx: &Cx<Self>, message: String) {
            self.count += 1;
            assert_eq!((cx.index(), &*message), (3, "bye"));
            if self.count == 2 {
                cx.exit(0);
            }
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn the_element_of_the_proxy_is_called(rt: Runtime) -> Result<()> {
        rt.array::<Test>(6).create(()).send().at(0).start().send();
        until_exit(&rt).await
    }
}

mod group_element_proxy {
    //! charm4py tests/entry_methods/group_element_proxy.py: calls by the proxy of one member run on its PE and no other.

    use crate::until_exit;
    use chare::prelude::*;

    struct Test {
        byes: u32,
        hellos: u32,
    }

    #[chare]
    impl Test {
        fn new() -> Self {
            Test { byes: 0, hellos: 0 }
        }

        #[entry]
        fn start(&self, cx: &Cx<Self>) -> Result<()> {
            let group = cx.group().ok_or("a member of a group")?;
            let last = group.on(cx.num_pes() - 1);
            group.on(0).say("hello".to_owned()).send();
            last.say("bye".to_owned()).send();
            last.say("bye".to_owned()).send();
            Ok(())
        }

        #[entry]
        fn say(&mut self, cx: &Cx<Self>, message: String) {
            assert_eq!(cx.index(), cx.my_pe().index());
            match &*message {
                "hello" => self.hellos += 1,
                _ => self.byes += 1,
            }
            let last = cx.num_pes() - 1;
            assert!(self.byes == 0 || cx.index() == last, "a bye on PE {}", cx.index());
            assert!(self.hellos == 0 || cx.index() == 0, "a hello on PE {}", cx.index());
            if self.byes == 2 {
                cx.exit(0);
            }
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn the_member_of_the_proxy_is_called(rt: Runtime) -> Result<()> {
        rt.group::<Test>().create(()).send().on(0).start().send();
        until_exit(&rt).await
    }
}

mod bcast_globals {
    //! charm4py tests/entry_methods/bcast_globals.py: what a broadcast that was awaited told everybody is known to all when
    //! the next one comes. There it is assigned to globals; here it is state of the chares.

    use chare::prelude::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Globals {
        one: Group<Test>,
        other: Group<Test>,
        done: Promise<()>,
    }

    struct Test {
        globals: Option<Shared<Globals>>,
    }

    #[chare]
    impl Test {
        fn new() -> Self {
            Test { globals: None }
        }

        #[entry]
        fn know(&mut self, globals: Shared<Globals>) {
            self.globals = Some(globals);
        }

        #[entry]
        fn start(&self, cx: &Cx<Self>) -> Result<()> {
            let next = (cx.index() + 1) % cx.num_pes();
            self.known()?.other.on(next).ping().send();
            Ok(())
        }

        #[entry]
        fn ping(&self, cx: &Cx<Self>) -> Result<()> {
            let previous = (cx.index() + cx.num_pes() - 1) % cx.num_pes();
            self.known()?.one.on(previous).pong().send();
            Ok(())
        }

        #[entry]
        fn pong(&self, cx: &Cx<Self>) -> Result<()> {
            cx.contribute((), reduce::Nop, &self.known()?.done);
            Ok(())
        }

        fn known(&self) -> Result<&Globals> {
            Ok(self.globals.as_ref().ok_or("a message came before what all were told")?)
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn all_know_what_was_broadcast(rt: Runtime) -> Result<()> {
        let one = rt.group::<Test>().create(()).send();
        let other = rt.group::<Test>().create(()).send();
        let (done, all_ponged) = rt.promise();
        let globals = Shared::new(Globals { one, other, done });
        ::futures::try_join!(one.know(globals.clone()), other.know(globals))?;
        one.start().send();
        Ok(all_ponged.await?)
    }
}

mod entrymethod_args_kwargs {
    //! charm4py tests/entry_methods/entrymethod_args_kwargs.py: arguments come as they were given, to a single chare, to a
    //! group, to an array, and to one element of each. What Python passes by name or leaves out is a structure here.

    use chare::prelude::*;

    #[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    struct Rest {
        a: i32,
        b: i32,
    }

    impl Default for Rest {
        fn default() -> Self {
            Rest { a: 33, b: 44 }
        }
    }

    macro_rules! receivers {
        ($($name:ident: #[$chare:meta];)*) => { $(
            struct $name {
                expected: (i32, i32, Rest),
            }

            #[$chare]
            impl $name {
                fn new() -> Self {
                    $name { expected: (0, 0, Rest { a: 0, b: 0 }) }
                }

                #[entry]
                fn start_phase(&mut self, x: i32, y: i32, rest: Rest) {
                    self.expected = (x, y, rest);
                }

                #[entry]
                fn recv(&self, x: i32, y: i32, rest: Rest) {
                    assert_eq!((x, y, rest), self.expected);
                }
            }
        )* };
    }

    receivers! {
        Test: #[chare];
        Cell: #[chare(index = usize)];
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn arguments_come_as_they_were_given(rt: Runtime) -> Result<()> {
        let single = rt.single::<Test>().create(()).send();
        let group = rt.group::<Test>().create(()).send();
        let array = rt.array::<Cell>(rt.num_pes() * 4).create(()).send();
        let (member, cell) = (group.on(1 % rt.num_pes()), array.at(rt.num_pes() * 2));
        for (x, y, rest, same) in [
            (1, 2, Rest::default(), Rest { a: 33, ..Rest::default() }),
            (10, 20, Rest { a: 3000, b: 4000 }, Rest { b: 4000, a: 3000 }),
        ] {
            single.start_phase(x, y, rest).await?;
            group.start_phase(x, y, rest).await?;
            array.start_phase(x, y, rest).await?;
            for given in [rest, same] {
                single.recv(x, y, given).await?;
                group.recv(x, y, given).await?;
                array.recv(x, y, given).await?;
                member.recv(x, y, given).await?;
                cell.recv(x, y, given).await?;
            }
        }
        Ok(())
    }
}

mod retmodes {
    //! charm4py tests/entry_methods/retmodes.py: a call brings nothing, its end or its value, a broadcast nothing, its end or
    //! all values in the order of the elements; plain methods and coroutines alike, and each element gets each broadcast
    //! once.

    use crate::Random;
    use chare::prelude::*;

    type Init = (Callback<Vec<u64>>, Promise<()>);

    macro_rules! tests {
        ($($name:ident: #[$chare:meta], $all:ident;)*) => { $(
            struct $name {
                value: u64,
                broadcasts: u32,
                done: Promise<()>,
            }

            #[$chare]
            impl $name {
                fn new(cx: &Cx<Self>, init: Init) -> Self {
                    let (values, done) = init;
                    let value = Random(cx.index() as u64).below(100) as u64;
                    cx.contribute(value, reduce::Gather, values);
                    $name { value, broadcasts: 0, done }
                }

                #[entry]
                fn value(&mut self, cx: &Cx<Self>, is_broadcast: bool) -> u64 {
                    if is_broadcast {
                        self.broadcasts += 1;
                        if self.broadcasts == 6 {
                            cx.contribute((), reduce::Nop, &self.done);
                        }
                    }
                    self.value
                }

                #[entry]
                async fn value_by_coroutine(&mut self, cx: &Cx<Self>, is_broadcast: bool) -> u64 {
                    self.value(cx, is_broadcast)
                }

                #[entry]
                fn broadcasts(&self) -> u32 {
                    self.broadcasts
                }
            }

            async fn $all(values: Vec<u64>, all: &impl All<$name>) -> Result<()> {
                let mut order: Vec<_> = (0..values.len()).collect();
                Random(7).shuffle(&mut order);
                for &index in &order[..(values.len() * 4 / 5).max(1)] {
                    let one = all.one(index);
                    one.value(false).send();
                    assert_eq!(one.value(false).await?, values[index]);
                    one.value_by_coroutine(false).send();
                    assert_eq!(one.value_by_coroutine(false).await?, values[index]);
                }
                Ok(())
            }
        )* };
    }

    /// What a group and an array have in common here.
    trait All<C: chare::Chare> {
        fn one(&self, index: usize) -> Element<C>;
    }

    impl All<Member> for Group<Member> {
        fn one(&self, index: usize) -> Element<Member> {
            self.on(index)
        }
    }

    impl All<Cell> for Array<Cell> {
        fn one(&self, index: usize) -> Element<Cell> {
            self.at(index)
        }
    }

    tests! {
        Member: #[chare], ask_members;
        Cell: #[chare(index = usize)], ask_cells;
    }

    /// The six broadcasts that each element counts.
    macro_rules! broadcast_to {
        ($all:ident, $values:ident) => {
            $all.value(true).send();
            $all.value(true).await?;
            assert_eq!($all.value(true).gather().await?, $values);
            $all.value_by_coroutine(true).send();
            $all.value_by_coroutine(true).await?;
            assert_eq!($all.value_by_coroutine(true).gather().await?, $values);
        };
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn what_a_call_brings_is_the_callers_choice(rt: Runtime) -> Result<()> {
        let count = rt.num_pes() * 10;
        let (to, of_cells) = rt.promise();
        let (cells_done, cells_are_done) = rt.promise();
        let cells = rt.array::<Cell>(count).create((to.into(), cells_done)).send();
        let (to, of_members) = rt.promise();
        let (members_done, members_are_done) = rt.promise();
        let members = rt.group::<Member>().create((to.into(), members_done)).send();

        let (of_cells, of_members) = (of_cells.await?, of_members.await?);
        assert_eq!((of_cells.len(), of_members.len()), (count, rt.num_pes()));
        ask_cells(of_cells.clone(), &cells).await?;
        broadcast_to!(cells, of_cells);
        ask_members(of_members.clone(), &members).await?;
        broadcast_to!(members, of_members);

        cells_are_done.await?;
        members_are_done.await?;
        assert_eq!(cells.broadcasts().gather().await?, vec![6; count]);
        assert_eq!(members.broadcasts().gather().await?, vec![6; rt.num_pes()]);
        Ok(())
    }
}
