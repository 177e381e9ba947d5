//! Priorities of messages: bit strings in lexicographic order, of which integers are the common case.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::ChareId;
use crate::location::Route;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::wire::{self, Arrives, Decoder, Encoder, Kind, Leaves, Unsent, WireError};

/// When a message's turn comes among those that wait on its PE: lower priorities first, equal ones in order of arrival.
///
/// A priority is a string of bits, compared from the first one on; a string that is the beginning of another comes
/// before it. An integer stands for its 64 bits with the sign flipped, so that lower integers come first. A message
/// without a priority has that of the integer 0, in the middle.
///
/// Strings of bits order the nodes of a search tree: the children of a node [extend](Priority::extended) its priority,
/// and everything below the first child comes before everything below the second.
///
/// ```
/// use chare::Priority;
///
/// assert!(Priority::from(-3) < Priority::from(2));
/// let node = Priority::bits([true, false]);
/// let (first, second) = (node.extended(0, 2), node.extended(1, 2));
/// assert!(node < first && first.extended(3, 2) < second);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Priority(Repr);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Words")]
enum Repr {
    /// The integer with its sign flipped.
    Word(u64),
    /// Bits from the highest of the first word on; those after the last one are zero.
    Bits { words: Arc<[u64]>, len: u32 },
}

/// A priority as it is read, which may be nonsense.
#[derive(Deserialize)]
enum Words {
    Word(u64),
    Bits { words: Arc<[u64]>, len: u32 },
}

impl TryFrom<Words> for Repr {
    type Error = &'static str;

    fn try_from(words: Words) -> Result<Self, &'static str> {
        let (words, len) = match words {
            Words::Word(word) => return Ok(Repr::Word(word)),
            Words::Bits { words, len } => (words, len),
        };
        let is_zero_behind = || {
            let behind = |last: &u64| len.is_multiple_of(WORD_BITS) || last << (len % WORD_BITS) == 0;
            words.last().is_none_or(behind)
        };
        if words.len() == len.div_ceil(WORD_BITS) as usize && is_zero_behind() {
            Ok(Repr::Bits { words, len })
        } else {
            Err("a priority of other bits than it says")
        }
    }
}

const WORD_BITS: u32 = u64::BITS;

impl Priority {
    /// That of messages without one.
    const MIDDLE: Priority = Priority(Repr::Word(1 << 63));

    const fn of_integer(value: i64) -> Self {
        Priority(Repr::Word(value as u64 ^ 1 << 63))
    }

    /// A string of bits, at most 2^32 - 1 of them.
    ///
    /// # Panics
    /// If there are more.
    pub fn bits(bits: impl IntoIterator<Item = bool>) -> Self {
        let (mut words, mut len) = (Vec::new(), 0_u32);
        for bit in bits {
            if len.is_multiple_of(WORD_BITS) {
                words.push(0);
            }
            let last = words.len() - 1;
            words[last] |= u64::from(bit) << (WORD_BITS - 1 - len % WORD_BITS);
            len = len.checked_add(1).expect("a priority has fewer than 2^32 bits");
        }
        Priority(Repr::Bits { words: words.into(), len })
    }

    /// This string with the `count` lowest bits of `value` behind it, the highest of them first.
    ///
    /// # Panics
    /// If `count` is more than 64 or `value` has more bits, and if the string would have 2^32 bits or more.
    pub fn extended(&self, value: u64, count: u32) -> Self {
        assert!(count <= WORD_BITS, "at most 64 bits are added at a time");
        assert!(count == WORD_BITS || value >> count == 0, "{value} does not fit in {count} bits");
        let own = (0..self.len()).map(|place| self.bit(place));
        Priority::bits(own.chain((0..count).rev().map(|place| value >> place & 1 == 1)))
    }

    fn words(&self) -> &[u64] {
        match &self.0 {
            Repr::Word(word) => std::slice::from_ref(word),
            Repr::Bits { words, .. } => words,
        }
    }

    fn len(&self) -> u32 {
        match &self.0 {
            Repr::Word(_) => WORD_BITS,
            Repr::Bits { len, .. } => *len,
        }
    }

    fn bit(&self, place: u32) -> bool {
        self.words()[(place / WORD_BITS) as usize] >> (WORD_BITS - 1 - place % WORD_BITS) & 1 == 1
    }

    /// How it compares with messages that have no priority.
    pub(crate) fn against_the_middle(&self) -> Ordering {
        self.cmp(&Priority::MIDDLE)
    }
}

impl From<i64> for Priority {
    fn from(value: i64) -> Self {
        Priority::of_integer(value)
    }
}

