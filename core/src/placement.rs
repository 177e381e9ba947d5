//! Where the elements of an array are placed when they are created: a map of the user's, from indexes to PEs, or one of ours
//! that looks at the devices.

use crate::binding::Load;
use crate::current;
use crate::index::{DenseIndex, Index};
use crate::runtime::Runtime;

/// Says where elements of an array begin their lives; given to [`ArrayBuilder::map`](crate::ArrayBuilder::map) or
/// [`SparseBuilder::map`](crate::SparseBuilder::map). Without one, the elements of a dense array are placed in blocks of
/// consecutive ones, those of a sparse array by their keys, evenly.
///
/// ```
/// use chare::prelude::*;
///
/// /// Deals elements out like cards.
/// struct RoundRobin;
///
/// impl chare::Placement<usize> for RoundRobin {
///     fn pe(&self, index: &usize, pe_count: usize) -> usize {
///         index % pe_count
///     }
/// }
/// ```
pub trait Placement<I: Index>: Send + Sync + 'static {
    /// The PE of an element, less than `pe_count`. The same index must always get the same PE.
    fn pe(&self, index: &I, pe_count: usize) -> usize;
}

/// Places the elements of a dense array where devices have the most left for them: so that in the end all devices have as many
/// chares for their speed, as far as their memory goes. In blocks of consecutive elements, so that most neighbours stay
/// on one PE.
///
/// ```
/// use chare::prelude::*;
///
/// struct Cell(usize);
///
/// #[chare(index = usize)]
/// impl Cell {
///     fn new(cx: &Cx<Self>) -> Self {
///         Cell(cx.my_pe().index())
///     }
///
///     #[entry]
///     fn pe(&self) -> usize {
///         self.0
///     }
/// }
///
/// #[chare::main]
/// async fn main(rt: Runtime) -> Result<()> {
///     // On `--pes 2 --device host:2@1,3` the second PE gets three times as many as the first.
///     let cells = rt.array::<Cell>(8).map(chare::OverDevices::new(&rt, 8)).create(()).await?;
///     assert_eq!(cells.pe().gather().await?.len(), 8);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct OverDevices<I> {
    shape: I,
    /// By PE: the number of the first element after its block.
    ends: Vec<u64>,
}

impl<I: DenseIndex> OverDevices<I> {
    /// A map for an array of this shape, by what the devices have to do and have left now.
    ///
    /// # Panics
    /// On a thread that is not a PE, if the shape has more elements than 64 bits count, and in a run of several processes, whose
    /// devices are not known here.
    #[track_caller]
    pub fn new(rt: &Runtime, shape: I) -> Self {
        OverDevices::with_bytes_each(rt, shape, 0)
    }

    /// The same, if each element will need this many bytes of device memory: a device gets no more elements than it has
    /// room for, unless none has room. A device that is lost has none.
    ///
    /// # Panics
    /// As [`OverDevices::new`].
    #[track_caller]
    pub fn with_bytes_each(_rt: &Runtime, shape: I, bytes_each: u64) -> Self {
        let Some(count) = shape.element_count() else { panic!("an array of shape {shape:?} is too large") };
        let counts = current::on_pe("OverDevices", |pe| {
            assert!(
                !pe.has_far_pes(),
                "`OverDevices` knows the devices of one process, and this run has several: give the array another map, or none"
            );
            let devices = pe.shared().devices();
            let elements = |device: &chare_device::Device, is_lost: bool| match device.capacity_bytes() {
                _ if is_lost => 0,
                u64::MAX => u64::MAX,
                capacity => {
                    let free_bytes = capacity.saturating_sub(device.used_bytes());
                    free_bytes.checked_div(bytes_each).unwrap_or(u64::MAX)
                }
            };
            let room = |device: &chare_device::Device| {
                let load = Load::of(device);
                Room { load, elements: elements(device, load.is_lost) }
            };
            share_out(count, &devices.iter().map(room).collect::<Vec<_>>(), devices.by_pe())
        });
        let mut end = 0;
        let ends = counts.iter().map(|count| {
            end += count;
            end
        });
        OverDevices { shape, ends: ends.collect() }
    }
}

impl<I: DenseIndex> Placement<I> for OverDevices<I> {
    fn pe(&self, index: &I, pe_count: usize) -> usize {
        let Some(number) = index.number_in(self.shape) else {
            panic!("{index:?} is not in an array of shape {:?}", self.shape)
        };
        let pe = self.ends.partition_point(|&end| end <= number);
        // Of another run, with other PEs.
        assert!(self.ends.len() == pe_count, "the map was made for {} PEs", self.ends.len());
        pe
    }
}

/// What a device has to do, and how many more elements it has memory for.
#[derive(Clone, Copy, Debug)]
struct Room {
    load: Load,
    elements: u64,
}

