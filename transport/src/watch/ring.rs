//! What a process knows of its two neighbours in the ring of processes, without sockets or clocks.
//!
//! Invariant: a process tells of one loss, the first that it learns of, and passes it on to each neighbour that is still there, or may yet come,
//! but for the one that it is from. Who hears it again passes nothing on.

use std::time::Duration;

use crate::error::Error;
use crate::frame::Rank;

/// Every message between neighbours has so many bytes.
pub(super) const MESSAGE_BYTES: usize = 16;

/// What neighbours tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// I live.
    Beat,
    /// I have closed; do not miss me.
    Bye,
    /// A process is lost.
    Lost(Loss),
    /// A process has ended its part badly, and all others should end theirs.
    Ended(BadEnd),
}

/// How a process has ended its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadEnd {
    pub(super) rank: Rank,
    pub(super) code: i32,
}

/// A process that is lost, and how its neighbour has noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(super) rank: Rank,
    pub(super) by: Rank,
    pub(super) sign: Sign,
}

/// What a loss is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The connection beside the network has ended.
    End,
    /// For so long nothing was heard.
    Silence(Duration),
    /// The network says so, where all is well beside it.
    Network,
}

impl Sign {
    /// No silence is so long.
    const END: u32 = u32::MAX;
    const NETWORK: u32 = u32::MAX - 1;

    fn to_number(self) -> u32 {
        match self {
            Sign::End => Sign::END,
            Sign::Network => Sign::NETWORK,
            Sign::Silence(silence) => {
                u32::try_from(silence.as_millis()).unwrap_or(u32::MAX).min(Sign::NETWORK - 1)
            }
        }
    }

    fn of_number(number: u32) -> Sign {
        match number {
            Sign::END => Sign::End,
            Sign::NETWORK => Sign::Network,
            ms => Sign::Silence(Duration::from_millis(ms.into())),
        }
    }
}

impl Loss {
    /// What it is to one process.
    pub(crate) fn error(self, own: Rank) -> Error {
        let Loss { rank, by, sign } = self;
        let why = match sign {
            Sign::End => format!("its connection to {by} has ended"),
            Sign::Network => format!("{by} does not reach it over the network"),
            Sign::Silence(silence) => {
                format!("{by} has heard nothing of it for {:.1} s", silence.as_secs_f64())
            }
        };
        if rank == own { Error::Missed { rank, why } } else { Error::Lost { rank, why } }
    }
}

impl Message {
    pub(super) fn to_bytes(self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        let mut put = |at: usize, number: u32| bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        match self {
            Message::Beat => put(0, 1),
            Message::Bye => put(0, 2),
            Message::Lost(Loss { rank, by, sign }) => {
                put(0, 3);
                put(4, rank.0);
                put(8, by.0);
                put(12, sign.to_number());
            }
            Message::Ended(BadEnd { rank, code }) => {
                put(0, 4);
                put(4, rank.0);
                put(8, code.cast_unsigned());
            }
        }
        bytes
    }

    /// None if it is no message of a job with so many processes.
    pub(super) fn read(bytes: &[u8; MESSAGE_BYTES], size: usize) -> Option<Message> {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let rank = |at: usize| Some(Rank(number(at))).filter(|rank| rank.index() < size);
        match number(0) {
            1 => Some(Message::Beat),
            2 => Some(Message::Bye),
            3 => {
                Some(Message::Lost(Loss { rank: rank(4)?, by: rank(8)?, sign: Sign::of_number(number(12)) }))
            }
            4 => Some(Message::Ended(BadEnd { rank: rank(4)?, code: number(8).cast_signed() })),
            _ => None,
        }
    }
}

/// A neighbour.
#[derive(Clone, Copy, Debug)]
struct Neighbour {
    rank: Rank,
    silence: Duration,
    /// For how long it may be silent: until it has begun to watch, for as long as it may be late.
    limit: Duration,
    /// It is there, as far as is known, and has not closed.
    is_watched: bool,
}

/// The two neighbours of a process: the one before it, and the one after it. In a job of two both are the same process.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) own: Rank,
    limit: Duration,
    neighbours: [Neighbour; 2],
    has_told: bool,
}

