//! Pieces of slabs: which are free, since when, and which one to give to whom. Knows nothing of CUDA.
//!
//! A slab is cut from its start; a piece keeps its size class for as long as its slab is not *reset*, which happens when
//! none of its pieces is handed out or still used, and it is not *merged* with its neighbours, which happens when there is no other
//! memory. Invariant: each byte of a slab below its cut is in exactly one piece, handed out or in the list of its class.

use super::lane::Mark;

/// How many free pieces of a class are looked at for one that can be used at once.
const SEARCHED: usize = 16;

/// The slabs of one kind of memory.
pub(super) struct Arena<M> {
    slabs: Vec<Option<Slab<M>>>,
    /// Free pieces by class. Few classes are in use at once, so a sorted vector is searched.
    classes: Vec<(usize, Vec<Piece>)>,
    live_bytes: usize,
}

struct Slab<M> {
    memory: M,
    len_bytes: usize,
    /// What is cut into pieces.
    cut_bytes: usize,
    /// Pieces that are handed out.
    live_count: usize,
}

/// A part of a slab.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) slab: usize,
    pub(super) offset_bytes: usize,
    pub(super) class_bytes: usize,
    /// What must be reached before it is used, except by the streams of the marks themselves.
    pub(super) after: Vec<Mark>,
    /// What its new owner gives it to do; kept here for its capacity while the piece is free.
    pub(super) uses: Vec<Mark>,
}

impl<M> Default for Arena<M> {
    fn default() -> Self {
        Arena { slabs: Vec::new(), classes: Vec::new(), live_bytes: 0 }
    }
}

impl<M> Arena<M> {
    /// Bytes handed out.
    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Bytes of all slabs.
    pub(super) fn slab_bytes(&self) -> usize {
        self.slabs.iter().flatten().map(|slab| slab.len_bytes).sum()
    }

    /// The memory of a slab that a piece is of.
    pub(super) fn memory(&mut self, slab: usize) -> &mut M {
        &mut self.slabs[slab].as_mut().expect("a slab with a piece is kept").memory
    }

    /// A piece that can be used at once if all marks are reached of which `is_passed` says so: a free one of the class, or
    /// one cut from a slab with room, or from a slab that is reset.
    pub(super) fn take(&mut self, class_bytes: usize, is_passed: impl Fn(&Mark) -> bool) -> Option<Piece> {
        self.take_free(class_bytes, &is_passed).or_else(|| self.cut(class_bytes)).or_else(|| {
            let is_idle = |slab: &Slab<M>| slab.live_count == 0 && slab.len_bytes >= class_bytes;
            let slab = self.find_idle(is_idle, &is_passed)?;
            self.forget_pieces(slab);
            self.slabs[slab].as_mut()?.cut_bytes = 0;
            self.cut(class_bytes)
        })
    }

    fn take_free(&mut self, class_bytes: usize, is_passed: impl Fn(&Mark) -> bool) -> Option<Piece> {
        let index = self.classes.binary_search_by_key(&class_bytes, |class| class.0).ok()?;
        let free = &mut self.classes[index].1;
        let found = free.iter().rev().take(SEARCHED).position(|piece| piece.after.iter().all(&is_passed))?;
        let piece = free.remove(free.len() - 1 - found);
        Some(self.hand_out(piece))
    }

    /// The free piece of the class that has waited longest, whatever it waits for.
    pub(super) fn take_pending(&mut self, class_bytes: usize) -> Option<Piece> {
        let index = self.classes.binary_search_by_key(&class_bytes, |class| class.0).ok()?;
        if self.classes[index].1.is_empty() {
            return None;
        }
        let piece = self.classes[index].1.remove(0);
        Some(self.hand_out(piece))
    }

    /// A piece made of free neighbours that can be used at once, of whatever classes, and of what has not been cut behind them. It waits
    /// for all that they wait for.
    pub(super) fn merge(&mut self, class_bytes: usize, is_passed: impl Fn(&Mark) -> bool) -> Option<Piece> {
        let pieces = self.classes.iter().flat_map(|class| &class.1);
        let passed = pieces.filter(|piece| piece.after.iter().all(&is_passed));
        let mut free: Vec<_> =
            passed.map(|piece| (piece.slab, piece.offset_bytes, piece.class_bytes)).collect();
        free.sort_unstable();
        let mut first = 0;
        for (index, &(slab, offset_bytes, piece_bytes)) in free.iter().enumerate() {
            let is_next = |&(before, offset, bytes): &(usize, usize, usize)| {
                before == slab && offset + bytes == offset_bytes
            };
            if index > 0 && !is_next(&free[index - 1]) {
                first = index;
            }
            let (end_bytes, whole) = (offset_bytes + piece_bytes, self.slabs[slab].as_ref()?);
            let reach_bytes = if end_bytes == whole.cut_bytes { whole.len_bytes } else { end_bytes };
            let is_enough = |from: usize| reach_bytes - free[from].1 >= class_bytes;
            if is_enough(first) {
                // No more than it takes.
                while first < index && is_enough(first + 1) {
                    first += 1;
                }
                return Some(self.join(slab, (free[first].1, end_bytes), class_bytes));
            }
        }
        None
    }