impl From<i32> for Priority {
    fn from(value: i32) -> Self {
        i64::from(value).into()
    }
}

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        // Bits after the end are zero, so the words order all but a string and its beginning.
        self.words().cmp(other.words()).then(self.len().cmp(&other.len()))
    }
}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Priority {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Priority {}

/// Which of the messages that wait on a PE a message goes before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Rank {
    /// Those that have come later.
    Normal,
    /// All that are not expedited themselves.
    Expedited,
    /// Those of higher priority.
    At(Priority),
}

impl Rank {
    /// That of an integer priority.
    pub const fn at(priority: i64) -> Rank {
        Rank::At(Priority::of_integer(priority))
    }
}

/// A message on its way to another PE, and its rank there.
pub(crate) struct Ranked {
    rank: Rank,
    pub(crate) msg: Msg,
    /// A PE has sent it to where its chare is, as far as was known there.
    is_routed: bool,
}

impl Payload for Ranked {
    const NAME: Name = Name::Runtime("a message with a priority");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Ranked, Self::leave);
    const IS_RANKED: bool = true;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        // All that came before it has been taken: its chare is here, or it goes on to it.
        let Ranked { rank, msg, .. } = self;
        if msg.is_for_pe() { pe.enqueue_ranked(rank, Work::Msg(msg)) } else { pe.send_ranked(rank, msg) }
    }
}

impl Arrives for Ranked {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (rank, is_routed) = from.take()?;
        Ok(Ranked { rank, is_routed, msg: wire::decode_message(from)? })
    }
}

impl Ranked {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Ranked { rank, msg, is_routed } = self;
        to.put_own(&(rank, is_routed));
        msg.leave(to)
    }

    /// Joins what waits on a PE where it has just come to, ahead of what has come before. Unless its chare is not here: that
    /// may be among what has come before.
    pub(crate) fn arrive(wrapped: Msg, pe: &Pe) {
        let Some(Ranked { msg, is_routed, .. }) = wrapped.payload() else {
            unreachable!("the table of a message says whether it has a rank")
        };
        let is_here = msg.is_for_pe() || matches!(pe.route(msg.head().to), Route::Here);
        if *is_routed && !is_here {
            return pe.enqueue(Work::Msg(wrapped));
        }
        let Ranked { rank, msg, .. } = wrapped.into_payload(pe).expect("looked at above");
        if is_here { pe.enqueue_ranked(rank, Work::Msg(msg)) } else { pe.send_ranked(rank, msg) }
    }

    /// The message as it travels to a PE that can find its chare: one without a rank by itself.
    pub(crate) fn wrapped(rank: Rank, msg: Msg) -> Msg {
        if let Rank::Normal = rank { msg } else { Msg::for_pe(Ranked { rank, msg, is_routed: false }) }
    }

    /// The message as it travels to where its chare is.
    pub(crate) fn routed(rank: Rank, msg: Msg) -> Msg {
        Msg::for_pe(Ranked { rank, msg, is_routed: true })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strings() -> impl Strategy<Value = Vec<bool>> {
        // Short ones often share their beginnings; long ones cross words.
        prop_oneof![prop::collection::vec(any::<bool>(), 0..6), prop::collection::vec(any::<bool>(), 60..140)]
    }

    proptest! {
        #[test]
        fn strings_are_in_lexicographic_order(one in strings(), other in strings()) {
            let expected = one.cmp(&other);
            prop_assert_eq!(Priority::bits(one).cmp(&Priority::bits(other)), expected);
        }

        #[test]
        fn integers_are_in_their_order(one: i64, other: i64) {
            prop_assert_eq!(Priority::from(one).cmp(&Priority::from(other)), one.cmp(&other));
        }

        #[test]
        fn an_integer_is_a_string_of_64_bits(value: i64) {
            let flipped = value as u64 ^ 1 << 63;
            let bits = Priority::bits((0..64).rev().map(|place| flipped >> place & 1 == 1));
            prop_assert_eq!(&bits, &Priority::from(value));
            prop_assert_eq!(bits.against_the_middle(), value.cmp(&0));
        }

        #[test]
        fn what_extends_a_string_comes_after_it(bits in strings(), value: u64, count in 1..=64_u32) {
            let value = value >> (64 - count);
            let node = Priority::bits(bits.clone());
            let child = node.extended(value, count);
            prop_assert!(node < child);
            let appended = (0..count).rev().map(|place| value >> place & 1 == 1);
            prop_assert_eq!(child, Priority::bits(bits.into_iter().chain(appended)));
        }
    }
}
