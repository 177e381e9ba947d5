//! Arguments: of any size, of any type, and given to all.

pub(super) mod varsizetest {
    //! Charm++ tests/charm++/megatest/varsizetest, varsizetest2 and varraystest: messages with arrays of different lengths
    //! come whole to the constructor of a chare on another PE, and back.

    use chare::prelude::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Message {
        sequence: i32,
        whole: Vec<i32>,
        real: Vec<f32>,
    }

    impl Message {
        fn new(whole: i32, real: i32, sequence: i32) -> Self {
            Message {
                sequence,
                whole: (0..whole).map(|i| i * i * sequence).collect(),
                real: (0..real).map(|i| 2.0 * (i * i * sequence) as f32).collect(),
            }
        }

        fn check(&self, whole: i32, real: i32) {
            let same = Message::new(whole, real, self.sequence);
            assert_eq!((&self.whole, &self.real), (&same.whole, &same.real));
        }
    }

    struct Test;

    #[chare]
    impl Test {
        fn new(cx: &Cx<Self>, message: Message, main: Element<Main>) -> Self {
            message.check(100, 300);
            main.receive(Message::new(300, 100, message.sequence)).send();
            cx.this().destroy().send();
            Test
        }
    }

    struct Main {
        missing: i32,
        done: Promise<()>,
    }

    #[chare]
    impl Main {
        fn new(cx: &Cx<Self>, count: i32, done: Promise<()>) -> Self {
            for sequence in 0..count {
                let single = cx.single::<Test>().on_pe(sequence as usize % cx.num_pes());
                single.create((Message::new(100, 300, sequence), cx.this())).send();
            }
            Main { missing: count, done }
        }

        #[entry]
        fn receive(&mut self, message: Message) -> Result<()> {
            message.check(300, 100);
            self.missing -= 1;
            if self.missing == 0 {
                self.done.send(())?;
            }
            Ok(())
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let (done, is_done) = rt.promise();
        rt.single::<Main>().create((20, done)).send();
        Ok(is_done.await?)
    }
}

#[expect(clippy::too_many_arguments, reason = "one of each type")]
pub(super) mod marshall {
    //! Charm++ tests/charm++/megatest/marshall: arguments of all types come as they were sent: numbers of every width, flat
    //! structures, nested ones with memory of their own, values behind a trait, arrays whose lengths are other arguments,
    //! and queues; between elements of an array that call each other all at once.

    use std::collections::{BTreeMap, VecDeque};

    use crate::Random;
    use chare::prelude::*;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    const COUNT: usize = 12;

    /// Numbers that belong to this try.
    fn numbers(attempt: usize, count: usize) -> Vec<usize> {
        let mut random = Random((attempt + 257 * count) as u64);
        (0..count).map(|_| random.below(1 << 16)).collect()
    }

    #[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    struct Flat {
        x: i32,
        text: [u8; 10],
    }

