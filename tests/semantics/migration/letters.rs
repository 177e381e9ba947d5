//! Channels of chares that have no coroutines, and so can move to other processes: what is unread, what waits for credit and what is under way
//! goes along, whether or not anybody in the other process has opened a channel of that type.

use chare::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Friend {
    read: Vec<u64>,
    /// What it gives and takes next, of the ring.
    next: [u64; 2],
    seed: u64,
}

#[chare(index = usize)]
impl Friend {
    fn new(cx: &Cx<Self>) -> Self {
        Friend { read: Vec::new(), next: [0; 2], seed: cx.index() as u64 }
    }

    #[entry]
    fn write(&self, cx: &Cx<Self>, to: usize, from: u64, until: u64) -> Result<()> {
        let channel = cx.channel::<u64, _>(&cx.array().at(to), 1);
        (from..until).try_for_each(|number| Ok(channel.send(number)?))
    }

    /// Sends large letters, more than there is credit for.
    #[entry]
    fn write_large(&self, cx: &Cx<Self>, to: usize, count: u64) -> Result<()> {
        let channel = cx.channel::<Vec<u64>, _>(&cx.array().at(to), 3);
        (0..count).try_for_each(|number| Ok(channel.send(vec![number; 100])?))
    }

    #[entry]
    async fn read_large(this: This<Self>, from: usize, count: u64) -> Result<()> {
        let channel = this.channel::<Vec<u64>, _>(&this.array().at(from), 3);
        for number in 0..count {
            assert_eq!(channel.recv().await?, vec![number; 100]);
        }
        Ok(())
    }

    /// Reads so much of what is there.
    #[entry]
    fn read(&mut self, cx: &Cx<Self>, from: usize, most: usize) -> Result<usize> {
        let channel = cx.channel::<u64, _>(&cx.array().at(from), 1);
        for count in 0..most {
            let Some(number) = channel.try_recv()? else { return Ok(count) };
            self.read.push(number);
        }
        Ok(most)
    }

    #[entry]
    async fn listen_until(this: This<Self>, from: usize, until: usize) -> Result<Vec<u64>> {
        let channel = this.channel::<u64, _>(&this.array().at(from), 1);
        while this.with(|s| s.read.len()) < until {
            let number = channel.recv().await?;
            this.with(|s| s.read.push(number));
        }
        Ok(this.with(|s| s.read.clone()))
    }

    /// Takes what has come from one neighbour, gives the other some, and moves.
    #[entry]
    fn pass(&mut self, cx: &Cx<Self>) -> Result<()> {
        let (array, count) = (cx.array(), cx.array().shape());
        let left = cx.channel::<(u64, String), _>(&array.at((cx.index() + count - 1) % count), 2);
        let right = cx.channel::<(u64, String), _>(&array.at((cx.index() + 1) % count), 2);
        while let Some((number, text)) = left.try_recv()? {
            assert_eq!((number, text), (self.next[0], format!("letter {}", self.next[0])));
            self.next[0] += 1;
        }
        for _ in 0..3 {
            right.send((self.next[1], format!("letter {}", self.next[1])))?;
            self.next[1] += 1;
        }
        self.seed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(12345);
        if self.seed >> 62 == 0 {
            cx.this().migrate((self.seed >> 32) as usize % cx.num_pes()).send();
        }
        Ok(())
    }

    #[entry]
    fn passed(&self) -> [u64; 2] {
        self.next
    }
}

async fn friends(rt: &Runtime) -> Result<(Array<Friend>, usize)> {
    Ok((rt.array::<Friend>(12).create(()).await?, rt.num_pes() - 1))
}

#[chare::test(pes = [2, 4])]
async fn what_is_unread_and_what_waits_for_credit_goes_along(rt: Runtime) -> Result<()> {
    let (friends, last) = friends(&rt).await?;
    let (a, b) = (friends.at(0), friends.at(1));
    // More than there is credit for.
    a.write(1, 0, 3000).await?;
    rt.quiescence().await?;
    a.migrate(last).await?;
    assert_eq!(b.read(0, 600).await?, 600);
    rt.quiescence().await?;
    b.migrate(last).await?;
    assert_eq!(b.read(0, 1).await?, 1);
    b.migrate(0).await?;
    a.write(1, 3000, 3100).await?;
    a.migrate(0).await?;
    assert_eq!(b.listen_until(0, 3100).await?, (0..3100).collect::<Vec<_>>());
    Ok(())
}

/// Each of them stands beside the message that brings the chare, which has more of them than a message between processes takes.
#[chare::test(pes = [2, 4])]
async fn large_letters_go_along_however_many_there_are(rt: Runtime) -> Result<()> {
    let (friends, last) = friends(&rt).await?;
    let (a, b) = (friends.at(0), friends.at(1));
    a.write_large(1, 4000).await?;
    rt.quiescence().await?;
    a.migrate(last).await?;
    b.migrate(last).await?;
    b.migrate(0).await?;
    b.read_large(0, 4000).await?;
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn what_is_under_way_finds_the_end(rt: Runtime) -> Result<()> {
    let (friends, last) = friends(&rt).await?;
    let (a, b) = (friends.at(0), friends.at(11));
    b.migrate(last).await?;
    // There, nobody has opened a channel.
    a.write(11, 0, 100).await?;
    rt.quiescence().await?;
    b.migrate(0).await?;
    a.write(11, 100, 200).await?;
    b.migrate(last).await?;
    a.migrate(last).await?;
    a.write(11, 200, 300).await?;
    assert_eq!(b.listen_until(0, 300).await?, (0..300).collect::<Vec<_>>());
    // To a chare that moves while it is told.
    for round in 0..20 {
        a.write(11, 300 + round * 10, 310 + round * 10).send();
        b.migrate(if round % 2 == 0 { 0 } else { last }).send();
        rt.quiescence().await?;
    }
    assert_eq!(b.listen_until(0, 500).await?, (0..500).collect::<Vec<_>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn letters_keep_their_order_while_everybody_moves(rt: Runtime) -> Result<()> {
    let (friends, _) = friends(&rt).await?;
    for round in 0..150 {
        friends.pass().send();
        if round % 10 == 0 {
            rt.quiescence().await?;
        }
    }
    rt.quiescence().await?;
    // Until all have read what was written before.
    friends.pass().await?;
    rt.quiescence().await?;
    for [taken, given] in friends.passed().gather().await? {
        assert!(given == 453 && (450..=453).contains(&taken), "{taken} of {given}");
    }
    Ok(())
}