    /// Makes one piece of the free ones between two offsets; what is left of them is a piece of its own, for a later merge.
    fn join(&mut self, slab: usize, (start_bytes, end_bytes): (usize, usize), class_bytes: usize) -> Piece {
        let mut after: Vec<Mark> = Vec::new();
        for (_, free) in &mut self.classes {
            free.retain(|piece| {
                let is_part = piece.slab == slab && (start_bytes..end_bytes).contains(&piece.offset_bytes);
                if is_part {
                    piece.after.iter().for_each(|&mark| note_latest(&mut after, mark));
                }
                !is_part
            });
        }
        let rest_bytes = start_bytes + class_bytes;
        let whole = self.slabs[slab].as_mut().expect("a slab with a piece is kept");
        whole.cut_bytes = whole.cut_bytes.max(rest_bytes);
        if rest_bytes < end_bytes {
            let (offset_bytes, class_bytes) = (rest_bytes, end_bytes - rest_bytes);
            let rest = Piece { slab, offset_bytes, class_bytes, after: after.clone(), ..Piece::default() };
            self.put(rest);
        }
        self.hand_out(Piece { slab, offset_bytes: start_bytes, class_bytes, after, ..Piece::default() })
    }

    fn cut(&mut self, class_bytes: usize) -> Option<Piece> {
        let has_room = |slab: &Slab<M>| slab.len_bytes - slab.cut_bytes >= class_bytes;
        let slab = self.slabs.iter().position(|slab| slab.as_ref().is_some_and(has_room))?;
        let room = self.slabs[slab].as_mut()?;
        let offset_bytes = room.cut_bytes;
        room.cut_bytes += class_bytes;
        Some(self.hand_out(Piece { slab, offset_bytes, class_bytes, ..Piece::default() }))
    }

    fn hand_out(&mut self, piece: Piece) -> Piece {
        self.live_bytes += piece.class_bytes;
        self.slabs[piece.slab].as_mut().expect("a slab with a piece is kept").live_count += 1;
        piece
    }

    /// Takes a piece back. Its list of uses says when it may be used again; if it has none, what it waited for still holds.
    pub(super) fn give(&mut self, mut piece: Piece) {
        self.live_bytes -= piece.class_bytes;
        self.slabs[piece.slab].as_mut().expect("a slab with a piece is kept").live_count -= 1;
        if !piece.uses.is_empty() {
            std::mem::swap(&mut piece.after, &mut piece.uses);
            piece.uses.clear();
        }
        self.put(piece);
    }

    fn put(&mut self, piece: Piece) {
        match self.classes.binary_search_by_key(&piece.class_bytes, |class| class.0) {
            Ok(index) => self.classes[index].1.push(piece),
            Err(index) => self.classes.insert(index, (piece.class_bytes, vec![piece])),
        }
    }

    /// Adds a slab.
    pub(super) fn add(&mut self, memory: M, len_bytes: usize) {
        let slab = Some(Slab { memory, len_bytes, cut_bytes: 0, live_count: 0 });
        match self.slabs.iter().position(Option::is_none) {
            Some(index) => self.slabs[index] = slab,
            None => self.slabs.push(slab),
        }
    }

    /// Takes out the slabs of which nothing is handed out or used, but for those whose memory is to be kept.
    pub(super) fn trim(
        &mut self,
        is_kept: impl Fn(&M) -> bool,
        is_reached: impl Fn(&Mark) -> bool,
    ) -> Vec<M> {
        let mut idle = Vec::new();
        let may_go = |slab: &Slab<M>| slab.live_count == 0 && !is_kept(&slab.memory);
        while let Some(slab) = self.find_idle(may_go, &is_reached) {
            self.forget_pieces(slab);
            idle.extend(self.slabs[slab].take().map(|slab| slab.memory));
        }
        idle
    }

