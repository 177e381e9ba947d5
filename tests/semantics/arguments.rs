//! Arguments and values move by pointer inside a process, however large they are; shared ones are one allocation.

use chare::prelude::*;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LENGTH: usize = 1 << 16;

/// An array by value, of more elements than serde knows arrays of.
struct Values<const COUNT: usize>([u64; COUNT]);

impl<const COUNT: usize> Serialize for Values<COUNT> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de, const COUNT: usize> Deserialize<'de> for Values<COUNT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = Vec::<u64>::deserialize(deserializer)?;
        values.try_into().map(Values).map_err(|_| D::Error::custom("these are not as many"))
    }
}

struct Receiver;

/// The address of a value's own memory.
fn address<T>(values: &[T]) -> usize {
    values.as_ptr() as usize
}

#[chare(index = usize)]
impl Receiver {
    fn new() -> Self {
        Receiver
    }

    #[entry]
    fn address_of(&self, values: Vec<u64>) -> usize {
        assert!(values.iter().zip(0..).all(|(value, number)| *value == number));
        address(&values)
    }

    #[entry]
    async fn address_in_a_coroutine(&mut self, cx: &Cx<Self>, values: Vec<u64>) -> Result<usize> {
        cx.array().at(8).address_of(vec![0]).await?;
        Ok(address(&values))
    }

    /// Gives it back.
    #[entry]
    fn echo(&self, values: Vec<u64>) -> (usize, Vec<u64>) {
        (address(&values), values)
    }

    /// Sends what it receives to a peer over a channel, and says where it was.
    #[entry]
    fn send_on(&self, cx: &Cx<Self>, to: usize, values: Vec<u64>) -> Result<usize> {
        let sent_from = address(&values);
        cx.channel(&cx.array().at(to), 0).send(values)?;
        Ok(sent_from)
    }

    #[entry]
    async fn receive_from(this: This<Self>, from: usize) -> Result<usize> {
        let values: Vec<u64> = this.channel(&this.array().at(from), 0).recv().await?;
        Ok(address(&values))
    }

    #[entry]
    fn address_of_shared(&self, values: Shared<Vec<u64>>) -> usize {
        address(&values)
    }

    #[entry]
    fn large(&self, values: Box<Values<4096>>, by_value: Values<300>) -> u64 {
        values.0.iter().sum::<u64>() + by_value.0.iter().sum::<u64>()
    }
}

async fn receivers(rt: &Runtime) -> Result<Array<Receiver>> {
    Ok(rt.array::<Receiver>(16).create(()).await?)
}

fn numbers() -> Vec<u64> {
    (0..LENGTH as u64).collect()
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "it looks at where memory lies")]
async fn an_argument_and_a_value_keep_their_memory(rt: Runtime) -> Result<()> {
    let receivers = receivers(&rt).await?;
    for index in [0, 15] {
        let values = numbers();
        let here = address(&values);
        assert_eq!(receivers.at(index).address_of(values).await?, here);
        let values = numbers();
        let here = address(&values);
        assert_eq!(receivers.at(index).address_in_a_coroutine(values).await?, here);
        let values = numbers();
        let here = address(&values);
        let (there, back) = receivers.at(index).echo(values).await?;
        assert_eq!((there, address(&back)), (here, here));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "it looks at where memory lies")]
async fn a_value_in_a_channel_keeps_its_memory(rt: Runtime) -> Result<()> {
    let receivers = receivers(&rt).await?;
    for (from, to) in [(0, 1), (0, 15), (15, 0)] {
        let sent_from = receivers.at(from).send_on(to, numbers()).await?;
        assert_eq!(receivers.at(to).receive_from(from).await?, sent_from);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], one_process = "it looks at where memory lies")]
async fn a_shared_argument_is_one_allocation_and_is_freed(rt: Runtime) -> Result<()> {
    let receivers = receivers(&rt).await?;
    let values = Shared::new(numbers());
    let here = address(&values);
    assert_eq!(receivers.address_of_shared(values.clone()).gather().await?, [here; 16]);
    rt.quiescence().await?;
    assert_eq!(
        values.try_unwrap().map(|values| values.len()).ok(),
        Some(LENGTH),
        "nobody shares it any more"
    );
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn arguments_may_be_of_any_size(rt: Runtime) -> Result<()> {
    let receivers = receivers(&rt).await?;
    for index in [0, 15] {
        assert_eq!(
            receivers.at(index).large(Box::new(Values([1; 4096])), Values([2; 300])).await?,
            4096 + 600
        );
    }
    Ok(())
}

const WIDTH: usize = 1 << 18;

struct Wide;

#[chare]
impl Wide {
    fn new() -> Self {
        Wide
    }

    #[entry]
    fn last(&self, values: [u8; WIDTH]) -> u8 {
        values[values.len() - 1]
    }

    #[entry]
    async fn pass_on(this: This<Self>, next: Element<Wide>) -> Result<u8> {
        this.with(|_| ());
        Ok(next.last([7; WIDTH]).await?)
    }
}

/// PE 0 is the thread of the test, whose stack is smaller.
#[chare::test(pes = [2, 4, 8], one_process = "serde has no arrays of this length, so it stays in its process")]
async fn an_argument_of_256_kibibytes_passes_through_the_stacks_of_pes(rt: Runtime) -> Result<()> {
    let wide = rt.group::<Wide>().create(()).await?;
    let (first, last) = (wide.on(1), wide.on(rt.num_pes() - 1));
    assert_eq!((first.pass_on(last).await?, last.pass_on(first).await?), (7, 7));
    Ok(())
}
