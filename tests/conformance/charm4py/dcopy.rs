//! charm4py tests/dcopy: large arguments.

mod test_dcopy {
    //! charm4py tests/dcopy/test_dcopy.py: bytes, a list and an array in one message, to chares of the PE before and after
    //! and to oneself, come with their contents, iteration after iteration; what the receiver does with them changes
    //! nothing for the sender.

    use chare::prelude::*;
    use ndarray::Array1;

    const PER_PE: usize = 10;

    fn iterations() -> usize {
        crate::real_or_simulated(4, 2)
    }

    /// Beyond what a message to another process has inside, however many there are.
    fn length() -> usize {
        crate::real_or_simulated(15_000, 200)
    }

    struct Test {
        x: Array1<f64>,
        bytes: Vec<u8>,
        list: Vec<f64>,
        array: Array1<f64>,
        neighbours: Vec<Element<Test>>,
        received: usize,
        main: Element<Main>,
    }

    #[chare(index = usize)]
    impl Test {
        fn new(cx: &Cx<Self>, main: Element<Main>) -> Self {
            let x = Array1::range(0.0, length() as f64, 1.0);
            let array = &x * (cx.index() + 1) as f64;
            let list = array.to_vec();
            let bytes = list.iter().flat_map(|value| value.to_ne_bytes()).collect();
            cx.contribute(cx.my_pe().index(), reduce::Gather, cx.array().callback(Test::LOCATIONS));
            Test { x, bytes, list, array, neighbours: Vec::new(), received: 0, main }
        }

        /// The i-th element of a PE sends to the i-th of the PEs before and after.
        #[entry]
        fn locations(&mut self, cx: &Cx<Self>, pes: Vec<usize>) -> Result<()> {
            let on =
                |pe: usize| pes.iter().enumerate().filter(move |(_, at)| **at == pe).map(|(index, _)| index);
            let (pe, count) = (cx.my_pe().index(), cx.num_pes());
            let place = on(pe).position(|index| index == cx.index()).ok_or("it is on its PE")?;
            for pe in [(pe + count - 1) % count, (pe + 1) % count] {
                let index = on(pe).nth(place).ok_or("as many on each PE")?;
                self.neighbours.push(cx.array().at(index));
            }
            self.neighbours.push(cx.this());
            cx.contribute((), reduce::Nop, self.main.callback(Main::START));
            Ok(())
        }

        #[entry]
        fn iterate(&self, cx: &Cx<Self>) {
            for neighbour in &self.neighbours {
                let (bytes, list, array) = (self.bytes.clone(), self.list.clone(), self.array.clone());
                neighbour.receive(cx.index(), bytes, list, array).send();
            }
        }

        #[entry]
        fn receive(
            &mut self,
            cx: &Cx<Self>,
            from: usize,
            bytes: Vec<u8>,
            mut list: Vec<f64>,
            array: Array1<f64>,
        ) {
            let expected = &self.x * (from + 1) as f64;
            let numbers =
                bytes.chunks_exact(8).map(|bytes| f64::from_ne_bytes(bytes.try_into().expect("8 of them")));
            assert!(numbers.eq(expected.iter().copied()));
            assert_eq!(Array1::from_vec(list.clone()), expected);
            assert_eq!(array, expected);
            list.fill(f64::NAN);
            self.received += 1;
            if self.received == 3 {
                self.received = 0;
                cx.contribute((), reduce::Nop, self.main.callback(Main::COMPLETE));
            }
        }
    }

    struct Main {
        tests: Array<Test>,
        iterations: usize,
        done: Promise<()>,
    }

    #[chare]
    impl Main {
        fn new(cx: &Cx<Self>, done: Promise<()>) -> Self {
            let rt: &Runtime = cx;
            let tests = rt.array::<Test>(rt.num_pes() * PER_PE).create(cx.this()).send();
            Main { tests, iterations: 0, done }
        }

        #[entry]
        fn start(&self) {
            self.tests.iterate().send();
        }

        #[entry]
        fn complete(&mut self) -> Result<()> {
            self.iterations += 1;
            if self.iterations == iterations() {
                self.done.send(())?;
            } else {
                self.tests.iterate().send();
            }
            Ok(())
        }
    }

    #[chare::test(pes = [1, 2, 4, 8])]
    async fn large_arguments_come_with_their_contents(rt: Runtime) -> Result<()> {
        let (done, all_done) = rt.promise();
        rt.single::<Main>().create(done).send();
        Ok(all_done.await?)
    }
}