    fn find_idle(
        &self,
        is_wanted: impl Fn(&Slab<M>) -> bool,
        is_reached: impl Fn(&Mark) -> bool,
    ) -> Option<usize> {
        let is_used = |slab: usize| {
            let mut pieces =
                self.classes.iter().flat_map(|class| &class.1).filter(|piece| piece.slab == slab);
            pieces.any(|piece| !piece.after.iter().all(&is_reached))
        };
        let wanted = |&slab: &usize| self.slabs[slab].as_ref().is_some_and(&is_wanted);
        (0..self.slabs.len()).filter(wanted).find(|&slab| !is_used(slab))
    }

    fn forget_pieces(&mut self, slab: usize) {
        for (_, free) in &mut self.classes {
            free.retain(|piece| piece.slab != slab);
        }
    }
}

/// Notes a mark, unless a later one of its stream is there.
pub(super) fn note_latest(marks: &mut Vec<Mark>, mark: Mark) {
    let same = |old: &&mut Mark| old.device == mark.device && old.lane == mark.lane;
    match marks.iter_mut().find(same) {
        Some(old) => old.position = old.position.max(mark.position),
        None => marks.push(mark),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(lane: u16, position: u64) -> Mark {
        Mark { device: 0, lane, position }
    }

    #[test]
    fn pieces_wait_for_their_uses() {
        let mut arena = Arena::default();
        arena.add("slab", 1024);
        let mut piece = arena.take(512, |_| true).unwrap();
        piece.uses.push(mark(1, 7));
        arena.give(piece);
        // Not reached: the rest of the slab is cut instead, and then there is nothing.
        assert_eq!(arena.take(512, |_| false).unwrap().offset_bytes, 512);
        assert!(arena.take(512, |_| false).is_none());
        let own = arena.take(512, |mark| mark.lane == 1).unwrap();
        assert_eq!((own.offset_bytes, own.after.as_slice()), (0, [mark(1, 7)].as_slice()));
        // Given back unused, it still waits for what it waited for.
        arena.give(own);
        assert_eq!(arena.take_pending(512).unwrap().after, [mark(1, 7)]);
        assert_eq!(arena.live_bytes(), 1024);
    }

    #[test]
    fn free_neighbours_are_merged() {
        let mut arena = Arena::default();
        arena.add("slab", 2048);
        let mut pieces: Vec<Piece> = (0..6).map(|_| arena.take(256, |_| true).unwrap()).collect();
        pieces[1].uses.push(mark(1, 7));
        pieces[2].uses.push(mark(1, 5));
        pieces[4].uses.push(mark(2, 1));
        let kept = pieces.remove(3);
        pieces.into_iter().for_each(|piece| arena.give(piece));
        assert!(arena.take(768, |_| true).is_none() && arena.merge(1280, |_| true).is_none());
        assert!(arena.merge(768, |mark| mark.lane == 2).is_some_and(|piece| piece.offset_bytes == 1280));
        // What has been merged is not there again, and what is left of it is.
        assert!(arena.merge(768, |mark| mark.lane == 2).is_none());
        let merged = arena.merge(640, |mark| mark.lane == 1).unwrap();
        assert_eq!((merged.offset_bytes, merged.after.as_slice()), (0, [mark(1, 7)].as_slice()));
        assert!(arena.take(256, |_| true).is_some_and(|piece| piece.offset_bytes == 1024));
        assert!(arena.merge(256, |_| true).is_none());
        arena.give(kept);
        let rest = arena.merge(384, |_| true).unwrap();
        assert_eq!((rest.offset_bytes, rest.after.as_slice()), (640, [mark(1, 7)].as_slice()));
        assert_eq!(arena.live_bytes(), 2048);
    }

    #[test]
    fn idle_slabs_are_cut_anew_or_given_back() {
        let mut arena = Arena::default();
        arena.add("slab", 1024);
        let mut pieces: Vec<Piece> = (0..4).map(|_| arena.take(256, |_| true).unwrap()).collect();
        pieces[0].uses.push(mark(0, 1));
        pieces.into_iter().for_each(|piece| arena.give(piece));
        assert!(arena.take(1024, |_| false).is_none(), "a piece is still used");
        assert!(arena.trim(|_| false, |_| false).is_empty());
        let whole = arena.take(1024, |_| true).unwrap();
        assert!(arena.trim(|_| false, |_| true).is_empty(), "it is handed out");
        arena.give(whole);
        assert!(arena.trim(|slab| *slab == "slab", |_| true).is_empty(), "it is to be kept");
        assert_eq!(arena.trim(|_| false, |_| true), ["slab"]);
        assert!(arena.take(256, |_| true).is_none());
    }
}