    trait Parent: Send {
        fn signature(&self) -> &'static str {
            "parent"
        }
    }

    struct Plain;

    impl Parent for Plain {}

    struct Child;

    impl Parent for Child {
        fn signature(&self) -> &'static str {
            "child"
        }
    }

    // What goes to another process is told by name there.
    impl Serialize for dyn Parent {
        fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            self.signature().serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Box<dyn Parent> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
            match &*String::deserialize(deserializer)? {
                "parent" => Ok(Box::new(Plain)),
                "child" => Ok(Box::new(Child)),
                other => Err(serde::de::Error::unknown_variant(other, &["parent", "child"])),
            }
        }
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Nested {
        one: Vec<usize>,
        other: Box<[usize]>,
        by_name: BTreeMap<String, Option<Vec<usize>>>,
        subclass: Box<dyn Parent>,
    }

    impl Nested {
        fn new(length: usize, subclass: Box<dyn Parent>) -> Self {
            Nested {
                one: numbers(17, 5 * length + 3),
                other: numbers(18, 3 * length + 7).into(),
                by_name: BTreeMap::from([("none".to_owned(), None), ("some".to_owned(), Some(numbers(19, length)))]),
                subclass,
            }
        }

        fn check(&self, length: usize, signature: &str) {
            assert_eq!((&self.one, &*self.other), (&numbers(17, 5 * length + 3), &*numbers(18, 3 * length + 7)));
            assert_eq!((&self.by_name["none"], &self.by_name["some"]), (&None, &Some(numbers(19, length))));
            assert_eq!(self.subclass.signature(), signature);
        }
    }

    #[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    enum Choice {
        Nothing,
        Number(u128),
        Named { low: i128, high: char },
    }

    struct Cell {
        checked: u32,
    }

    #[chare(index = usize)]
    impl Cell {
        fn new() -> Self {
            Cell { checked: 0 }
        }

        #[entry]
        fn whole(&mut self, a: u8, b: i8, c: i16, d: u16, e: i32, f: u32, g: i64, h: u64) {
            assert_eq!((a, b, c, d), (247, -9, -31_000, 65_000));
            assert_eq!((e, f), (-2_000_000_000, 4_000_000_000));
            assert_eq!((g, h), (i64::MIN, u64::MAX));
            self.checked += 1;
        }

        #[entry]
        fn real(&mut self, a: f32, b: f64, nan: f64, zero: f64, (): (), yes: bool, letter: char) {
            assert_eq!((a, b, yes, letter), (12.75, 4123.0e23, true, 'v'));
            assert!(nan.is_nan() && zero == 0.0 && zero.is_sign_negative());
            self.checked += 1;
        }

        #[entry]
        fn flat(&mut self, flat: Flat, choices: [Choice; 3], result: std::result::Result<u8, String>) {
            assert_eq!(flat, Flat { x: 1234, text: *b"foo\0\0\0\0\0\0\0" });
            assert_eq!(choices, [Choice::Nothing, Choice::Number(u128::MAX), Choice::Named { low: -1, high: 'z' }]);
            assert_eq!(result, Err("not a number".to_owned()));
            self.checked += 1;
        }

        #[entry]
        fn nested(&mut self, nested: Nested, length: usize, signature: String) {
            nested.check(length, &signature);
            self.checked += 1;
        }

        #[entry]
        fn behind_a_trait(&mut self, object: Box<dyn Parent>) {
            assert_eq!(object.signature(), "child");
            self.checked += 1;
        }

        #[entry]
        fn simple_array(&mut self, n: usize, array: Vec<usize>) {
            assert_eq!(array, numbers(1, n));
            self.checked += 1;
        }

        #[entry]
        fn fancy_array(&mut self, array: Vec<usize>, n: usize, m: usize) {
            assert_eq!(array, numbers(2, n * m));
            self.checked += 1;
        }

        /// The length of each stands first in the other.
        #[entry]
        fn crazy_array(&mut self, one: Vec<usize>, other: Vec<usize>) {
            assert_eq!((other[0], one[0]), (one.len(), other.len()));
            assert_eq!((&one[1..], &other[1..]), (&*numbers(3, one.len() - 1), &*numbers(4, other.len() - 1)));
            self.checked += 1;
        }

        #[entry]
        fn queue(&mut self, count: usize, queue: VecDeque<Vec<usize>>) {
            assert_eq!(queue.len(), count);
            assert!(queue.iter().enumerate().all(|(i, message)| *message == numbers(5, 13 + 2 * i)));
            self.checked += 1;
        }

        /// Sends the whole set to another element.
        #[entry]
        fn reflect(&self, cx: &Cx<Self>, to: usize) {
            send_all(&cx.array().at(to), to);
        }

        #[entry]
        fn checked(&self) -> u32 {
            self.checked
        }
    }

    /// How many calls `send_all` makes.
    const CALLS: u32 = 11;

    fn send_all(cell: &Element<Cell>, i: usize) {
        cell.whole(247, -9, -31_000, 65_000, -2_000_000_000, 4_000_000_000, i64::MIN, u64::MAX).send();
        cell.real(12.75, 4123.0e23, f64::NAN, -0.0, (), true, 'v').send();
        let choices = [Choice::Nothing, Choice::Number(u128::MAX), Choice::Named { low: -1, high: 'z' }];
        cell.flat(Flat { x: 1234, text: *b"foo\0\0\0\0\0\0\0" }, choices, Err("not a number".to_owned())).send();
        cell.nested(Nested::new(i, Box::new(Plain)), i, "parent".to_owned()).send();
        cell.nested(Nested::new(i, Box::new(Child)), i, "child".to_owned()).send();
        cell.behind_a_trait(Box::new(Child)).send();
        let (n, m) = (13 * i * i, 1 + i);
        cell.simple_array(n, numbers(1, n)).send();
        cell.fancy_array(numbers(2, n * m), n, m).send();
        let (n_one, n_other) = (2 + 7 * i * i, 4 + i + n);
        let one = [vec![n_other + 1], numbers(3, n_one)].concat();
        let other = [vec![n_one + 1], numbers(4, n_other)].concat();
        cell.crazy_array(one, other).send();
        cell.queue(0, VecDeque::new()).send();
        cell.queue(2, (0..2).map(|j| numbers(5, 13 + 2 * j)).collect()).send();
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let cells = rt.array::<Cell>(COUNT).create(()).send();
        for i in 0..COUNT {
            cells.at((i + 1) % COUNT).reflect(i).send();
        }
        rt.quiescence().await?;
        assert_eq!(cells.checked().gather().await?, [CALLS; COUNT]);
        Ok(())
    }
}

pub(super) mod rotest {
    //! Charm++ tests/charm++/megatest/rotest: what is read only and given before all begins is the same for every member of a
    //! group; in one process there is one of it.

    use chare::prelude::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct ReadOnly {
        few: [usize; 10],
        many: Vec<usize>,
        message: Box<[i32]>,
    }

    struct Member {
        read_only: Shared<ReadOnly>,
    }

    #[chare]
    impl Member {
        fn new(read_only: Shared<ReadOnly>) -> Self {
            Member { read_only }
        }

        /// Where it is.
        #[entry]
        fn check(&self) -> usize {
            let ReadOnly { few, many, message } = &*self.read_only;
            assert!(few.iter().enumerate().all(|(i, value)| *value == i * i + 1023));
            assert!(many.iter().enumerate().all(|(i, value)| *value == i * i + 511) && many.len() == 100);
            assert!((0..).zip(message.iter()).all(|(i, value)| *value == i * 32 - 1) && message.len() == 1024);
            &raw const *self.read_only as usize
        }
    }

    pub(in super::super) async fn run(rt: Runtime) -> Result<()> {
        let read_only = Shared::new(ReadOnly {
            few: std::array::from_fn(|i| i * i + 1023),
            many: (0..100).map(|i| i * i + 511).collect(),
            message: (0..1024).map(|i| i * 32 - 1).collect(),
        });
        let place = &raw const *read_only as usize;
        let group = rt.group::<Member>().create(read_only).send();
        let places = group.check().gather().await?;
        let process = rt.process_of(rt.my_pe());
        for (pe, own) in rt.pes().zip(places) {
            assert!(own == place || rt.process_of(pe) != process, "PE {pe} of this process has one of its own");
        }
        Ok(())
    }
}