/// A loss that the process has to tell: to itself, and to the neighbours that are marked.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) loss: Loss,
    pub(super) tell: [bool; 2],
}

impl Ring {
    /// Until neighbours have given a first sign of life, they may be silent for `meeting` too, if that is longer than `limit`.
    pub(super) fn new(own: Rank, size: usize, limit: Duration, meeting: Duration) -> Ring {
        let size = size as u32;
        let neighbour = |rank| Neighbour {
            rank: Rank(rank),
            silence: Duration::ZERO,
            limit: meeting.max(limit),
            is_watched: true,
        };
        let neighbours = [neighbour((own.0 + size - 1) % size), neighbour((own.0 + 1) % size)];
        Ring { own, limit, neighbours, has_told: false }
    }

    /// The neighbour on a side.
    pub(super) fn neighbour(&self, side: usize) -> Rank {
        self.neighbours[side].rank
    }

    /// Whether a side is watched.
    pub(super) fn is_watched(&self, side: usize) -> bool {
        self.neighbours[side].is_watched
    }

    /// Gives up a side that could not be reached.
    pub(super) fn leave(&mut self, side: usize) {
        self.neighbours[side].is_watched = false;
    }

    /// A side is not met yet, so its silence means nothing.
    pub(super) fn expect_nothing(&mut self, side: usize) {
        self.neighbours[side].silence = Duration::ZERO;
    }

    /// A neighbour has told something.
    pub(super) fn heard(&mut self, side: usize, message: Message) -> Option<News> {
        let neighbour = &mut self.neighbours[side];
        (neighbour.silence, neighbour.limit) = (Duration::ZERO, self.limit);
        match message {
            // How a run ends is nothing about who lives.
            Message::Beat | Message::Ended(_) => None,
            Message::Bye => {
                self.leave(side);
                None
            }
            Message::Lost(loss) => self.news(loss, Some(side)),
        }
    }

    /// The connection to a neighbour has ended.
    pub(super) fn ended(&mut self, side: usize) -> Option<News> {
        let was_watched = self.is_watched(side);
        self.leave(side);
        was_watched
            .then(|| Loss { rank: self.neighbour(side), by: self.own, sign: Sign::End })
            .and_then(|loss| self.news(loss, None))
    }

    /// The network says that a process is lost.
    pub(super) fn unreached(&mut self, rank: Rank) -> Option<News> {
        self.news(Loss { rank, by: self.own, sign: Sign::Network }, None)
    }

    /// Time has passed in which this process was there to listen.
    pub(super) fn passed(&mut self, time: Duration) -> Option<News> {
        for neighbour in &mut self.neighbours {
            neighbour.silence += time;
        }
        let silent = self.neighbours.iter().position(|one| one.is_watched && one.silence > one.limit)?;
        self.leave(silent);
        let Neighbour { rank, silence, .. } = self.neighbours[silent];
        self.news(Loss { rank, by: self.own, sign: Sign::Silence(silence) }, None)
    }

