//! The way of parts to the root: they meet in each process, and then go up a tree of processes, merged where that can be.
//!
//! *The tree.* The root of the reduction stands at the top. The processes before its own and those behind it are cut into up to
//! [`FAN_OUT`] pieces (one more, if the cut between the two falls badly), each of which has its first process at its top; what is left of a piece is cut in the
//! same way. So what comes up by a process is of processes that follow one another, of which it is the first, and merging it in the order of PEs
//! keeps that order. (The tree of broadcasts, `job/spread.rs`, is another one: there a process has those below it that the arithmetic says.)
//!
//! In the root's process each PE sends to the root, and nothing of what follows is used. In the others the first PE is the *leader*, to which the others send
//! their parts; it has a [`Node`] for the collection, which sends to the leader above it, or to the root.
//!
//! *When a node sends.* Elements come, go and move, so nobody knows which PEs will have a part in a reduction, and a part may come late. The root
//! knows how many contributions there are, and counts; what a node sends, and when, is never wrong as long as it sends all that it gets. But it should
//! not send early, since then less is merged, and it must not keep what nothing follows that would release it.
//!
//! Whoever sends up (a PE, or a node for its process and all below) tells its *standing* each time: the lowest reduction that it may still have a
//! contribution to, as far as it knows, or [`NOTHING`]. Of a PE that is the lowest one that an element living there owes; of a node, the lowest standing of
//! those that send to it. At the beginning all stand at reduction 0.
//! A node keeps the parts of a reduction until all that send to it stand above it.
//! A sender whose standing has risen above what it has told tells it, by a message without parts if none are due. One that has told `NOTHING`, and may
//! have contributions again (an element was inserted), tells that, too, so that its parts are waited for. A standing that falls otherwise (an
//! element has arrived that is behind all others) is not told: what comes of it is sent on by itself.
//!
//! *Why nothing is kept for ever.* Messages from one PE to another keep their order, so when all have come, what a node knows of a sender is what that has told
//! last, and by the rule above its true standing is not higher than that. If a node then keeps a part of reduction `k`, one that sends to it stands at `k` or below; if
//! that is a node, so does one that sends to it, and so on down to a PE where an element lives that owes `k` or one before. Such an element takes
//! part in `k`, so the root waits for it as well, and not only the node: it contributes, is destroyed, or leaves, and the standing of its PE rises. Where an element
//! moves to does not matter, since its part comes behind what is sent, as one more. An element under way owes nothing anywhere, and holds up nobody but the root.
//!
//! *Elements that insert others.* An insertion goes to the root, and the new element takes part in what its inserter has not contributed to. So a contribution
//! must not overtake an insertion before it: a PE where an element has inserted sends its parts to the root itself from then on, behind its
//! insertions, and tells the leader that nothing will come. (An element that moves afterwards goes by way of the root, `insertion`.)
//!
//! *Which parts are merged.* A node reads parts of other processes only by the reducer of a contribution of its own process to the same reduction, since
//! a reducer may have fields. Others go up as they are, in one message, or in several if their memory is too much for one. So do parts that would have more
//! buffers together than one message takes: device memory cannot go as bytes, and what each PE could send by itself must not fail for being merged. The
//! parts of PEs of this process are values until then, so they are asked how many they have; what they are asked sends nothing (`wire/count.rs`). It
//! serialises them to nowhere, so those are not asked that own no memory, as numbers do.
//!
//! *The order.* PEs' parts are merged in the order of the PEs, also where they go up in several messages, and contributions of one PE in the order of
//! arrival. What an element that has moved gives after its PE's process has sent comes behind the parts of that process. How sums of floating-point
//! numbers are grouped follows the tree: it is the same each time as long as no elements come or move.

use std::collections::BTreeMap;
use std::ops::Range;

use chare_transport::Rank;
use serde::{Deserialize, Serialize};

use super::part::{Bundle, EncodedPart, Given, Part, Parts, in_messages, name_of};
use super::{Reducer, mismatch};
use crate::collection::Collection;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::known::Known;
use crate::message::{Msg, Name, Payload};
use crate::process::Shared;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Arrives, Decoder, Encoder, Kind, Leaves, Unsent, WireError};

/// Into how many pieces the processes below one are cut.
const FAN_OUT: usize = 4;

/// The standing of who has no contributions, to any reduction.
pub(super) const NOTHING: u64 = u64::MAX;

/// What a sender tells of itself.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Standing {
    by: PeId,
    /// The lowest reduction that it may still have a contribution to.
    next: u64,
}