/// How many of `count` elements each PE gets, if `by_pe` says its devices.
fn share_out(count: u64, rooms: &[Room], by_pe: &[Vec<usize>]) -> Vec<u64> {
    let is_used = |ordinal: usize| by_pe.iter().any(|own| own.contains(&ordinal));
    let room = |(ordinal, room): (usize, &Room)| Room {
        elements: if is_used(ordinal) { room.elements } else { 0 },
        ..*room
    };
    let mut rooms: Vec<Room> = rooms.iter().enumerate().map(room).collect();
    let fitting = rooms.iter().fold(0_u64, |sum, room| sum.saturating_add(room.elements));
    if fitting < count {
        // Who gets too much will say so; nothing is gained by overloading one device alone.
        rooms.iter_mut().filter(|room| room.elements > 0).for_each(|room| room.elements = u64::MAX);
        if fitting == 0 {
            let used = (0..rooms.len()).filter(|&ordinal| is_used(ordinal));
            used.collect::<Vec<_>>().into_iter().for_each(|ordinal| rooms[ordinal].elements = u64::MAX);
        }
    }
    let by_device = level(count, &rooms);
    let mut by_pe_counts = vec![0; by_pe.len()];
    for (ordinal, count) in by_device.into_iter().enumerate() {
        let pes: Vec<usize> = (0..by_pe.len()).filter(|&pe| by_pe[pe].contains(&ordinal)).collect();
        for (turn, &pe) in pes.iter().enumerate() {
            let sharers = pes.len() as u64;
            by_pe_counts[pe] += count / sharers + u64::from((turn as u64) < count % sharers);
        }
    }
    by_pe_counts
}

/// How many of `count` elements each device gets, so that all are equally loaded for their speed.
fn level(count: u64, rooms: &[Room]) -> Vec<u64> {
    let at = |level: f64| -> Vec<u64> {
        let most = |room: &Room| (level * room.load.speed - room.load.owners as f64).max(0.0) as u64;
        rooms.iter().map(|room| most(room).min(room.elements)).collect()
    };
    let sum = |counts: &[u64]| counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let slowest = rooms.iter().map(|room| room.load.speed).fold(f64::INFINITY, f64::min);
    let owners: usize = rooms.iter().map(|room| room.load.owners).sum();
    let (mut low, mut high) = (0.0, (count as f64 + owners as f64 + 1.0) / slowest);
    // Each step halves what is left: beyond the precision of the numbers there is nothing to find.
    for _ in 0..f64::MANTISSA_DIGITS + 11 {
        let middle = (low + high) / 2.0;
        if sum(&at(middle)) <= count { low = middle } else { high = middle }
    }
    let mut counts = at(low);
    for _ in sum(&counts)..count {
        let with_one_more = |ordinal: usize| {
            let Room { load, .. } = rooms[ordinal];
            let owners = load.owners as f64 + counts[ordinal] as f64;
            (owners + 1.0) / load.speed
        };
        let open = (0..rooms.len()).filter(|&ordinal| counts[ordinal] < rooms[ordinal].elements);
        let next = open.min_by(|one, other| with_one_more(*one).total_cmp(&with_one_more(*other)));
        counts[next.expect("there is room for all")] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = u64::MAX;

    fn rooms(rooms: &[(usize, f64, u64)]) -> Vec<Room> {
        let room = |&(owners, speed, elements): &(usize, f64, u64)| Room {
            load: Load { owners, speed, is_full: elements == 0, is_lost: false },
            elements,
        };
        rooms.iter().map(room).collect()
    }

    #[test]
    fn elements_go_where_there_is_most_left() {
        let one_each: &[&[usize]] = &[&[0], &[1]];
        for (count, devices, by_pe, counts) in [
            (8, &[(0, 1.0, MANY), (0, 1.0, MANY)][..], one_each, &[4, 4][..]),
            (7, &[(0, 1.0, MANY), (0, 1.0, MANY)], one_each, &[4, 3]),
            (8, &[(0, 1.0, MANY), (0, 3.0, MANY)], one_each, &[2, 6]),
            (4, &[(6, 1.0, MANY), (0, 1.0, MANY)], one_each, &[0, 4]),
            (10, &[(6, 1.0, MANY), (0, 1.0, MANY)], one_each, &[2, 8]),
            (10, &[(0, 1.0, 3), (0, 1.0, MANY)], one_each, &[3, 7]),
            (10, &[(0, 1.0, 3), (0, 1.0, 0)], one_each, &[10, 0]),
            (10, &[(0, 1.0, 0), (0, 1.0, 0)], one_each, &[5, 5]),
            (9, &[(0, 1.0, MANY), (0, 2.0, MANY)], &[&[0], &[0], &[1]], &[2, 1, 6]),
            (6, &[(0, 1.0, MANY), (0, 1.0, MANY), (0, 1.0, MANY)], &[&[0, 1], &[2]], &[4, 2]),
            (6, &[(0, 1.0, MANY), (0, 9.0, MANY)], &[&[0], &[0]], &[3, 3]),
            (3, &[(0, 1.0, MANY)], &[&[0], &[0], &[0], &[0]], &[1, 1, 1, 0]),
        ] {
            let by_pe: Vec<Vec<usize>> = by_pe.iter().map(|own| own.to_vec()).collect();
            assert_eq!(share_out(count, &rooms(devices), &by_pe), counts, "{count} over {devices:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn all_elements_get_a_pe(
            count in 1_u64..1 << 40,
            devices in proptest::collection::vec((0_usize..1000, 0.001_f64..1e6, 0_u64..1 << 20), 1..6),
            pes in 1_usize..9,
        ) {
            let by_pe: Vec<Vec<usize>> = (0..pes).map(|pe| vec![pe * devices.len() / pes]).collect();
            let counts = share_out(count, &rooms(&devices), &by_pe);
            proptest::prop_assert_eq!(counts.iter().sum::<u64>(), count);
        }
    }
}