    fn news(&mut self, loss: Loss, from: Option<usize>) -> Option<News> {
        if std::mem::replace(&mut self.has_told, true) {
            return None;
        }
        let tell = [0, 1].map(|side| self.is_watched(side) && from != Some(side));
        Some(News { loss, tell })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const SECOND: Duration = Duration::from_secs(1);

    /// Lets all rings of a job tell each other what there is to tell; what each has learned.
    fn spread(rings: &mut [Ring], first: Rank, news: News) -> Vec<Option<Loss>> {
        let mut learned = vec![None; rings.len()];
        let mut to_tell = vec![(first, news)];
        while let Some((teller, News { loss, tell })) = to_tell.pop() {
            learned[teller.index()] = Some(loss);
            for side in [0, 1].into_iter().filter(|side| tell[*side]) {
                let to = rings[teller.index()].neighbour(side);
                if to == loss.rank {
                    continue;
                }
                let bytes = Message::Lost(loss).to_bytes();
                let message = Message::read(&bytes, rings.len()).expect("what was written");
                let more = rings[to.index()].heard(1 - side, message);
                to_tell.extend(more.map(|news| (to, news)));
            }
        }
        learned
    }

    #[test]
    fn all_others_learn_who_is_lost_whoever_notices() {
        for size in 2..7_u32 {
            for lost in 0..size {
                let mut rings: Vec<_> =
                    (0..size).map(|own| Ring::new(Rank(own), size as usize, LIMIT, LIMIT)).collect();
                let after = (lost + 1) % size;
                let news = rings[after as usize].ended(0).expect("it was watched");
                let learned = spread(&mut rings, Rank(after), news);
                for rank in (0..size).filter(|rank| *rank != lost) {
                    let loss = learned[rank as usize].expect("everybody learns it");
                    assert_eq!((loss.rank, loss.by, loss.sign), (Rank(lost), Rank(after), Sign::End));
                }
            }
        }
    }

    #[test]
    fn silence_counts_only_up_to_a_sign_of_life() {
        let mut ring = Ring::new(Rank(1), 3, LIMIT, LIMIT);
        for _ in 0..4 {
            assert_eq!(ring.passed(SECOND), None);
        }
        assert_eq!(ring.heard(0, Message::Beat), None);
        assert_eq!(ring.passed(SECOND), None);
        let news = ring.passed(SECOND / 2).expect("rank 2 is silent for longer than the limit");
        assert_eq!((news.loss.rank, news.loss.sign), (Rank(2), Sign::Silence(SECOND * 11 / 2)));
        assert_eq!(news.tell, [true, false]);
        let why = "rank 1 has heard nothing of it for 5.5 s";
        assert_eq!(news.loss.error(Rank(0)).to_string(), format!("rank 2 is lost: {why}"));
        let missed = format!("the other processes took this one, rank 2, for lost: {why}");
        assert_eq!(news.loss.error(Rank(2)).to_string(), missed);
    }

    #[test]
    fn who_is_connected_may_begin_to_watch_later() {
        let mut ring = Ring::new(Rank(1), 3, LIMIT, LIMIT * 2);
        assert_eq!(ring.passed(LIMIT * 2), None);
        assert_eq!(ring.heard(0, Message::Beat), None);
        let news = ring.passed(SECOND).expect("rank 2 never gives a sign of life");
        assert_eq!((news.loss.rank, news.loss.sign), (Rank(2), Sign::Silence(LIMIT * 2 + SECOND)));
        let mut ring = Ring::new(Rank(1), 3, LIMIT, LIMIT * 2);
        assert_eq!([0, 1].map(|side| ring.heard(side, Message::Beat)), [None; 2]);
        let news = ring.passed(LIMIT + SECOND).expect("they have begun");
        assert_eq!(news.loss.rank, Rank(0));
    }

    #[test]
    fn who_has_closed_is_not_missed_and_one_loss_is_told() {
        let mut ring = Ring::new(Rank(0), 2, LIMIT, LIMIT);
        assert_eq!(ring.heard(0, Message::Bye), None);
        assert_eq!((ring.ended(0), ring.is_watched(0), ring.is_watched(1)), (None, false, true));
        let news = ring.ended(1).expect("it did not say bye on this side");
        assert_eq!(news.tell, [false, false]);
        assert_eq!((ring.passed(LIMIT * 2), ring.ended(1)), (None, None));
    }

    #[test]
    fn what_is_no_message_is_none() {
        for bytes in [[0; MESSAGE_BYTES], [255; MESSAGE_BYTES]] {
            assert_eq!(Message::read(&bytes, 4), None);
        }
        let loss = Loss { rank: Rank(4), by: Rank(0), sign: Sign::End };
        assert_eq!(Message::read(&Message::Lost(loss).to_bytes(), 4), None);
        let silent = Message::Lost(Loss { sign: Sign::Silence(SECOND), ..loss });
        let ended = Message::Ended(BadEnd { rank: Rank(3), code: -7 });
        for message in [Message::Beat, Message::Bye, silent, ended] {
            assert_eq!(Message::read(&message.to_bytes(), 5), Some(message));
        }
    }
}