/// How a part goes up.
pub(super) struct Climb {
    pub(super) sequence: u64,
    pub(super) count: u64,
    pub(super) standing: Standing,
}

/// Whether a sender that has told `told` has to tell that it stands at `next` now.
fn is_news(told: u64, next: u64) -> bool {
    next > told || told == NOTHING && next != NOTHING
}

/// The pieces into which those of `ranks` fall that are below `own`.
fn pieces(own: usize, ranks: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let length = (ranks.len() - 1).div_ceil(FAN_OUT).max(1);
    let cut = move |ranks: Range<usize>| {
        let end = ranks.end;
        ranks.step_by(length).map(move |start| start..end.min(start + length))
    };
    cut(ranks.start..own).chain(cut(own + 1..ranks.end))
}

/// The process above `own`, if it is not the `root` itself, and the ranks of which it is at the top.
fn place(root: usize, own: usize, size: usize) -> (Option<usize>, Range<usize>) {
    let (mut above, mut at, mut ranks) = (None, root, 0..size);
    while at != own {
        let piece = pieces(at, ranks).find(|piece| piece.contains(&own));
        ranks = piece.expect("the pieces are all ranks but one");
        (above, at) = (Some(at), ranks.start);
    }
    (above, ranks)
}

/// The PE of a process that parts for `root` are sent to.
fn head(shared: &Shared, process: usize, root: PeId) -> PeId {
    let rank = Rank(process as u32);
    if shared.process_of(root) == process { root } else { PeId::new(shared.pes_of_process(rank).start) }
}

/// What is next to a leader in the tree: the PE above it, and those of other processes below it.
fn neighbours(pe: &Pe, root: PeId) -> (PeId, impl Iterator<Item = PeId>) {
    let shared = pe.shared();
    let own = pe.rank.index();
    let (above, ranks) = place(shared.process_of(root), own, shared.process_count());
    let below = pieces(own, ranks).map(move |piece| head(shared, piece.start, root));
    (head(shared, above.expect("the root's process has no leader"), root), below)
}

fn leader(pe: &Pe) -> PeId {
    PeId::new(pe.near.0)
}

/// Whom a PE sends its own parts to.
pub(super) fn above(pe: &Pe, collection: &Collection) -> PeId {
    let root = collection.id().root();
    if pe.is_near(root) || collection.reductions.borrow().goes_straight {
        return root;
    }
    if pe.near_pes().len() > 1 {
        return leader(pe);
    }
    // Where nothing but its own comes to it, a leader needs no node.
    let (above, mut below) = neighbours(pe, root);
    if below.next().is_some() { pe.id() } else { above }
}

/// What the leader of a process keeps of one collection.
pub(super) struct Node {
    above: PeId,
    /// Where those stand that send to it.
    below: Vec<Standing>,
    /// What it has told of its own standing.
    told: u64,
    held: BTreeMap<u64, Held>,
}

/// Parts of one reduction at a node.
#[derive(Default)]
struct Held {
    groups: Vec<Group>,
    encoded: Vec<EncodedPart>,
}

/// Parts of PEs of this process that are of the same types.
struct Group {
    name: u64,
    /// A `Vec<Given<T, R>>`.
    parts: Box<dyn Parts>,
}

/// What is due.
struct Due {
    above: PeId,
    next: u64,
    held: BTreeMap<u64, Held>,
}

impl Node {
    fn new(pe: &Pe, root: PeId) -> Self {
        let (above, below) = neighbours(pe, root);
        let below = pe.near_pes().chain(below).map(|by| Standing { by, next: 0 }).collect();
        Node { above, below, told: 0, held: BTreeMap::new() }
    }

    /// Notes where a sender stands, after its parts have been put here; takes out what is due.
    fn hear(&mut self, standing: Standing) -> Result<Option<Due>, WireError> {
        let place = self.below.iter_mut().find(|below| below.by == standing.by);
        let place = place
            .ok_or_else(|| WireError::new("a part of a reduction came to a PE that it does not go by"))?;
        place.next = standing.next;
        let next = self.below.iter().map(|below| below.next).min().unwrap_or(NOTHING);
        let is_due = self.held.first_key_value().is_some_and(|(first, _)| *first < next);
        if !is_due && !is_news(self.told, next) {
            return Ok(None);
        }
        self.told = next;
        let kept = self.held.split_off(&next);
        let held = std::mem::replace(&mut self.held, kept);
        Ok(Some(Due { above: self.above, next, held }))
    }

    /// Drops the values, at the end of the PE.
    pub(super) fn give_up(self, pe: &Pe) {
        let groups = self.held.into_values().flat_map(|held| held.groups);
        groups.for_each(|group| group.parts.give_up(pe));
    }
}

impl Held {
    fn put<T: Send + 'static, R: Reducer<T>>(&mut self, given: Given<T, R>) {
        let name = name_of::<T, R>(given.merged.target.is_all());
        for group in self.groups.iter_mut().filter(|group| group.name == name) {
            let parts: &mut dyn Known = &mut *group.parts;
            // Several types may have one name.
            if let Some(parts) = parts.known_mut::<Vec<Given<T, R>>>() {
                return parts.push(given);
            }
        }
        self.groups.push(Group { name, parts: Box::new(vec![given]) });
    }

    /// Divides what is due into what goes up merged, and what goes up unread.
    fn divide(self, pe: &Pe, collection: &Collection, sequence: u64) -> (Vec<Bundle>, Vec<EncodedPart>) {
        let Held { groups, mut encoded } = self;
        // Stable, and all of them are from PEs behind those of this process.
        encoded.sort_by_key(|part| part.from);
        let (mut bundles, mut unread) = (Vec::new(), Vec::new());
        let mut names = Vec::<(u64, (&str, &str))>::new();
        for Group { name, mut parts } in groups {
            let types = parts.names();
            // Who knows others by their names only cannot tell them apart.
            match names.iter().find(|(other, _)| *other == name) {
                Some((_, there)) => parts.spoil(pe, &mismatch(collection, sequence, *there, types)),
                None => names.push((name, types)),
            }
            let mut theirs = encoded.extract_if(.., |part| part.name == name).collect();
            bundles.append(&mut parts.divide(pe, &mut theirs));
            unread.append(&mut theirs);
        }
        unread.append(&mut encoded);
        (bundles, unread)
    }
}

/// One message that is due.
enum Going {
    /// What is merged into one.
    Merged(u64, Bundle),
    Unread(Vec<EncodedPart>),
}

impl Due {
    /// Sends it. No table is borrowed: merging is code of the user's.
    fn send(self, pe: &Pe, collection: &Collection) {
        let Due { above, next, held } = self;
        let first = held.first_key_value().map_or(next, |(first, _)| *first);
        let (mut going, mut unread) = (Vec::new(), Vec::new());
        for (sequence, held) in held {
            let (bundles, mut others) = held.divide(pe, collection, sequence);
            going.extend(bundles.into_iter().map(|bundle| Going::Merged(sequence, bundle)));
            unread.append(&mut others);
        }
        going.extend(in_messages(unread).into_iter().map(Going::Unread));
        if going.is_empty() && above != collection.id().root() {
            going.push(Going::Unread(Vec::new()));
        }
        let (by, count) = (pe.id(), going.len());
        for (place, going) in going.into_iter().enumerate() {
            // All of them belong together: what is above waits for the last.
            let standing = Standing { by, next: if place + 1 < count { first } else { next } };
            let msg = match going {
                Going::Merged(sequence, Bundle { parts, theirs }) => {
                    parts.climb(pe, collection, sequence, standing, theirs)
                }
                Going::Unread(parts) => {
                    Ok(Msg::for_pe(Ascent { collection: collection.id(), standing, parts }))
                }
            };
            match msg {
                Ok(msg) => pe.post(above, msg),
                Err(error) => return pe.received_nonsense(&error),
            }
        }
    }
}

/// What a PE ships of its own, by whom, and where it stands then.
pub(super) fn climb(pe: &Pe, collection: &Collection, sequence: u64, count: u64) -> Climb {
    let mut reductions = collection.reductions.borrow_mut();
    // Nobody asks the PEs that send to the root.
    let goes_straight = pe.is_near(collection.id().root()) || reductions.goes_straight;
    let next = if goes_straight { NOTHING } else { reductions.unfinished.lowest() };
    reductions.told = next;
    Climb { sequence, count, standing: Standing { by: pe.id(), next } }
}

/// Has the parts of this PE go straight to the root, since an element here inserts another one.
pub(crate) fn go_straight(pe: &Pe, collection: &Collection) {
    let above = above(pe, collection);
    collection.reductions.borrow_mut().goes_straight = true;
    tell(pe, collection, above, NOTHING);
}

/// Tells who is above this PE where it stands; the root needs not know.
fn tell(pe: &Pe, collection: &Collection, above: PeId, next: u64) {
    let id = collection.id();
    if above != id.root() {
        let standing = Standing { by: pe.id(), next };
        pe.post(above, Msg::for_pe(Ascent { collection: id, standing, parts: Vec::new() }));
    }
}

/// Tells where this PE stands, if that has to be told.
pub(crate) fn tell_standing(pe: &Pe, collection: &Collection) {
    let above = above(pe, collection);
    if above == collection.id().root() {
        return;
    }
    let next = {
        let mut reductions = collection.reductions.borrow_mut();
        let next = reductions.unfinished.lowest();
        if !is_news(reductions.told, next) {
            return;
        }
        reductions.told = next;
        next
    };
    tell(pe, collection, above, next);
}

/// Puts parts into the node of this PE, and sends on what is due.
fn come_by(pe: &Pe, collection: &Collection, standing: Standing, put: impl FnOnce(&mut Node)) {
    let root = collection.id().root();
    let due = {
        let mut reductions = collection.reductions.borrow_mut();
        let node = reductions.node.get_or_insert_with(|| Box::new(Node::new(pe, root)));
        put(node);
        node.hear(standing)
    };
    match due {
        Ok(due) => due.into_iter().for_each(|due| due.send(pe, collection)),
        Err(error) => pe.received_nonsense(&error),
    }
}

impl<T: Send + 'static, R: Reducer<T>> Part<T, R> {
    /// At the leader of its process.
    pub(super) fn come_by(self, pe: &Pe) {
        let Some(collection) = pe.collection(self.collection) else {
            return pe.hold_for_collection(self.collection, Msg::for_pe(self));
        };
        let Part { standing, sequence, from, count, merged, .. } = self;
        come_by(pe, collection, standing, |node| {
            node.held.entry(sequence).or_default().put(Given { from, count, merged });
        });
    }
}

/// Parts that go up unread, or none: then it tells where its sender stands.
pub(crate) struct Ascent {
    collection: CollectionId,
    standing: Standing,
    parts: Vec<EncodedPart>,
}

/// Begins a message of so many parts.
pub(super) fn put_head(to: &mut Encoder, collection: CollectionId, standing: Standing, parts: usize) {
    to.put_own(&(collection, standing, parts));
}

impl Ascent {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let count = self.parts.len();
        put_head(to, self.collection, self.standing, count);
        self.parts.into_iter().zip(1..).for_each(|(part, number)| part.leave(to, number == count));
        Ok(())
    }
}

impl Arrives for Ascent {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (collection, standing, count): (_, _, usize) = from.take()?;
        let mut parts = Vec::new();
        for number in 1..=count {
            parts.push(EncodedPart::decode(from, number == count)?);
        }
        Ok(Ascent { collection, standing, parts })
    }
}

impl Payload for Ascent {
    const NAME: Name = Name::Runtime("parts of reductions");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Ascent, Self::leave);
    fn run(self, _: ChareId, reply: Reply, pe: &Pe) {
        let root = self.collection.root();
        if pe.id() == root {
            let Some(collection) = pe.named_collection(self.collection, &reply) else { return };
            return self.parts.into_iter().for_each(|part| part.arrive(pe, collection));
        }
        if pe.is_near(root) || pe.id() != leader(pe) {
            return pe.received_nonsense(&WireError::new(
                "a part of a reduction came to a PE that it does not go by",
            ));
        }
        let Some(collection) = pe.collection(self.collection) else {
            return pe.hold_for_collection(self.collection, Msg::for_pe(self));
        };
        come_by(pe, collection, self.standing, |node| {
            for part in self.parts {
                node.held.entry(part.sequence).or_default().encoded.push(part);
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_process_comes_up_once_and_with_those_that_follow_it() {
        for size in 1..130 {
            for root in [0, size / 3, size / 2, size - 1] {
                let mut seen = vec![false; size];
                let mut next = vec![(root, 0..size, 0)];
                while let Some((own, ranks, depth)) = next.pop() {
                    assert!(!std::mem::replace(&mut seen[own], true), "{own} of {size} to {root}");
                    // 1 + 5 + 5 * 4 + 5 * 16 processes are within three steps.
                    assert!(depth <= 4, "{own} of {size} to {root}");
                    assert!(own == root || own == ranks.start, "{own} of {size} to {root}: {ranks:?}");
                    assert!(pieces(own, ranks.clone()).count() <= FAN_OUT + usize::from(own == root));
                    for piece in pieces(own, ranks) {
                        assert_eq!(place(root, piece.start, size), (Some(own), piece.clone()));
                        next.push((piece.start, piece, depth + 1));
                    }
                }
                assert!(seen.into_iter().all(|seen| seen), "{size}, {root}");
            }
        }
    }
}
